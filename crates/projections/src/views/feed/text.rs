//! Text as the reference measures it: lengths in UTF-16 units, white space as JavaScript trims it; no cut splits a character.

/// The text's length in UTF-16 units.
pub(super) fn utf16_len(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// The beginning of the text: as many whole characters as fit into `units` UTF-16 units.
pub(super) fn head(text: &str, units: usize) -> &str {
    let mut left = units;
    for (at, character) in text.char_indices() {
        match left.checked_sub(character.len_utf16()) {
            Some(rest) => left = rest,
            None => return &text[..at],
        }
    }
    text
}

/// The end of the text: as many whole characters as fit into `units` UTF-16 units.
pub(super) fn tail(text: &str, units: usize) -> &str {
    let mut left = units;
    for (at, character) in text.char_indices().rev() {
        match left.checked_sub(character.len_utf16()) {
            Some(rest) => left = rest,
            None => return &text[at + character.len_utf8()..],
        }
    }
    text
}

/// UTF-16 units of a title, at the most.
const TITLE_UNITS_MAX: usize = 80;

/// The text as a title: cut behind 79 units, with an ellipsis, where it is longer than 80.
pub(super) fn title(text: &str) -> String {
    if utf16_len(text) <= TITLE_UNITS_MAX {
        return text.to_owned();
    }
    format!("{}…", head(text, TITLE_UNITS_MAX - 1))
}

/// The beginning of a prompt, as a run shows it.
pub(super) fn preview(prompt: &str) -> &str {
    head(prompt, TITLE_UNITS_MAX)
}

/// White space to JavaScript: NBSP and the byte order mark count, NEL does not.
pub(super) fn is_js_space(character: char) -> bool {
    character == '\u{feff}' || (character.is_whitespace() && character != '\u{85}')
}

/// A message as it is shown and compared: plain line ends, nothing behind the last word.
pub(super) fn message(text: &str) -> String {
    text.replace("\r\n", "\n").trim_end_matches(is_js_space).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_splits_a_character() {
        let smiles = "😀".repeat(60);
        assert_eq!(title(&smiles), format!("{}…", "😀".repeat(39)));
        assert_eq!(head("a😀b", 2), "a");
        assert_eq!(head("a😀b", 3), "a😀");
        assert_eq!(tail("a😀b", 2), "b");
        assert_eq!(tail("a😀b", 3), "😀b");
        assert_eq!((head("ab", 5), tail("ab", 5), tail("ab", 0)), ("ab", "ab", ""));
    }

    #[test]
    fn white_space_is_what_javascript_trims() {
        assert_eq!(message("a\r\nb \u{a0}\u{feff}\n"), "a\nb");
        assert_eq!(message("a\u{85}"), "a\u{85}");
    }
}
