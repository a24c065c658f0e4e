//! Patterns of tool calls, as Claude Code's users write them: read, checked, and laid against a part of a call.
//!
//! | pattern | calls |
//! | --- | --- |
//! | `*` | any |
//! | `Bash`, `Edit`, `Read`, any tool's name | all of that tool; `Edit` is all tools that write files, `Read` all that read them |
//! | `Bash(npm run build)`, `Bash(git push:*)`, `Bash(git * main)` | that command; that beginning, up to the end of a word; with wildcards |
//! | `Edit(src/**)`, `Read(~/.zshrc)`, `Read(//etc/**)` | of those files |
//! | `WebFetch(domain:example.com)`, `WebFetch(https://example.com/a)` | of that host, of that address |
//! | `Agent(Explore)`, `Task(Explore)` | of that type of subagent |
//! | `mcp__server`, `mcp__server__*`, `mcp__server__tool` | of that server; of that tool |

use std::fmt;

use crate::glob::{Token, text_fits, text_may_fit, text_tokens};
use crate::path_pattern::{PathPattern, Places};
use crate::shell::{ANY, ANY_IN_WORD};
use crate::tool_call::{CallParts, Part};

/// Tools that `Edit` stands for.
pub(crate) const EDITING: [&str; 5] = ["Edit", "Write", "MultiEdit", "NotebookEdit", "apply_patch"];
/// Tools that `Read` stands for.
pub(crate) const READING: [&str; 5] = ["Read", "Grep", "Glob", "LS", "NotebookRead"];
const AGENTS: [&str; 2] = ["Agent", "Task"];

/// What patterns look like, for whoever wrote one that does not.
const ACCEPTED: &str = "accepted are `*`, a tool's name such as `Bash`, `Bash(npm run build)`, `Bash(git push:*)`, `Bash(git * main)`, \
     `Edit(src/**)`, `Read(~/.zshrc)`, `Read(//etc/**)`, `WebFetch(domain:example.com)`, `Agent(Explore)`, `mcp__server`, \
     `mcp__server__*` and `mcp__server__tool`";

/// A text that is no pattern of tool calls.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pattern `{pattern}`, character {place}: {problem}; {accepted}")]
pub struct PatternError {
    /// The text.
    pub pattern: String,
    /// The character that is wrong, counted from 1.
    pub place: usize,
    /// What is wrong with it.
    pub problem: String,
    /// What is accepted.
    pub accepted: &'static str,
}

