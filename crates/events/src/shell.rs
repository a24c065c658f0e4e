//! The simple commands in a shell's command line, as far as a permission has to know them.
//!
//! It reads on the safe side. What it cannot be sure of (a here-document, a redirection to a file, quotes that are not
//! closed, …) makes the line one that is not plain: no pattern of single commands allows it. What is denied is looked for
//! in more than one reading of each command.

/// Command lines inside command lines that are looked into, at the most.
const DEPTH_MAX: usize = 8;
/// Words before a command that say nothing of what it does; options and numbers behind them belong to them.
const WRAPPERS: [&str; 22] = [
    "!", "{", "if", "then", "else", "elif", "while", "until", "do", "time", "sudo", "doas", "env", "command",
    "builtin", "exec", "nohup", "nice", "stdbuf", "setsid", "timeout", "xargs",
];
const SHELLS: [&str; 6] = ["sh", "bash", "zsh", "dash", "ksh", "ash"];

/// One simple command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SimpleCommand {
    /// As it is written, with one space between its words and without redirections.
    pub(crate) text: String,
    /// Its words, without quotes.
    words: Vec<String>,
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// Its simple commands, those in substitutions too.
    pub(crate) commands: Vec<SimpleCommand>,
    /// Whether they are all that it does.
    pub(crate) is_plain: bool,
}

impl CommandLine {
    pub(crate) fn parse(text: &str) -> Self {
        Self::parse_at(text, 0)
    }

    fn parse_at(text: &str, depth: usize) -> Self {
        let mut lexer = Lexer::new(text, depth);
        lexer.run();
        lexer.line
    }
}

impl SimpleCommand {
    /// What a pattern that denies is laid against: the command as it is written, without its quotes, without what stands
    /// before it, by the program's name alone, and what it has a shell do.
    pub(crate) fn readings(&self) -> Vec<String> {
        let mut readings = vec![self.text.clone()];
        self.read_deeper(&mut readings, 0);
        readings
    }

    fn read_deeper(&self, readings: &mut Vec<String>, depth: usize) {
        let mut words = self.words.as_slice();
        let (mut is_wrapped, mut is_behind_option) = (false, false);
        loop {
            push_words(readings, words);
            let Some((first, rest)) = words.split_first() else {
                return;
            };
            let name = first.rsplit('/').next().unwrap_or(first);
            let belongs_to_wrapper = is_wrapped && (first.starts_with('-') || is_quantity(first));
            if WRAPPERS.contains(&name) || is_assignment(first) || belongs_to_wrapper {
                is_wrapped = true;
                is_behind_option = first.starts_with('-');
                words = rest;
                continue;
            }
            if is_behind_option {
                // It may be what the option is given, and the command what follows.
                push_words(readings, rest);
            }
            if name != first.as_str() {
                push_words(readings, &[&[name.to_owned()], rest].concat());
            }
            let script = if SHELLS.contains(&name) {
                let option = rest.iter().position(|word| word.starts_with('-') && word.ends_with('c'));
                option.and_then(|at| rest.get(at + 1)).cloned()
            } else if name == "eval" {
                Some(rest.join(" "))
            } else {
                None
            };
            if let Some(script) = script.filter(|_| depth < DEPTH_MAX) {
                for command in CommandLine::parse(&script).commands {
                    readings.push(command.text.clone());
                    command.read_deeper(readings, depth + 1);
                }
            }
            return;
        }
    }
}

fn push_words(readings: &mut Vec<String>, words: &[String]) {
    let reading = words.join(" ");
    if !reading.is_empty() && !readings.contains(&reading) {
        readings.push(reading);
    }
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name.trim_end_matches('+'));
    name.is_some_and(|name| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// A number, or a length of time as `timeout` takes it.
fn is_quantity(word: &str) -> bool {
    let number = word.trim_end_matches(['s', 'm', 'h', 'd']);
    !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.')
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
        let line = CommandLine::parse_at(inner, self.depth + 1);
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
            ("cat <<EOF\nrm x\nEOF", vec!["cat", "EOF", "rm x", "EOF"], false),
            ("cat <<< x", vec!["cat <<< x"], true),
            ("echo 'open", vec!["echo 'open"], false),
            ("echo \"open", vec!["echo \"open"], false),
            ("echo $'a\\'; rm x'", vec!["echo $'a\\'", "rm x'"], false),
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
            let readings: Vec<String> =
                CommandLine::parse(line).commands.iter().flat_map(SimpleCommand::readings).collect();
            assert!(readings.iter().any(|found| found == reading), "{line}: {readings:?}");
        }
    }

    #[test]
    fn a_deep_line_costs_no_stack_and_is_not_plain() {
        let deep = format!("{}x{}", "$(".repeat(2000), ")".repeat(2000));
        assert!(!CommandLine::parse(&deep).is_plain);
    }
}
