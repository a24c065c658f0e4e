//! What one `claude` process has cost so far, in tokens.
//!
//! A result line settles: `model_usage_since_last_result` tells what every model was asked since the result line
//! before, subagents included. Clients without that field tell `usage`, which is the main thread's alone.
//! A message that no result line has settled yet counts with its own latest `usage`. Its output figure is then what
//! the API said when the message began, so a killed process has cost a little more than is known.

use std::collections::HashMap;

use runledger_events::Tokens;

use runledger_events::{Fields, ObjectText};

/// The model of messages that the client made itself; the API was not asked.
pub(crate) const NO_MODEL: &str = "<synthetic>";

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thread {
    Main,
    Subagent,
}

/// What one process has cost. Invariant: each message id counts once, by a result line or by its own usage.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClaudeTokens {
    /// The sum of all result lines.
    settled: Tokens,
    messages: HashMap<String, Message>,
    context_size: Option<u64>,
    context_window_size: Option<u64>,
}

#[derive(Debug, Clone)]
struct Message {
    usage: Tokens,
    thread: Thread,
    is_settled: bool,
}

impl ClaudeTokens {
    /// Takes an assistant message; one message comes in several lines, of which the latest counts.
    pub(crate) fn message(&mut self, message: &Fields<'_>, thread: Thread) {
        let (Some(id), Some(usage)) = (message.text("id"), message.object("usage")) else {
            return;
        };
        let usage = api_usage(&usage);
        if !usage.has_sums() {
            return;
        }
        if thread == Thread::Main && message.text("model").as_deref() != Some(NO_MODEL) {
            let context = [usage.input, usage.cache_read, usage.cache_write];
            self.context_size = Some(context.into_iter().flatten().fold(0, u64::saturating_add));
        }
        let known = self.messages.entry(id).or_insert(Message { usage, thread, is_settled: false });
        known.usage = usage;
    }

    /// Takes a result line; gives what this line alone tells.
    pub(crate) fn result(&mut self, line: &Fields<'_>) -> Tokens {
        let windows = line.object("modelUsage");
        let windows = windows.iter().flat_map(Fields::objects).filter_map(|model| model.count("contextWindow"));
        self.context_window_size = windows.chain(self.context_window_size).max();

        let (delta, settles_subagents) = match line.object("model_usage_since_last_result") {
            Some(models) => {
                (models.objects().map(|model| model_usage(&model)).fold(nothing(), Tokens::followed_by), true)
            }
            None => (line.object("usage").map(|usage| api_usage(&usage)).unwrap_or_default(), false),
        };
        if delta.has_sums() {
            self.settled = self.settled.followed_by(delta);
            for message in self.messages.values_mut() {
                message.is_settled |= settles_subagents || message.thread == Thread::Main;
            }
        }
        delta
    }

    /// What the process has cost so far.
    pub(crate) fn so_far(&self) -> Tokens {
        let unsettled = self.messages.values().filter(|message| !message.is_settled).map(|message| message.usage);
        Tokens {
            context_size: self.context_size,
            context_window_size: self.context_window_size,
            ..unsettled.fold(self.settled, Tokens::followed_by)
        }
    }
}

/// What one thread of a transcript has cost so far. Invariant: each message id counts once, with its latest usage.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningTokens {
    /// Input, output, cache read, cache write; of all messages together.
    sums: [u128; 4],
    messages: HashMap<String, [u64; 4]>,
    context_size: Option<u64>,
}

