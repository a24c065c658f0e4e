//! What Codex's rollout and its `exec --json` have in common: commands, token figures.

use runledger_events::Tokens;

use crate::claude_tokens::with_total;
use runledger_events::Fields;

/// The script that these words run: what stands behind `bash -lc`, else the words as a shell reads them.
pub(crate) fn script(words: &[String]) -> String {
    let quoted = || words.iter().map(|word| shell_quoted(word)).collect::<Vec<_>>().join(" ");
    shell_script(words).map_or_else(quoted, str::to_owned)
}

/// What these words give a shell to run.
pub(crate) fn shell_script(words: &[String]) -> Option<&str> {
    let [shell, flag, script] = words else {
        return None;
    };
    let is_shell = matches!(shell.rsplit('/').next(), Some("bash" | "sh" | "zsh"));
    (is_shell && matches!(flag.as_str(), "-lc" | "-c")).then_some(script)
}

fn shell_quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_./=:,@%+".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Figures as Codex writes them, where `input_tokens` has those of the cache in it.
pub(crate) fn codex_tokens(usage: &Fields<'_>) -> Tokens {
    let cache_read = usage.count("cached_input_tokens");
    let cache_write = usage.count("cache_write_input_tokens");
    let of_cache = cache_read.unwrap_or(0).saturating_add(cache_write.unwrap_or(0));
    with_total(Tokens {
        input: usage.count("input_tokens").map(|input| input.saturating_sub(of_cache)),
        output: usage.count("output_tokens"),
        cache_read,
        cache_write,
        ..Tokens::default()
    })
}

/// What `tokens` has more than `before`; the context's figures are those of `tokens`.
pub(crate) fn beyond(tokens: &Tokens, before: &Tokens) -> Tokens {
    let more = |now: Option<u64>, then: Option<u64>| now.map(|now| now.saturating_sub(then.unwrap_or(0)));
    Tokens {
        input: more(tokens.input, before.input),
        output: more(tokens.output, before.output),
        cache_read: more(tokens.cache_read, before.cache_read),
        cache_write: more(tokens.cache_write, before.cache_write),
        total: more(tokens.total, before.total),
        ..*tokens
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn words_that_are_no_script_are_shown_as_a_shell_reads_them() {
        let words = |words: &[&str]| script(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["bash", "-lc", "ls | wc"]), "ls | wc");
        assert_eq!(words(&["git", "commit", "-m", "it's"]), r"git commit -m 'it'\''s'");
        assert_eq!(words(&["python3", "-c", ""]), "python3 -c ''");
        assert_eq!(words(&[]), "");
    }

    #[test]
    fn tokens_of_the_cache_are_taken_out_of_the_input() {
        let json = r#"{"input_tokens":300,"cached_input_tokens":120,"cache_write_input_tokens":30,"output_tokens":25}"#;
        let tokens = codex_tokens(&Fields::parse(json).unwrap());
        assert_eq!((tokens.input, tokens.cache_read, tokens.total), (Some(150), Some(120), Some(325)));
        let more = beyond(&tokens, &codex_tokens(&Fields::parse(r#"{"input_tokens":100,"output_tokens":5}"#).unwrap()));
        assert_eq!((more.input, more.output, more.total), (Some(50), Some(20), Some(220)));
        assert!(codex_tokens(&Fields::parse("{}").unwrap()).is_unknown());
    }
}
