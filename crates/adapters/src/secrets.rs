//! Well-known secrets in a text: keys and tokens whose form tells what they are. Each is replaced by a word that says what
//! stood there.
//!
//! This finds forms, not secrets: a password that looks like a word stays. The text may be JSON, and stays JSON: what is
//! taken out has no quotes, and whole escapes alone, and what is put in has neither. Escapes that JSON does not need (`\/`,
//! `\u0061`) hide nothing: they are undone before anything is looked for.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Names, and the forms that have them. A name is that of a group in one expression, so that a text is gone through once.
///
/// None asks for a word to begin where it does: in JSON text the letter of an escaped line break may stand before it.
///
/// Source: the issuers' own descriptions of their tokens' forms, and the rules of gitleaks and of GitHub's secret scanning.
const FORMS: [(&str, &str); 16] = [
    ("anthropic_key", r"sk-ant-[A-Za-z0-9_-]{20,}"),
    ("openai_key", r"sk-[A-Za-z0-9]{32,}|sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{32,}"),
    ("github_token", r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}"),
    ("gitlab_token", r"gl(?:pat|ptt|dt|rt|soat)-[A-Za-z0-9_-]{20,}"),
    ("aws_access_key_id", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"),
    (
        "aws_secret_key",
        r"(?i-u:aws_?secret(?:_?access)?_?key|secret_?access_?key)[\\\x22' ]{0,4}[=:][\\\x22' ]{0,4}[A-Za-z0-9/+]{40}",
    ),
    ("google_key", r"AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}"),
    ("slack_token", r"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}"),
    ("stripe_key", r"[rs]k_(?:live|test)_[A-Za-z0-9]{20,}"),
    ("npm_token", r"npm_[A-Za-z0-9]{36}"),
    ("pypi_token", r"pypi-[A-Za-z0-9_-]{50,}"),
    ("crates_token", r"cio[A-Za-z0-9]{32}"),
    ("jwt", r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    ("bearer", r"(?i-u:bearer)(?:[ \t]|\\t)+[A-Za-z0-9._~+/-]{20,}=*"),
    ("url_password", r"[a-z][a-z0-9+.-]{1,20}://[A-Za-z0-9._%+-]{0,64}:[A-Za-z0-9._%+!#$&*~^-]{2,}@"),
    (
        "private_key",
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:[^\x22\\]|\\[^\x22])*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\\?\z|\\?\x22)",
    ),
];

/// Characters of such a key, all of one byte.
const AWS_SECRET_CHARS: usize = 40;

static EXPRESSION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let forms: Vec<String> = FORMS.iter().map(|(name, form)| format!("(?P<{name}>{form})")).collect();
    // A test holds that it compiles.
    Regex::new(&forms.join("|")).ok()
});

/// The text with `[redacted:NAME]` in the place of each secret.
pub fn redact_secrets(text: &str) -> Cow<'_, str> {
    let Some(expression) = &*EXPRESSION else {
        return Cow::Borrowed(text);
    };
    match without_needless_escapes(text) {
        // The same text to whoever reads it as JSON; it is taken only where something is in it.
        Some(plain) => match expression.replace_all(&plain, replacement) {
            Cow::Owned(redacted) => Cow::Owned(redacted),
            Cow::Borrowed(_) => Cow::Borrowed(text),
        },
        None => expression.replace_all(text, replacement),
    }
}

/// The text with the escapes undone that JSON does not need: `\/`, and `\u00XX` of printable ASCII; `None` where there are none.
fn without_needless_escapes(text: &str) -> Option<String> {
    if !text.contains("\\/") && !text.contains("\\u00") {
        return None;
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        plain.push_str(before);
        let hexadecimal = escape.strip_prefix("\\u").and_then(|digits| digits.get(..4));
        let meant = hexadecimal.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let needless = meant.filter(|byte| (b' '..=b'~').contains(byte) && !b"\"\\".contains(byte));
        let taken = match (needless, escape.as_bytes().get(1)) {
            (Some(byte), _) => {
                plain.push(char::from(byte));
                6
            }
            (None, Some(b'/')) => {
                plain.push('/');
                2
            }
            // Whatever is escaped is no beginning of an escape.
            (None, Some(next)) if next.is_ascii() => {
                plain.push_str(&escape[..2]);
                2
            }
            (None, _) => {
                plain.push('\\');
                1
            }
        };
        rest = &escape[taken..];
    }
    plain.push_str(rest);
    Some(plain)
}

