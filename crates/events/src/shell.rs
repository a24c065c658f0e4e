//! The simple commands in a shell's command line, as far as a permission has to know them.
//!
//! It reads on the safe side. What it cannot be sure of (a here-document, a redirection to a file, quotes that are not
//! closed, …) makes the line one that is not plain: no pattern of single commands allows it. What is denied is looked for
//! in more than one reading of each command, and, where shells may read the line in another way, in each of its pieces.
//! `shell_lexer.rs` reads the line; here is what it is read into, and the readings.

use crate::shell_lexer::lex;

/// Command lines inside command lines that are looked into, at the most.
pub(crate) const DEPTH_MAX: usize = 8;
/// A longer line is not read: whoever waits for an answer that takes too long goes on without one.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// A line of more commands is not read to its end.
pub(crate) const COMMANDS_MAX: usize = 1024;
/// Words before a command that are taken away, at the most.
const STRIPPED_MAX: usize = 64;
/// Readings of one command, and their length together, at the most.
const READINGS_MAX: usize = 512;
const READINGS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// In a reading: any characters, none too.
pub(crate) const ANY: char = '\0';
/// In a reading: any characters of one word, none too.
pub(crate) const ANY_IN_WORD: char = '\u{1}';

/// Words before a command that say nothing of what it does; options and numbers behind them belong to them.
const WRAPPERS: [&str; 31] = [
    "!", "{", "if", "then", "else", "elif", "while", "until", "do", "time", "sudo", "doas", "env", "command",
    "builtin", "exec", "nohup", "nice", "ionice", "stdbuf", "setsid", "timeout", "xargs", "function", "coproc",
    "flock", "chroot", "taskset", "watch", "parallel", "strace",
];
/// Those of them that take a word of their own, or may.
const WITH_ARGUMENT: [&str; 6] = ["timeout", "function", "coproc", "flock", "chroot", "taskset"];
const SHELLS: [&str; 7] = ["sh", "bash", "zsh", "dash", "ksh", "ash", "fish"];
/// What `find` has a command follow.
const FIND_ACTIONS: [&str; 4] = ["-exec", "-execdir", "-ok", "-okdir"];

/// One simple command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SimpleCommand {
    /// As it is written, with one space between its words and without redirections.
    pub(crate) text: String,
    /// Its words, without quotes; what a shell puts in is [`ANY`] or [`ANY_IN_WORD`].
    pub(crate) words: Vec<String>,
    /// Whether it may be no command but a text.
    pub(crate) is_guess: bool,
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// Its simple commands, those in substitutions too.
    pub(crate) commands: Vec<SimpleCommand>,
    /// Where shells may read it in another way: what may be commands besides.
    pub(crate) guesses: Vec<SimpleCommand>,
    /// Whether its commands are all that it does.
    pub(crate) is_plain: bool,
    /// Whether there is more in it than is looked at; it may be anything, then.
    pub(crate) is_unread: bool,
    /// Whether every shell reads it like this.
    pub(crate) is_sure: bool,
}

impl CommandLine {
    pub(crate) fn parse(text: &str) -> Self {
        if text.len() > LINE_BYTES_MAX {
            let (commands, guesses) = (Vec::new(), Vec::new());
            return Self { commands, guesses, is_plain: false, is_unread: true, is_sure: false };
        }
        let mut line = lex(text, 0);
        if !line.is_sure {
            line.guess(text);
        }
        line
    }

    /// Takes every piece between two separators for a command, whatever quotes it stands in.
    fn guess(&mut self, text: &str) {
        let text = text.replace("\\\n", "");
        for piece in text.split(|c| "\n;&|(){}`".contains(c)) {
            let words: Vec<String> =
                piece.split_whitespace().map(guessed_word).filter(|word| !word.is_empty()).collect();
            if self.guesses.len() >= COMMANDS_MAX {
                self.is_unread = true;
                return;
            }
            if !words.is_empty() {
                self.guesses.push(SimpleCommand { text: words.join(" "), words, is_guess: true });
            }
        }
    }

    pub(crate) fn take_in(&mut self, inner: Self) {
        self.commands.extend(inner.commands);
        self.is_plain &= inner.is_plain;
        self.is_sure &= inner.is_sure;
        self.is_unread |= inner.is_unread;
        if self.commands.len() > COMMANDS_MAX {
            self.commands.truncate(COMMANDS_MAX);
            self.is_unread = true;
        }
        self.is_plain &= !self.is_unread;
    }
}

/// A word without its quotes, up to where something is put in.
fn guessed_word(word: &str) -> String {
    let mut guessed = String::new();
    let mut characters = word.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, characters.peek()) {
            ('\'' | '"' | '\\', _) => {}
            ('$', Some(next)) if is_of_name(*next) => {
                guessed.push(ANY_IN_WORD);
                break;
            }
            ('$', _) => {}
            (c, _) => guessed.push(c),
        }
    }
    guessed
}