impl RunningTokens {
    /// Takes one line of an assistant message; gives whether any figure changed.
    ///
    /// `is_main`: the context is this thread's.
    pub(crate) fn message(&mut self, message: &Fields<'_>, is_main: bool) -> bool {
        let (Some(id), Some(usage)) = (message.text("id"), message.object("usage")) else {
            return false;
        };
        let usage = api_usage(&usage);
        if !usage.has_sums() {
            return false;
        }
        let figures = [usage.input, usage.output, usage.cache_read, usage.cache_write].map(Option::unwrap_or_default);
        let [input, _, read, write] = figures;
        let context_size = Some(input.saturating_add(read).saturating_add(write)).filter(|_| is_main);
        let before = self.messages.insert(id, figures);
        for (at, sum) in self.sums.iter_mut().enumerate() {
            let known = before.map_or(0, |figures| figures[at]);
            *sum = sum.saturating_sub(known.into()).saturating_add(figures[at].into());
        }
        let has_new_context = context_size.is_some_and(|size| self.context_size != Some(size));
        self.context_size = context_size.or(self.context_size);
        before != Some(figures) || has_new_context
    }

    pub(crate) fn so_far(&self) -> Tokens {
        let [input, output, cache_read, cache_write] =
            self.sums.map(|sum| Some(u64::try_from(sum).unwrap_or(u64::MAX)));
        let sums = Tokens { input, output, cache_read, cache_write, ..Tokens::default() };
        Tokens { context_size: self.context_size, ..with_total(sums) }
    }
}

/// Known to be nothing.
fn nothing() -> Tokens {
    Tokens {
        input: Some(0),
        output: Some(0),
        cache_read: Some(0),
        cache_write: Some(0),
        total: Some(0),
        ..Tokens::default()
    }
}

/// Figures as the API writes them.
fn api_usage(usage: &Fields<'_>) -> Tokens {
    with_total(Tokens {
        input: usage.count("input_tokens"),
        output: usage.count("output_tokens"),
        cache_read: usage.count("cache_read_input_tokens"),
        cache_write: usage.count("cache_creation_input_tokens"),
        ..Tokens::default()
    })
}

/// Figures as the client writes them for one model.
fn model_usage(model: &Fields<'_>) -> Tokens {
    with_total(Tokens {
        input: model.count("inputTokens"),
        output: model.count("outputTokens"),
        cache_read: model.count("cacheReadInputTokens"),
        cache_write: model.count("cacheCreationInputTokens"),
        ..Tokens::default()
    })
}

pub(crate) fn with_total(tokens: Tokens) -> Tokens {
    // Adding to unknown figures computes the total, and leaves all of them unknown where none is known.
    Tokens::default().followed_by(tokens)
}

