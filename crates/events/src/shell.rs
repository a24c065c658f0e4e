//! The simple commands in a shell's command line, as far as a permission has to know them.
//!
//! It reads on the safe side (`shell_lexer.rs`). What it cannot be sure of (a here-document, a redirection to a file, quotes that are not
//! closed, …) makes the line one that is not plain: no pattern of single commands allows it. What is denied is looked for
//! in more than one reading of each command.

use crate::shell_lexer::lex;

/// Command lines inside command lines that are looked into, at the most.
pub(crate) const DEPTH_MAX: usize = 8;
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
    pub(crate) words: Vec<String>,
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
        lex(text, 0)
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