impl SimpleCommand {
    /// What a pattern that denies is laid against: the command as it is written, without its quotes, without what stands
    /// before it, by the program's name alone, and what it has a shell do. `None` where that is too much to look at.
    pub(crate) fn readings(&self) -> Option<Vec<String>> {
        let mut readings = Readings::default();
        readings.push(self.text.clone());
        readings.read_words(&self.words, self.is_guess, 0);
        (!readings.is_beyond).then_some(readings.texts)
    }
}

#[derive(Debug, Default)]
struct Readings {
    texts: Vec<String>,
    /// What has been looked at, readings found twice too.
    count: usize,
    bytes: usize,
    /// Whether it is more than is looked at.
    is_beyond: bool,
}

impl Readings {
    fn push(&mut self, text: String) {
        self.count += 1;
        self.bytes += text.len();
        self.is_beyond |= self.count > READINGS_MAX || self.bytes > READINGS_BYTES_MAX;
        if !self.is_beyond && !text.is_empty() && !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }

    fn push_words(&mut self, words: &[String], is_guess: bool) {
        // A text's stars and dollars are no commands that may be any.
        if is_guess && words.first().is_some_and(|word| word.starts_with([ANY, ANY_IN_WORD])) {
            return;
        }
        let is_any = |word: &&String| word.chars().eq([ANY]);
        if words.iter().any(|word| is_any(&word)) {
            // It may come to several words, and to none.
            let rest: Vec<&str> = words.iter().filter(|word| !is_any(word)).map(String::as_str).collect();
            self.push(rest.join(" "));
            let mut merged = words.to_vec();
            merged.dedup_by(|word, before| is_any(&&*word) && is_any(&&*before));
            self.push(merged.join(" "));
        } else {
            self.push(words.join(" "));
        }
    }

    fn read_words(&mut self, words: &[String], is_guess: bool, depth: usize) {
        let mut words = words;
        let (mut is_wrapped, mut may_be_argument) = (false, false);
        for stripped in 0.. {
            self.is_beyond |= stripped > STRIPPED_MAX || depth > DEPTH_MAX;
            if self.is_beyond {
                return;
            }
            self.push_words(words, is_guess);
            let Some((first, rest)) = words.split_first() else {
                return;
            };
            let name = first.rsplit('/').next().unwrap_or(first);
            let is_option = first.starts_with('-');
            let is_wild = first.chars().all(|c| matches!(c, ANY | ANY_IN_WORD));
            let belongs_to_wrapper = is_wrapped && (is_option || is_quantity(first));
            if WRAPPERS.contains(&name) || is_assignment(first) || is_wild || belongs_to_wrapper {
                is_wrapped = true;
                may_be_argument = is_option || WITH_ARGUMENT.contains(&name);
                words = rest;
                continue;
            }
            if name != first.as_str() {
                self.push_words(&[&[name.to_owned()], rest].concat(), is_guess);
            }
            self.read_scripts(name, rest, is_guess, depth);
            let is_name_of_group = is_wrapped && rest.first().is_some_and(|word| word == "{");
            if !may_be_argument && !is_name_of_group {
                return;
            }
            // It may be what an option or a wrapper is given, and the command what follows.
            may_be_argument = false;
            words = rest;
        }
    }

    /// What a program of this name runs of the words behind it.
    fn read_scripts(&mut self, name: &str, rest: &[String], is_guess: bool, depth: usize) {
        let arguments = || rest.iter().filter(|word| !word.starts_with('-')).cloned();
        let scripts: Vec<String> = match name {
            "eval" => vec![rest.join(" ")],
            "trap" => arguments().take(1).collect(),
            "find" => {
                for (at, word) in rest.iter().enumerate() {
                    if FIND_ACTIONS.contains(&word.as_str()) && !self.is_beyond {
                        self.read_words(&rest[at + 1..], is_guess, depth + 1);
                    }
                }
                return;
            }
            name if SHELLS.contains(&name) => arguments().collect(),
            _ => return,
        };
        for script in scripts {
            self.count += 1;
            self.bytes += script.len();
            self.is_beyond |= self.count > READINGS_MAX || self.bytes > READINGS_BYTES_MAX;
            if self.is_beyond {
                return;
            }
            let line = CommandLine::parse(&script);
            self.is_beyond |= line.is_unread;
            for command in line.commands.into_iter().chain(line.guesses) {
                self.push(command.text.clone());
                self.read_words(&command.words, is_guess || command.is_guess, depth + 1);
            }
        }
    }
}

pub(crate) fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name.trim_end_matches('+'));
    name.is_some_and(|name| {
        !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(is_of_name)
    })
}