fn replacement(captures: &Captures<'_>) -> String {
    let name = FORMS.iter().map(|(name, _)| *name).find(|name| captures.name(name).is_some()).unwrap_or("secret");
    let whole = captures.get(0).map_or("", |whole| whole.as_str());
    let word = format!("[redacted:{name}]");
    match name {
        // The address stays, what the key is called, and the quote that ended an unfinished block.
        "url_password" => whole.split_once("://").map_or(word.clone(), |(scheme, _)| format!("{scheme}://{word}@")),
        "aws_secret_key" => whole[..whole.len().saturating_sub(AWS_SECRET_CHARS)].to_owned() + &word,
        "private_key" => match whole.strip_suffix('"') {
            Some(block) if is_escape_open(block) => word + "\\\"",
            Some(_) => word + "\"",
            None => word,
        },
        _ => word,
    }
}

/// Whether a text ends with a backslash that is not escaped itself.
fn is_escape_open(text: &str) -> bool {
    text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    /// Made-up secrets, put together here so that no scanner takes this file for one that leaks.
    fn made_up(name: &str) -> String {
        let letters = |count: usize| "aB3dE6gH9".chars().cycle().take(count).collect::<String>();
        let capitals = |count: usize| "ABCDEFG234567".chars().cycle().take(count).collect::<String>();
        match name {
            "anthropic_key" => format!("sk-{}-{}", "ant", letters(40)),
            "openai_key" => format!("sk-{}-{}", "proj", letters(48)),
            "github_token" => format!("gh{}_{}", "p", letters(36)),
            "gitlab_token" => format!("gl{}-{}", "pat", letters(20)),
            "aws_access_key_id" => format!("AK{}{}", "IA", capitals(16)),
            "aws_secret_key" => format!("AWS_SECRET_ACCESS_KEY={}", letters(40)),
            "google_key" => format!("AI{}{}", "za", letters(35)),
            "slack_token" => format!("xo{}-{}", "xb", letters(24)),
            "stripe_key" => format!("sk_{}_{}", "live", letters(24)),
            "npm_token" => format!("np{}_{}", "m", letters(36)),
            "pypi_token" => format!("py{}-{}", "pi", letters(60)),
            "crates_token" => format!("ci{}{}", "o", letters(32)),
            "jwt" => format!("ey{0}{1}.ey{0}{1}.{1}", "J", letters(20)),
            "bearer" => format!("Bearer {}", letters(30)),
            "url_password" => "postgres://app:hunter22@db".to_owned(),
            "private_key" => {
                format!("-----BEGIN RSA {0} KEY-----\\n{1}\\n{1}=\\n-----END RSA {0} KEY-----", "PRIVATE", letters(64))
            }
            name => panic!("no example of {name}"),
        }
    }

    #[test]
    fn every_form_is_found_in_json_which_stays_json_and_says_what_stood_there() {
        assert!(EXPRESSION.is_some());
        for (name, _) in FORMS {
            let secret = made_up(name);
            let json = format!(r#"{{"a":"before {secret} after","b":["{secret}"],"c":1}}"#);
            let redacted = redact_secrets(&json);
            let value: serde_json::Value =
                serde_json::from_str(&redacted).unwrap_or_else(|error| panic!("{name}: {error}: {redacted}"));
            let text = value["a"].as_str().unwrap();
            assert!(text.contains(&format!("[redacted:{name}]")), "{name}: {text}");
            assert!(text.starts_with("before ") && text.ends_with(" after"), "{name}: {text}");
            assert!(!redacted.contains(&secret), "{name}");
            assert_eq!(redact_secrets(&redacted), redacted, "{name}: twice is once");
        }
    }

    #[test]
    fn a_block_that_was_cut_off_is_taken_out_up_to_its_text_s_end() {
        let begin = format!("-----BEGIN {} KEY-----", "PRIVATE");
        let json = format!(r#"{{"a":"{begin}\nabc","b":2}}"#);
        assert_eq!(redact_secrets(&json), r#"{"a":"[redacted:private_key]","b":2}"#);
        assert_eq!(redact_secrets(&format!("{begin}\nabc")), "[redacted:private_key]");
        // The quote that ends it may be one of the text itself, or stand behind a backslash that is.
        let key = "[redacted:private_key]";
        for (text, without) in [
            (format!("echo \"{begin}\nabc\" > key"), format!("echo \"{key}\" > key")),
            (format!("'{begin}\nabc\\"), format!("'{key}")),
            (format!("{begin}\\\"abc"), format!("{key}\"abc")),
        ] {
            let json = serde_json::json!({"a": text, "b": 2}).to_string();
            let redacted: serde_json::Value = serde_json::from_str(&redact_secrets(&json)).unwrap();
            assert_eq!(redacted, serde_json::json!({"a": without, "b": 2}), "{json}");
        }
        assert_eq!(redact_secrets(&format!("{begin}\nabc\\")), key);
    }

    #[test]
    fn what_a_secret_is_called_stays_whether_in_words_or_in_json() {
        let key = "aB3dE6gH9/".repeat(4);
        for (text, without) in [
            (format!("AWS_SECRET_ACCESS_KEY={key} aws"), "AWS_SECRET_ACCESS_KEY=[redacted:aws_secret_key] aws"),
            (
                format!(r#"{{"env":{{"aws_secret_access_key": "{key}"}},"b":2}}"#),
                r#"{"env":{"aws_secret_access_key": "[redacted:aws_secret_key]"},"b":2}"#,
            ),
            (
                format!(r#"{{"a":"{{\"SecretAccessKey\":\"{key}\"}}"}}"#),
                r#"{"a":"{\"SecretAccessKey\":\"[redacted:aws_secret_key]\"}"}"#,
            ),
        ] {
            let redacted = redact_secrets(&text);
            assert_eq!(redacted, without);
            assert_eq!(redact_secrets(&redacted), without, "twice is once");
        }
    }

    #[test]
    fn needless_escapes_hide_nothing() {
        let token = made_up("github_token");
        for (name, json) in [
            ("github_token", format!(r#"{{"a":"\u0067{}"}}"#, &token[1..])),
            ("url_password", r#"{"a":"postgres:\/\/app:hunter22@db"}"#.to_owned()),
            ("url_password", r#"{"a":"postgres://app:hunt\u0026er22@db"}"#.to_owned()),
            ("url_password", r#"{"a":"redis://:hunter22@db"}"#.to_owned()),
            ("bearer", format!(r#"{{"a":"Bearer\t{}"}}"#, "aB3dE6gH9".repeat(4))),
            ("aws_secret_key", format!(r#"{{"a":"AWS_SECRET_ACCESS_KEY\u003d{}"}}"#, r"ab\/d".repeat(10))),
        ] {
            let redacted = redact_secrets(&json);
            let value: serde_json::Value = serde_json::from_str(&redacted).unwrap();
            assert!(value["a"].as_str().unwrap().contains(&format!("[redacted:{name}]")), "{json}: {redacted}");
        }
        // An escape that means itself is none, and a text without a secret stays as it is, to the byte.
        for text in [r#"{"a":"C:\\\\u0041\\/b \/ \u00e9 \u0022"}"#, "\\", "\\u00", "a\\é"] {
            assert_eq!(redact_secrets(text), text);
        }
    }

    #[test]
    fn what_only_looks_alike_stays() {
        for text in [
            "sk-short",
            "ghp_abc",
            "task-list-of-everything-that-is-to-be-done",
            "https://example.org/a:b@c",
            "https://user@example.org/",
            "bearer of bad news",
            "commit 0123456789abcdef0123456789abcdef01234567",
            "AKIA is a prefix",
            "-----BEGIN CERTIFICATE-----\\nabc\\n-----END CERTIFICATE-----",
        ] {
            assert_eq!(redact_secrets(text), text);
        }
    }
}