/// Which calls a rule, or a decision that holds for more than one, is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolPattern {
    text: String,
    tool: Tool,
    specifier: Specifier,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tool {
    Any,
    Named(String),
    /// Names of MCP tools, with wildcards.
    Mcp(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Specifier {
    Any,
    Command(Vec<Token>),
    File(PathPattern),
    Host(Vec<Token>),
    Address(Vec<Token>),
    AgentType(Vec<Token>),
}

/// Which way a doubt is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// What is not surely meant is left out: for what allows.
    Strict,
    /// What may be meant is taken in: for what denies or asks.
    Wide,
}

impl ToolPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] says where it is wrong, and what is accepted.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let before = text.len() - text.trim_start().len();
        let body = text.trim();
        let error = |place: usize, problem: &str| PatternError {
            pattern: text.to_owned(),
            place: text[..before].chars().count() + place + 1,
            problem: problem.to_owned(),
            accepted: ACCEPTED,
        };
        let (name, inner) = match body.split_once('(') {
            None => (body, None),
            Some((name, rest)) => match rest.strip_suffix(')') {
                Some(inner) => (name, Some(inner)),
                None if rest.contains(')') => {
                    let place = body.chars().count() - rest.chars().rev().take_while(|c| *c != ')').count();
                    return Err(error(place, "nothing may stand behind the closing parenthesis"));
                }
                None => return Err(error(name.chars().count(), "the parenthesis is not closed")),
            },
        };
        let tool = tool(name).map_err(|(place, problem)| error(place, problem))?;
        let inner_from = name.chars().count() + 1;
        let specifier = match inner {
            None => Specifier::Any,
            Some(inner) => specifier(name, inner).map_err(|(place, problem)| error(inner_from + place, problem))?,
        };
        Ok(Self { text: body.to_owned(), tool, specifier })
    }

    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn fits_tool(&self, tool_name: &str) -> bool {
        match &self.tool {
            Tool::Any => true,
            Tool::Mcp(tokens) => text_fits(tokens, tool_name),
            Tool::Named(name) => {
                let of_group = |group: &[&str]| group.contains(&tool_name);
                match name.as_str() {
                    "Edit" => of_group(&EDITING),
                    "Read" => of_group(&READING),
                    "Agent" | "Task" => of_group(&AGENTS),
                    name => name == tool_name,
                }
            }
        }
    }

    /// Whether it is on one part of a call.
    pub(crate) fn fits_part(&self, call: &CallParts<'_>, part: &Part, side: Side) -> bool {
        if !self.fits_tool(call.tool_name) {
            return false;
        }
        match (&self.specifier, part) {
            (Specifier::Any, _) => true,
            (Specifier::Command(tokens), part) => self.fits_command(tokens, call, part, side),
            (Specifier::File(pattern), Part::File { names, is_folder }) => {
                file_fits(pattern, names, *is_folder, call.places, side)
            }
            (Specifier::Host(tokens), Part::Address(address)) => {
                let fits = |host: String| text_fits(tokens, &host);
                match side {
                    Side::Strict => host(address).is_some_and(fits),
                    Side::Wide => hosts(address).into_iter().any(fits),
                }
            }
            (Specifier::Address(tokens), Part::Address(address)) => text_fits(tokens, address),
            (Specifier::AgentType(tokens), Part::AgentType(name)) => text_fits(tokens, name),
            _ => false,
        }
    }

    fn fits_command(&self, tokens: &[Token], call: &CallParts<'_>, part: &Part, side: Side) -> bool {
        // The very command, whatever is in it, is meant by whoever wrote it down whole; and wildcards across several
        // commands are laid against all of it, but never to allow it.
        let is_literal = !tokens.contains(&Token::Star);
        let is_across = tokens.iter().any(|token| matches!(token, Token::Char(c) if "|&;<>()$`\n".contains(*c)));
        let is_of_whole = is_literal || (is_across && side == Side::Wide);
        let fits = |text: &str| command_fits(tokens, text, side);
        if is_of_whole && call.command.is_some_and(fits) {
            return true;
        }
        match (part, side) {
            (Part::Command(command), Side::Strict) => fits(&command.text),
            (Part::Command(command), Side::Wide) => {
                command.readings().is_none_or(|readings| readings.iter().any(|reading| fits(reading)))
            }
            (Part::Unread, Side::Wide) => true,
            _ => false,
        }
    }
}

impl fmt::Display for ToolPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

