//! Reading a shell's command line character by character, into its simple commands.

use crate::shell::{CommandLine, DEPTH_MAX, SimpleCommand};

/// Reads a command line that stands so deep in others.
pub(crate) fn lex(text: &str, depth: usize) -> CommandLine {
    let mut lexer = Lexer::new(text, depth);
    lexer.run();
    lexer.line
}

/// A redirection whose target has not been read to its end.
#[derive(Debug, Clone, Copy)]
struct Redirection {
    /// Where the target begins in the command's text.
    text_from: usize,
    /// Whether it only names another open file, as in `2>&1`.
    may_copy: bool,
}

struct Lexer {
    characters: Vec<char>,
    at: usize,
    depth: usize,
    text: String,
    words: Vec<String>,
    word: Option<String>,
    redirection: Option<Redirection>,
    line: CommandLine,
}

impl Lexer {
    fn new(text: &str, depth: usize) -> Self {
        Self {
            characters: text.chars().collect(),
            at: 0,
            depth,
            text: String::new(),
            words: Vec::new(),
            word: None,
            redirection: None,
            line: CommandLine { commands: Vec::new(), is_plain: depth <= DEPTH_MAX },
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.characters.get(self.at + ahead).copied()
    }

    fn run(&mut self) {
        if self.depth > DEPTH_MAX {
            return;
        }
        while let Some(c) = self.peek(0) {
            match c {
                ' ' | '\t' => {
                    self.at += 1;
                    self.end_word();
                }
                '\n' | ';' | '|' | '(' | ')' => {
                    self.at += 1;
                    self.end_command();
                }
                '&' if self.peek(1) == Some('>') => {
                    self.at += 1;
                    self.redirect();
                }
                '&' => {
                    self.at += 1;
                    self.end_command();
                }
                '<' | '>' if self.peek(1) == Some('(') => self.substitution(2),
                '<' | '>' => self.redirect(),
                '#' if self.word.is_none() => {
                    while self.peek(0).is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                '\\' => match self.peek(1) {
                    Some('\n') => self.at += 2,
                    Some(next) => {
                        self.push(2, Some(next));
                    }
                    None => {
                        self.line.is_plain = false;
                        self.push(1, None);
                    }
                },
                '\'' => self.single_quoted(),
                '"' => self.double_quoted(),
                c => self.expansion_or(c),
            }
        }
        self.end_command();
    }

    /// Takes so many characters into the text, and this one into the word.
    fn push(&mut self, count: usize, into_word: Option<char>) {
        let end = (self.at + count).min(self.characters.len());
        self.text.extend(&self.characters[self.at..end]);
        self.at = end;
        self.word.get_or_insert_default().extend(into_word);
    }

    fn single_quoted(&mut self) {
        self.push(1, None);
        while let Some(c) = self.peek(0) {
            if c == '\'' {
                return self.push(1, None);
            }
            self.push(1, Some(c));
        }
        self.line.is_plain = false;
    }

    fn double_quoted(&mut self) {
        self.push(1, None);
        while let Some(c) = self.peek(0) {
            match c {
                '"' => return self.push(1, None),
                '\\' => {
                    let next = self.peek(1);
                    self.push(2, next);
                }
                c => self.expansion_or(c),
            }
        }
        self.line.is_plain = false;
    }

    /// A `$…` or a backtick, or the character itself.
    fn expansion_or(&mut self, c: char) {
        match (c, self.peek(1)) {
            ('$', Some('(')) => self.substitution(2),
            // Shells differ in where such a text ends.
            ('$', Some('\'' | '"')) => {
                self.line.is_plain = false;
                self.push(1, Some('$'));
            }
            ('$', Some('{')) => {
                let rest = &self.characters[self.at + 2..];
                let inner: Vec<char> = rest.iter().copied().take_while(|c| *c != '}').collect();
                // Quotes and expansions in it nest by rules of their own.
                self.line.is_plain &= inner.len() < rest.len() && !inner.iter().any(|c| "'\"\\`$({".contains(*c));
                self.push(1, Some('$'));
            }
            ('`', _) => self.backticks(),
            (c, _) => self.push(1, Some(c)),
        }
    }

    /// `$(…)`, `<(…)` or `>(…)`: its commands are commands of this line.
    fn substitution(&mut self, opening: usize) {
        let from = self.at + opening;
        let end = closing_parenthesis(&self.characters, from);
        let inner: String = self.characters[from..end.unwrap_or(self.characters.len())].iter().collect();
        self.line.is_plain &= end.is_some();
        self.take_in(&inner);
        for _ in self.at..end.map_or(self.characters.len(), |end| end + 1) {
            let c = self.peek(0);
            self.push(1, c);
        }
    }

    fn backticks(&mut self) {
        let mut inner = String::new();
        let mut end = self.at + 1;
        loop {
            match self.characters.get(end) {
                Some('`') => break,
                Some('\\') => {
                    end += 1;
                    match self.characters.get(end) {
                        Some(c @ ('`' | '\\' | '$')) => inner.push(*c),
                        Some(c) => inner.extend(['\\', *c]),
                        None => {}
                    }
                }
                Some(c) => inner.push(*c),
                None => {
                    self.line.is_plain = false;
                    break;
                }
            }
            end += 1;
        }
        self.take_in(&inner);
        for _ in self.at..(end + 1).min(self.characters.len()) {
            let c = self.peek(0);
            self.push(1, c);
        }
    }

    fn take_in(&mut self, inner: &str) {
        let line = lex(inner, self.depth + 1);
        self.line.commands.extend(line.commands);
        self.line.is_plain &= line.is_plain;
    }

    /// A redirection: its operator is read, its target is the next word.
    fn redirect(&mut self) {
        // A number right before it names the file that is redirected.
        if self.word.as_deref().is_some_and(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit())) {
            let digits = self.word.take().map_or(0, |word| word.len());
            self.text.truncate(self.text.len().saturating_sub(digits));
        }
        self.end_word();
        let operator: String = self.characters[self.at..].iter().take_while(|c| matches!(c, '<' | '>')).collect();
        self.at += operator.chars().count();
        if operator == "<<<" {
            // Its word is a text that the command gets, and nothing else.
            self.text.push_str("<<< ");
            return;
        }
        if operator.starts_with("<<") {
            self.here_document();
            return;
        }
        let may_copy = self.peek(0) == Some('&');
        if may_copy || self.peek(0) == Some('|') {
            self.at += 1;
        }
        if self.redirection.is_some() {
            self.line.is_plain = false;
        }
        self.redirection = Some(Redirection { text_from: self.text.len(), may_copy });
    }

    /// A here-document: what it feeds may be commands, so each of its lines is taken as some.
    fn here_document(&mut self) {
        self.line.is_plain = false;
        let rest: String = self.characters[self.at..].iter().collect();
        self.at = self.characters.len();
        self.end_command();
        if self.depth < DEPTH_MAX {
            for line in rest.lines() {
                self.take_in(line);
            }
        }
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else {
            return;
        };
        match self.redirection.take() {
            Some(redirection) => {
                self.text.truncate(redirection.text_from);
                let is_copy = redirection.may_copy && (word == "-" || word.chars().all(|c| c.is_ascii_digit()));
                self.line.is_plain &= is_copy || word == "/dev/null";
            }
            None => {
                self.words.push(word);
                self.text.push(' ');
            }
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        if self.redirection.take().is_some() {
            self.line.is_plain = false;
        }
        let text = std::mem::take(&mut self.text);
        let words = std::mem::take(&mut self.words);
        if !words.is_empty() {
            self.line.commands.push(SimpleCommand { text: text.trim_end().to_owned(), words });
        }
    }
}

/// Where the parenthesis that was opened before `from` is closed, quotes and inner ones left out.
fn closing_parenthesis(characters: &[char], from: usize) -> Option<usize> {
    let mut depth = 1_usize;
    let mut quote: Option<char> = None;
    let mut at = from;
    while let Some(&c) = characters.get(at) {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => at += 1,
            (None, '\'' | '"') => quote = Some(c),
            // Inside double quotes only a substitution's own parentheses count.
            (None, '(') => depth += 1,
            (None, ')') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}
