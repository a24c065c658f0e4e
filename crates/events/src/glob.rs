//! Wildcards: of a text, and of a path name by name, as `.gitignore` has them. Both take time in the product of pattern
//! and text at the most.

/// One thing that a pattern asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// This character.
    Char(char),
    /// Any characters, none too.
    Star,
    /// Any one character.
    One,
    /// One character of these ranges, or of none of them.
    Class { ranges: Vec<(char, char)>, is_negated: bool },
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Star | Self::One => true,
            Self::Class { ranges, is_negated } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *is_negated
            }
        }
    }
}

/// A pattern of a text: `*` is any characters, `\*` a star, `\\` a backslash; anything else is itself.
pub(crate) fn text_tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut characters = pattern.chars().peekable();
    while let Some(c) = characters.next() {
        tokens.push(match (c, characters.peek()) {
            ('*', _) => Token::Star,
            ('\\', Some(&next @ ('*' | '\\'))) => {
                characters.next();
                Token::Char(next)
            }
            (c, _) => Token::Char(c),
        });
    }
    tokens
}

/// The pattern of [`text_tokens`] that this text alone fits.
pub(crate) fn text_escaped(text: &str) -> String {
    escaped(text, &['*', '\\'])
}

/// A pattern of one name of a path: `*`, `?`, `[a-z]`, `[!a-z]`, and `\` before what is itself. An error is what is
/// wrong, and the character that it begins at.
pub(crate) fn name_tokens(pattern: &[char]) -> Result<Vec<Token>, (usize, &'static str)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < pattern.len() {
        let began = at;
        let c = pattern[at];
        at += 1;
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::One,
            '\\' => {
                let next = pattern.get(at).ok_or((began, "nothing stands behind the backslash"))?;
                at += 1;
                Token::Char(*next)
            }
            '[' => {
                let end = closing_bracket(pattern, at)
                    .ok_or((began, "the bracket is not closed; `\\[` is a bracket itself"))?;
                let inner = &pattern[at..end];
                at = end + 1;
                class(inner)
            }
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

/// Where a class that begins at `from` is closed; a bracket that stands first in it is one of its characters.
fn closing_bracket(pattern: &[char], from: usize) -> Option<usize> {
    let first = from + usize::from(matches!(pattern.get(from), Some('!' | '^')));
    (first + 1..pattern.len()).find(|at| pattern[*at] == ']')
}

fn class(inner: &[char]) -> Token {
    let is_negated = matches!(inner.first(), Some('!' | '^'));
    let inner = &inner[usize::from(is_negated)..];
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < inner.len() {
        match inner[at..] {
            [low, '-', high, ..] => {
                ranges.push((low, high));
                at += 3;
            }
            _ => {
                ranges.push((inner[at], inner[at]));
                at += 1;
            }
        }
    }
    Token::Class { ranges, is_negated }
}

/// The pattern of [`name_tokens`] that this name alone fits.
pub(crate) fn name_escaped(name: &str) -> String {
    escaped(name, &['*', '?', '[', ']', '\\'])
}

fn escaped(text: &str, special: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if special.contains(&c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Whether the whole text fits.
pub(crate) fn text_fits(tokens: &[Token], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    sequence_fits(tokens, &text, |token| *token == Token::Star, |token, c| token.takes(*c))
}

/// Whether the whole text may fit, where in it `any` stands for any characters, and `any_in_word` for any but a space.
pub(crate) fn text_may_fit(tokens: &[Token], text: &str, any: char, any_in_word: char) -> bool {
    if !text.contains([any, any_in_word]) {
        return text_fits(tokens, text);
    }
    let takes_any_number = |token: &Token| *token == Token::Star;
    // How many tokens may have been used up so far. A star may be used up without a character.
    let pass_stars = |reached: &mut [bool]| {
        for (at, token) in tokens.iter().enumerate() {
            reached[at + 1] |= reached[at] && takes_any_number(token);
        }
    };
    let mut reached = vec![false; tokens.len() + 1];
    reached[0] = true;
    pass_stars(&mut reached);
    for c in text.chars() {
        if tokens.last().is_some_and(takes_any_number) && reached[tokens.len()] {
            return true;
        }
        if c == any || c == any_in_word {
            for (at, token) in tokens.iter().enumerate() {
                reached[at + 1] |= reached[at] && (c == any || *token != Token::Char(' '));
            }
        } else {
            for at in (0..=tokens.len()).rev() {
                let stays = tokens.get(at).is_some_and(|token| reached[at] && takes_any_number(token));
                reached[at] = stays || (at > 0 && reached[at - 1] && tokens[at - 1].takes(c));
            }
        }
        pass_stars(&mut reached);
        if !reached.contains(&true) {
            return false;
        }
    }
    reached[tokens.len()]
}

/// One name of a path's pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// `**`: any names, none too.
    Any,
    /// One name.
    Name(Vec<Token>),
}

/// Whether the whole path fits, name by name.
pub(crate) fn path_fits(segments: &[Segment], names: &[String]) -> bool {
    sequence_fits(
        segments,
        names,
        |segment| *segment == Segment::Any,
        |segment, name| match segment {
            Segment::Any => true,
            Segment::Name(tokens) => text_fits(tokens, name),
        },
    )
}

/// Whether the items fit the pattern, one by one, where some parts of the pattern take any number of items. Of several
/// such parts only the last one met has to be tried with more: what the ones before took does not matter.
fn sequence_fits<P, I>(
    pattern: &[P],
    items: &[I],
    takes_any_number: impl Fn(&P) -> bool,
    takes: impl Fn(&P, &I) -> bool,
) -> bool {
    let (mut in_pattern, mut in_items) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    while in_items < items.len() {
        if in_pattern < pattern.len() && takes_any_number(&pattern[in_pattern]) {
            last = Some((in_pattern + 1, in_items));
            in_pattern += 1;
        } else if in_pattern < pattern.len() && takes(&pattern[in_pattern], &items[in_items]) {
            in_pattern += 1;
            in_items += 1;
        } else if let Some((behind, taken)) = last {
            last = Some((behind, taken + 1));
            (in_pattern, in_items) = (behind, taken + 1);
        } else {
            return false;
        }
    }
    pattern[in_pattern..].iter().all(takes_any_number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;

    fn name_fits(pattern: &str, name: &str) -> bool {
        text_fits(&name_tokens(&pattern.chars().collect::<Vec<_>>()).unwrap(), name)
    }

    #[test]
    fn a_star_takes_any_characters_and_the_last_one_gives_back() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*b*c", "a--b--b--c", true),
            ("a*b*c", "a--b--b--", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            (r"a\\*", r"a\xyz", true),
            (r"a\.b", r"a\.b", true),
            ("a?", "a?", true),
            ("a?", "ab", false),
        ] {
            assert_eq!(text_fits(&text_tokens(pattern), text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_name_knows_one_character_and_classes() {
        for (pattern, name, fits) in [
            ("?.rs", "a.rs", true),
            ("?.rs", ".rs", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]]", "]", true),
            (r"\[a]", "[a]", true),
            ("[a-]", "-", true),
        ] {
            assert_eq!(name_fits(pattern, name), fits, "{pattern} {name}");
        }
        assert!(name_tokens(&['a', '[']).is_err());
        assert!(name_tokens(&['\\']).is_err());
    }

    #[test]
    fn a_text_that_stands_for_several_may_fit_where_one_of_them_does() {
        for (pattern, text, fits) in [
            ("git push *", "git p!sh x", true),
            ("git push *", "git p-sh x", true),
            ("git push *", "git-", false),
            ("git push *", "git!", true),
            ("git push", "git push-", true),
            ("git push", "-push", false),
            ("git push", "!push", true),
            ("git push", "git pull!", false),
            ("*", "!", true),
            ("a*c", "-c", true),
            ("", "!", true),
        ] {
            assert_eq!(text_may_fit(&text_tokens(pattern), text, '!', '-'), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_time_beyond_the_product() {
        let pattern = text_tokens(&"*a".repeat(500));
        assert!(!text_fits(&pattern, &"a".repeat(499)));
        assert!(!text_fits(&pattern, &format!("{}b", "a".repeat(20_000))));
    }
}
