//! Reading a shell's command line, character by character, into its simple commands.
//!
//! Where shells may read it in another way, or it does more than its commands tell, the line is not plain; where they may,
//! it is not sure either.

use crate::shell::{ANY, ANY_IN_WORD, COMMANDS_MAX, CommandLine, DEPTH_MAX, SimpleCommand, is_of_name};

/// Reads a command line that stands so deep in others.
pub(crate) fn lex(text: &str, depth: usize) -> CommandLine {
    let characters: Vec<char> = text.chars().collect();
    let mut lexer = Lexer::new(&characters, 0, depth);
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

struct Lexer<'a> {
    characters: &'a [char],
    at: usize,
    depth: usize,
    /// Whether it reads a substitution: it ends at its own closing parenthesis.
    is_substitution: bool,
    is_closed: bool,
    /// Parentheses that are open.
    groups: usize,
    text: String,
    words: Vec<String>,
    word: Option<String>,
    /// Whether the rest of the word may be anything.
    is_rest_any: bool,
    is_quoted: bool,
    /// How many words stand before `&>`: to some shells those behind its target are another command.
    before_both: Option<usize>,
    redirection: Option<Redirection>,
    line: CommandLine,
}

impl<'a> Lexer<'a> {
    fn new(characters: &'a [char], at: usize, depth: usize) -> Self {
        let line =
            CommandLine { commands: Vec::new(), guesses: Vec::new(), is_plain: true, is_unread: false, is_sure: true };
        Self {
            characters,
            at,
            depth,
            is_substitution: false,
            is_closed: false,
            groups: 0,
            text: String::new(),
            words: Vec::new(),
            word: None,
            is_rest_any: false,
            is_quoted: false,
            before_both: None,
            redirection: None,
            line,
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.characters.get(self.at + ahead).copied()
    }

    /// Shells may read this in another way.
    fn doubt(&mut self) {
        self.line.is_plain = false;
        self.line.is_sure = false;
    }

    fn run(&mut self) {
        if self.depth > DEPTH_MAX {
            self.doubt();
            self.line.is_unread = true;
            self.at = self.characters.len();
            return;
        }
        while let Some(c) = self.peek(0) {
            match c {
                ' ' | '\t' => {
                    self.at += 1;
                    self.end_word();
                }
                ')' if self.is_substitution && self.groups == 0 => {
                    self.at += 1;
                    self.is_closed = true;
                    break;
                }
                '(' | ')' => {
                    self.at += 1;
                    self.end_command();
                    self.groups = if c == '(' { self.groups + 1 } else { self.groups.saturating_sub(1) };
                    if c == '(' && self.peek(0) == Some('(') {
                        // It may be sums, which have comments and redirections of no kind.
                        self.doubt();
                    }
                }
                '\n' | ';' | '|' => {
                    self.at += 1;
                    self.end_command();
                }
                '&' if self.peek(1) == Some('>') => {
                    self.at += 1;
                    self.redirect();
                    self.before_both = Some(self.words.len());
                }
                '&' => {
                    self.at += 1;
                    self.end_command();
                }
                '<' | '>' if self.peek(1) == Some('(') => self.substitution(),
                '<' | '>' => self.redirect(),
                '#' if self.word.is_none() => {
                    if self.is_substitution {
                        // Old shells find the closing parenthesis in it.
                        self.doubt();
                    }
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
                '*' | '?' => self.push(1, Some(ANY)),
                '[' if !self.is_test() => self.push_rest_any(1),
                '{' if self.word.is_some() || self.peek(1).is_some_and(|c| !c.is_whitespace()) => self.push_rest_any(1),
                c => self.expansion_or(c, false),
            }
        }
        self.end_command();
        if self.is_substitution && !self.is_closed {
            self.doubt();
        }
    }

    /// Takes so many characters into the text, and this one into the word.
    fn push(&mut self, count: usize, into_word: Option<char>) {
        let end = (self.at + count).min(self.characters.len());
        self.text.extend(&self.characters[self.at..end]);
        self.at = end;
        let is_rest_any = self.is_rest_any;
        self.word.get_or_insert_default().extend(into_word.filter(|_| !is_rest_any));
    }

    fn push_rest_any(&mut self, count: usize) {
        self.push(count, Some(ANY));
        self.is_rest_any = true;
    }

    /// `[` or `[[` as a word of its own.
    fn is_test(&self) -> bool {
        let is_end = |c: Option<char>| c.is_none_or(char::is_whitespace);
        self.word.as_deref().is_none_or(|word| word == "[") && is_end(self.peek(1))
            || self.word.is_none() && self.peek(1) == Some('[') && is_end(self.peek(2))
    }

    fn single_quoted(&mut self) {
        self.is_quoted = true;
        self.push(1, None);
        while let Some(c) = self.peek(0) {
            if c == '\'' {
                return self.push(1, None);
            }
            self.push(1, Some(c));
        }
        self.doubt();
    }

    /// `$'…'`: to some shells quotes with escapes in them, to others a dollar and quotes.
    fn escape_quoted(&mut self) {
        self.doubt();
        self.is_quoted = true;
        self.push(2, None);
        while let Some(c) = self.peek(0) {
            match c {
                '\'' => return self.push(1, None),
                '\\' => {
                    self.push(2, Some(ANY));
                    // How far an escape reaches is not looked at.
                    self.is_rest_any = true;
                }
                c => self.push(1, Some(c)),
            }
        }
    }

    fn double_quoted(&mut self) {
        self.is_quoted = true;
        self.push(1, None);
        while let Some(c) = self.peek(0) {
            match c {
                '"' => return self.push(1, None),
                '\\' => {
                    let next = self.peek(1).filter(|next| *next != '\n');
                    self.push(2, next);
                }
                c => self.expansion_or(c, true),
            }
        }
        self.doubt();
    }

    /// A `$…` or a backtick, or the character itself.
    fn expansion_or(&mut self, c: char, is_in_quotes: bool) {
        match (c, self.peek(1)) {
            ('$', Some('(')) => {
                if self.peek(2) == Some('(') {
                    self.doubt();
                }
                self.substitution();
            }
            ('$', Some('\'')) if !is_in_quotes => self.escape_quoted(),
            // Shells differ in whether the dollar is a part of it.
            ('$', Some('"')) if !is_in_quotes => {
                self.line.is_plain = false;
                self.push(1, None);
            }
            ('$', Some('\'' | '"')) => {
                self.line.is_plain = false;
                self.push(1, Some('$'));
            }
            ('$', Some('{')) => self.parameter(),
            ('$', Some('[')) => {
                self.doubt();
                self.push_rest_any(2);
            }
            ('$', Some(next)) if next.is_ascii_alphabetic() || next == '_' => {
                let name = self.characters[self.at + 1..].iter().take_while(|c| is_of_name(**c)).count();
                self.push(1 + name, Some(ANY));
            }
            ('$', Some(next)) if next.is_ascii_digit() || "@*#?-!$".contains(next) => {
                self.push(2, Some(ANY));
                if self.peek(0) == Some('(') {
                    self.doubt();
                }
            }
            ('`', _) => self.backticks(is_in_quotes),
            (c, _) => self.push(1, Some(c)),
        }
    }

    /// `${…}`: quotes and expansions in it nest by rules of their own, and to some shells a space begins commands.
    fn parameter(&mut self) {
        let inner = &self.characters[self.at + 2..];
        let is_simple = |c: char| !c.is_whitespace() && !"'\"\\`$({;|&<>}".contains(c);
        let count = inner.iter().take_while(|c| is_simple(**c)).count();
        let begins_well = inner.first().is_some_and(|c| is_of_name(*c) || "@*#?-!".contains(*c));
        if inner.get(count) == Some(&'}') && begins_well {
            self.push(count + 3, Some(ANY));
        } else {
            self.doubt();
            self.push_rest_any(1);
        }
    }

    /// `$(…)`, `<(…)` or `>(…)`: its commands are commands of this line.
    fn substitution(&mut self) {
        let mut inner = Lexer::new(self.characters, self.at + 2, self.depth + 1);
        inner.is_substitution = true;
        inner.run();
        let count = inner.at - self.at;
        self.line.take_in(inner.line);
        self.push(count, Some(ANY));
    }

    fn backticks(&mut self, is_in_quotes: bool) {
        let mut inner = String::new();
        let mut end = self.at + 1;
        loop {
            match self.characters.get(end) {
                Some('`') => break,
                Some('\\') => {
                    // Shells differ in what it is taken from.
                    self.doubt();
                    end += 1;
                    match self.characters.get(end) {
                        Some(c @ ('`' | '\\' | '$')) => inner.push(*c),
                        Some('"') if is_in_quotes => inner.push('"'),
                        Some(c) => inner.extend(['\\', *c]),
                        None => {}
                    }
                }
                Some(c) => inner.push(*c),
                None => {
                    self.doubt();
                    break;
                }
            }
            end += 1;
        }
        self.line.take_in(lex(&inner, self.depth + 1));
        self.push(end + 1 - self.at, Some(ANY));
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
        self.doubt();
        let rest: String = self.characters[self.at..].iter().collect();
        self.at = self.characters.len();
        // The rest of its own line goes on with the command.
        let (line, lines) = rest.split_once('\n').unwrap_or((&rest, ""));
        let line = line.trim_start_matches(['-', ' ', '\t']);
        let behind = line.find(|c: char| c.is_whitespace() || ";&|()<>".contains(c)).map_or("", |at| &line[at..]);
        let text = format!("{} {behind}", std::mem::take(&mut self.text));
        self.words.clear();
        self.redirection = None;
        self.line.take_in(lex(&text, self.depth + 1));
        for line in lines.lines() {
            let mut inner = lex(line, self.depth + 1);
            for command in &mut inner.commands {
                command.is_guess = true;
            }
            self.line.take_in(inner);
        }
    }

    fn end_word(&mut self) {
        let is_quoted = std::mem::take(&mut self.is_quoted);
        self.is_rest_any = false;
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
                // Alone and without quotes it may come to several words.
                let is_any = !is_quoted && !word.is_empty() && word.chars().all(|c| c == ANY);
                let word = if is_any { ANY.to_string() } else { word.replace(ANY, &ANY_IN_WORD.to_string()) };
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
        if self.is_substitution && words.iter().any(|word| word == "case") {
            // Its patterns have closing parentheses of their own.
            self.doubt();
        }
        let behind_both = self.before_both.take().and_then(|before| words.get(before..)).unwrap_or_default();
        if !behind_both.is_empty() {
            self.line.is_plain = false;
            self.take_command(behind_both.join(" "), behind_both.to_vec());
        }
        if !words.is_empty() {
            self.take_command(text.trim_end().to_owned(), words);
        }
    }

    fn take_command(&mut self, text: String, words: Vec<String>) {
        if self.line.commands.len() < COMMANDS_MAX {
            self.line.commands.push(SimpleCommand { text, words, is_guess: false });
        } else {
            self.line.is_unread = true;
            self.line.is_plain = false;
        }
    }
}