/// The figures as `usage.update` writes them; an unknown one is `null`.
pub(crate) fn tokens_json(tokens: &Tokens) -> String {
    let figure = |figure: Option<u64>| figure.map_or_else(|| String::from("null"), |figure| figure.to_string());
    ObjectText::new()
        .raw("input", figure(tokens.input).as_str())
        .raw("output", figure(tokens.output).as_str())
        .raw("cacheRead", figure(tokens.cache_read).as_str())
        .raw("cacheWrite", figure(tokens.cache_write).as_str())
        .raw("total", figure(tokens.total).as_str())
        .raw("contextSize", figure(tokens.context_size).as_str())
        .raw("contextWindowSize", figure(tokens.context_window_size).as_str())
        .finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn sums(tokens: Tokens) -> [Option<u64>; 5] {
        [tokens.input, tokens.output, tokens.cache_read, tokens.cache_write, tokens.total]
    }

    fn message(tokens: &mut ClaudeTokens, id: &str, model: &str, figures: [u64; 4], thread: Thread) {
        let [input, output, read, write] = figures;
        let json = format!(
            r#"{{"id":"{id}","model":"{model}","usage":{{"input_tokens":{input},"output_tokens":{output},
                "cache_read_input_tokens":{read},"cache_creation_input_tokens":{write}}}}}"#
        );
        tokens.message(&Fields::parse(&json).unwrap(), thread);
    }

    fn result(tokens: &mut ClaudeTokens, json: &str) -> Tokens {
        tokens.result(&Fields::parse(json).unwrap())
    }

    #[test]
    fn nothing_told_is_unknown_and_not_zero() {
        let mut tokens = ClaudeTokens::default();
        assert!(tokens.so_far().is_unknown());
        assert!(result(&mut tokens, r#"{"usage":null}"#).is_unknown());
        assert!(tokens.so_far().is_unknown());
        assert_eq!(sums(result(&mut tokens, r#"{"model_usage_since_last_result":{}}"#)), [Some(0); 5]);
    }

    #[test]
    fn a_message_counts_once_with_its_latest_usage() {
        let mut tokens = ClaudeTokens::default();
        message(&mut tokens, "m1", "opus", [11, 1, 0, 200], Thread::Main);
        message(&mut tokens, "m1", "opus", [11, 27, 0, 200], Thread::Main);
        message(&mut tokens, "m2", "haiku", [5, 1, 70, 3], Thread::Subagent);
        assert_eq!(sums(tokens.so_far()), [Some(16), Some(28), Some(70), Some(203), Some(317)]);
        assert_eq!(tokens.so_far().context_size, Some(211), "a subagent has a context of its own");
    }

    #[test]
    fn a_result_line_settles_the_messages_before_it_and_later_ones_are_added() {
        let mut tokens = ClaudeTokens::default();
        message(&mut tokens, "m1", "opus", [11, 1, 0, 200], Thread::Main);
        message(&mut tokens, "m2", "opus", [11, 1, 0, 200], Thread::Subagent);
        let delta = result(
            &mut tokens,
            r#"{"usage":{"input_tokens":11},
                "modelUsage":{"opus":{"contextWindow":1000},"haiku":{"contextWindow":200}},
                "model_usage_since_last_result":{
                    "opus":{"inputTokens":10,"outputTokens":20,"cacheReadInputTokens":30,"cacheCreationInputTokens":40},
                    "haiku":{"inputTokens":1,"outputTokens":2,"cacheReadInputTokens":3,"cacheCreationInputTokens":4}}}"#,
        );
        assert_eq!(sums(delta), [Some(11), Some(22), Some(33), Some(44), Some(110)]);
        assert_eq!(sums(tokens.so_far()), sums(delta));
        assert_eq!(tokens.so_far().context_window_size, Some(1000));

        message(&mut tokens, "m1", "opus", [11, 1, 0, 200], Thread::Main);
        assert_eq!(sums(tokens.so_far()), sums(delta), "m1 is settled");
        message(&mut tokens, "m3", "opus", [1, 1, 1, 1], Thread::Main);
        assert_eq!(sums(tokens.so_far()), [Some(12), Some(23), Some(34), Some(45), Some(114)]);
    }

    #[test]
    fn a_result_line_of_an_older_client_settles_the_main_thread_alone() {
        let mut tokens = ClaudeTokens::default();
        message(&mut tokens, "m1", "opus", [11, 1, 0, 200], Thread::Main);
        message(&mut tokens, "m2", "opus", [5, 1, 0, 0], Thread::Subagent);
        let delta = result(&mut tokens, r#"{"usage":{"input_tokens":11,"output_tokens":27}}"#);
        assert_eq!(sums(delta), [Some(11), Some(27), Some(0), Some(0), Some(38)]);
        assert_eq!(sums(tokens.so_far()), [Some(16), Some(28), Some(0), Some(0), Some(44)]);
    }

    #[test]
    fn a_message_of_the_client_itself_leaves_the_context_as_it_was() {
        let mut tokens = ClaudeTokens::default();
        message(&mut tokens, "m1", "opus", [11, 1, 7, 200], Thread::Main);
        message(&mut tokens, "m2", NO_MODEL, [0, 0, 0, 0], Thread::Main);
        assert_eq!(tokens.so_far().context_size, Some(218));
    }

    #[test]
    fn sums_saturate() {
        const FIGURE_MAX: u64 = i64::MAX.unsigned_abs();
        let mut tokens = ClaudeTokens::default();
        result(&mut tokens, r#"{"usage":{"input_tokens":1e999,"output_tokens":9}}"#);
        result(&mut tokens, r#"{"usage":{"input_tokens":5,"output_tokens":9}}"#);
        assert_eq!(sums(tokens.so_far()), [Some(FIGURE_MAX), Some(18), Some(0), Some(0), Some(FIGURE_MAX)]);
    }
}