type Fault = (usize, &'static str);

fn tool(name: &str) -> Result<Tool, Fault> {
    let is_part_of_name = |c: char| c.is_alphanumeric() || "_-.:/@".contains(c);
    match name {
        "" => Err((0, "a tool's name is missing")),
        "*" => Ok(Tool::Any),
        name if name.starts_with("mcp__") => {
            if let Some(place) = name.chars().position(|c| !is_part_of_name(c) && c != '*') {
                return Err((place, "this cannot stand in the name of a tool"));
            }
            let server = &name["mcp__".len()..];
            if server.is_empty() {
                return Err((name.len(), "the server's name is missing"));
            }
            let mut tokens = text_tokens(name);
            if !server.contains("__") && !server.contains('*') {
                // A server alone is all its tools.
                tokens.extend(text_tokens("__*"));
            }
            Ok(Tool::Mcp(tokens))
        }
        name => match name.chars().position(|c| !is_part_of_name(c)) {
            Some(place) if name.chars().nth(place) == Some('*') => {
                Err((place, "only `*` alone, and names of MCP tools, have wildcards outside parentheses"))
            }
            Some(place) => Err((place, "this cannot stand in the name of a tool")),
            None => Ok(Tool::Named(name.to_owned())),
        },
    }
}

fn specifier(tool: &str, inner: &str) -> Result<Specifier, Fault> {
    if inner.is_empty() {
        return Err((0, "nothing stands between the parentheses; leave them out for all calls of the tool"));
    }
    if inner == "*" || inner == ":*" {
        return Ok(Specifier::Any);
    }
    match tool {
        "Bash" => {
            let tokens = match inner.strip_suffix(":*") {
                Some(beginning) => text_tokens(&format!("{beginning} *")),
                None => text_tokens(inner),
            };
            Ok(Specifier::Command(tokens))
        }
        "WebFetch" => match inner.strip_prefix("domain:") {
            Some("") => Err((inner.len(), "the domain is missing")),
            Some(domain) => Ok(Specifier::Host(text_tokens(&domain.to_ascii_lowercase()))),
            None if inner.contains("://") => Ok(Specifier::Address(text_tokens(inner))),
            None => Err((0, "an address, or `domain:` and a domain, is expected")),
        },
        "Agent" | "Task" => Ok(Specifier::AgentType(text_tokens(inner))),
        tool if EDITING.contains(&tool) || READING.contains(&tool) => PathPattern::of_rule(inner).map(Specifier::File),
        _ => Err((0, "of this tool calls cannot be told apart; leave the parentheses out")),
    }
}

/// Whether a command fits; a pattern that ends in ` *` is on what stands before that alone, too.
fn command_fits(tokens: &[Token], command: &str, side: Side) -> bool {
    let fits = |tokens: &[Token]| match side {
        Side::Strict => text_fits(tokens, command),
        Side::Wide => text_may_fit(tokens, command, ANY, ANY_IN_WORD),
    };
    let beginning = match tokens {
        [beginning @ .., Token::Char(' '), Token::Star] => Some(beginning),
        _ => None,
    };
    fits(tokens) || beginning.is_some_and(fits)
}

/// Whether a file fits; a folder that is searched does where everything in it would.
fn file_fits(pattern: &PathPattern, names: &[String], is_folder: bool, places: Places<'_>, side: Side) -> bool {
    if pattern.fits(names, places, side) {
        return true;
    }
    // No file has this name, so only what any file in the folder fits does.
    is_folder && pattern.fits(&[names, &["\0".to_owned()]].concat(), places, side)
}

/// The host of an address, in small letters. Readers of odd addresses differ, so an odd one has none.
fn host(address: &str) -> Option<String> {
    let (scheme, behind) = address.split_once("://")?;
    let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let is_odd = |c: char| c == '\\' || c.is_whitespace() || c.is_control();
    if !is_web || behind.contains(is_odd) {
        return None;
    }
    let authority = behind.split(['/', '?', '#']).next().unwrap_or(behind);
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let is_plain = host.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)) && !host.ends_with('.');
    let is_port = port.chars().all(|c| c.is_ascii_digit());
    (is_plain && is_port && !host.is_empty()).then(|| host.to_ascii_lowercase())
}

/// The hosts that one reader or another may find in an address, in small letters.
fn hosts(address: &str) -> Vec<String> {
    let shown: String = address.trim().chars().filter(|c| !c.is_control()).map(narrow).collect();
    let decoded: String = percent_decoded(&shown).chars().filter(|c| !c.is_control()).map(narrow).collect();
    let mut hosts = Vec::new();
    for text in [shown.as_str(), decoded.as_str()] {
        let behind_scheme = text.split_once(':').map(|(_, behind)| behind);
        for behind in behind_scheme.into_iter().chain([text]) {
            let behind = behind.trim_start_matches(['/', '\\']);
            for ends in [&['/', '?', '#', '\\'][..], &['/', '?', '#'][..]] {
                let authority = behind.split(ends).next().unwrap_or(behind);
                let host = authority.rsplit('@').next().unwrap_or(authority);
                let host = match host.split_once(']') {
                    Some((host, _)) => format!("{host}]"),
                    None => host.split(':').next().unwrap_or(host).to_owned(),
                };
                hosts.push(percent_decoded(&host).trim_matches(['.', ' ']).to_lowercase());
            }
        }
    }
    hosts
}

/// The letter that a wide one, or a full stop of another script, stands for in a host.
fn narrow(c: char) -> char {
    match c {
        '\u{3002}' | '\u{ff61}' => '.',
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xff01 + 0x21).unwrap_or(c),
        c => c,
    }
}

fn percent_decoded(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let code = match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        decoded.push(code.unwrap_or(*byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