/// A number, or a length of time as `timeout` takes it.
fn is_quantity(word: &str) -> bool {
    let number = word.trim_end_matches(['s', 'm', 'h', 'd']);
    !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> (Vec<String>, bool) {
        let parsed = CommandLine::parse(line);
        (parsed.commands.into_iter().map(|command| command.text).collect(), parsed.is_plain)
    }

    #[test]
    fn a_line_falls_into_its_simple_commands() {
        for (line, commands, is_plain) in [
            ("npm   run\tbuild", vec!["npm run build"], true),
            ("a && b || c; d | e & f\ng", vec!["a", "b", "c", "d", "e", "f", "g"], true),
            ("echo 'a; b' \"c && d\" e\\;f", vec!["echo 'a; b' \"c && d\" e\\;f"], true),
            ("echo $(rm x) `ls y`", vec!["rm x", "ls y", "echo $(rm x) `ls y`"], true),
            ("echo \"$(rm \"a)b\")\"", vec!["rm \"a)b\"", "echo \"$(rm \"a)b\")\""], true),
            ("diff <(a) >(b)", vec!["a", "b", "diff <(a) >(b)"], true),
            ("(cd x; make)", vec!["cd x", "make"], true),
            ("a \\\n b", vec!["a b"], true),
            ("a # it's a comment; not a command\nb", vec!["a", "b"], true),
            ("a b#c", vec!["a b#c"], true),
            ("make 2>&1 >/dev/null", vec!["make"], true),
            ("make &>/dev/null", vec!["make"], true),
            ("make > out.txt", vec!["make"], false),
            ("make >& out.txt", vec!["make"], false),
            ("sort < in.txt -u", vec!["sort -u"], false),
            ("cat <<EOF\nrm x\nEOF", vec!["cat", "rm x", "EOF"], false),
            ("cat <<< x", vec!["cat <<< x"], true),
            ("echo 'open", vec!["echo 'open"], false),
            ("echo \"open", vec!["echo \"open"], false),
            ("echo $'a\\'; rm x'", vec!["echo $'a\\'; rm x'"], false),
            ("echo ${x:-$(rm y)}", vec!["rm y", "echo ${x:-$(rm y)}"], false),
            ("echo ${x} $y", vec!["echo ${x} $y"], true),
            ("echo $(open", vec!["open", "echo $(open"], false),
            ("", vec![], true),
            (" # nothing", vec![], true),
            ("a >", vec!["a"], false),
            ("a \\", vec!["a \\"], false),
        ] {
            assert_eq!(texts(line), (commands.iter().map(ToString::to_string).collect(), is_plain), "{line}");
        }
    }

    #[test]
    fn what_is_denied_is_looked_for_behind_quotes_wrappers_and_shells() {
        for (line, reading) in [
            ("\"git\" pu''sh origin", "git push origin"),
            ("FOO=1 BAR= git push", "git push"),
            ("sudo -n env X=1 git push", "git push"),
            ("timeout 5s git push", "git push"),
            ("/usr/bin/git push", "git push"),
            ("bash -lc 'cd x && git push -f'", "git push -f"),
            ("sh -c \"bash -c 'git push'\"", "git push"),
            ("eval git push", "git push"),
            ("if git push", "git push"),
            ("find . | xargs -0 git push", "git push"),
            ("g\\it push", "git push"),
            ("sudo -u root git push", "git push"),
        ] {
            let line_read = CommandLine::parse(line);
            let commands = line_read.commands.iter().chain(&line_read.guesses);
            let readings: Vec<String> = commands.filter_map(SimpleCommand::readings).flatten().collect();
            assert!(readings.iter().any(|found| found == reading), "{line}: {readings:?}");
        }
    }

    #[test]
    fn many_words_and_scripts_before_a_command_cost_few_readings() {
        for line in ["A=1 ".repeat(60_000), "sudo ".repeat(50_000), "eval ".repeat(60), "find -exec ".repeat(60)] {
            let parsed = CommandLine::parse(&format!("{line}git push"));
            let mut readings = Readings::default();
            for command in &parsed.commands {
                readings.read_words(&command.words, false, 0);
            }
            assert!(readings.is_beyond && readings.count <= READINGS_MAX + 2 * STRIPPED_MAX, "{}", readings.count);
            assert!(readings.bytes <= READINGS_BYTES_MAX + 2 * STRIPPED_MAX * LINE_BYTES_MAX, "{}", readings.bytes);
            assert!(readings.texts.iter().map(String::len).sum::<usize>() <= READINGS_BYTES_MAX);
        }
        let long = CommandLine::parse(&"a".repeat(LINE_BYTES_MAX + 1));
        assert!(long.is_unread && !long.is_plain && long.commands.is_empty());
    }

    #[test]
    fn a_deep_line_costs_no_stack_and_is_not_plain() {
        let deep = format!("{}x{}", "$(".repeat(2000), ")".repeat(2000));
        assert!(!CommandLine::parse(&deep).is_plain);
    }
}
