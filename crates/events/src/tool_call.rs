//! A tool call, as far as permissions look at it: its parts, and the pattern that it alone fits.

use crate::glob::text_escaped;
use crate::json::readable;
use crate::json_text::Fields;
use crate::path_pattern::{Places, normal, pattern_of};
use crate::shell::{CommandLine, SimpleCommand};
use crate::tool_pattern::{EDITING, READING, ToolPattern};
use crate::workflow_state::RunState;

/// A call that a harness is about to make, and where its run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The tool.
    pub tool_name: String,
    /// Its input, as JSON text.
    pub tool_input: String,
    /// The working directory.
    pub cwd: String,
    /// The project directory: patterns of files are relative to it.
    pub project_dir: String,
    /// The user's home folder, where it is known.
    pub home: Option<String>,
    /// The subagent that acts; none for the main agent.
    pub agent_id: Option<String>,
    /// That subagent's type.
    pub agent_type: Option<String>,
    /// The state of its workflow run.
    pub state: RunState,
    /// The iteration of its workflow run.
    pub iteration: u32,
}

/// What a call is made of: each part has to be allowed, and one that is denied denies it all.
#[derive(Debug, Clone)]
pub(crate) struct CallParts<'a> {
    pub(crate) tool_name: &'a str,
    pub(crate) places: Places<'a>,
    /// The whole command, of a shell's call.
    pub(crate) command: Option<&'a str>,
    /// At least one.
    pub(crate) parts: Vec<Part>,
}

/// One part of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// A simple command of a shell.
    Command(SimpleCommand),
    /// A file, or a folder that is searched.
    File { names: Vec<String>, is_folder: bool },
    /// An address that is fetched.
    Address(String),
    /// A subagent of this type is started.
    AgentType(String),
    /// What of a command line is too much to be looked at.
    Unread,
    /// Something that is known no further.
    Other,
}

/// What of a call's input its parts are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    Command(String),
    Files { paths: Vec<String>, is_folder: bool, is_whole: bool },
    Address(String),
    AgentType(String),
    Other,
}

impl ToolCall {
    /// The pattern that this call alone fits, as far as patterns tell calls apart: the same command, the same file, the
    /// same address. `None` where they do not.
    pub fn pattern(&self) -> Option<String> {
        let pattern = match self.input() {
            Input::Command(command) => format!("{}({})", self.tool_name, text_escaped(&command)),
            Input::Files { paths, is_folder: false, is_whole: true } if paths.len() == 1 => {
                let tool = if self.tool_name == "apply_patch" { "Edit" } else { &self.tool_name };
                format!("{tool}({})", pattern_of(&normal(&paths[0], self.places())))
            }
            Input::Address(address) => format!("{}({})", self.tool_name, text_escaped(&address)),
            _ => return None,
        };
        // A name or a text that a pattern cannot hold has none.
        let parsed = ToolPattern::parse(&pattern).ok()?;
        parsed.fits_exactly(self).then_some(pattern)
    }

    pub(crate) fn places(&self) -> Places<'_> {
        Places { cwd: &self.cwd, project_dir: &self.project_dir, home: self.home.as_deref() }
    }

    pub(crate) fn input(&self) -> Input {
        let text = readable(&self.tool_input);
        let fields = Fields::parse(&text).unwrap_or_default();
        let one_file = |name: &str| match fields.text(name) {
            Some(path) if !path.is_empty() => Input::Files { paths: vec![path], is_folder: false, is_whole: true },
            _ => Input::Other,
        };
        let of = |name: &str, make: fn(String) -> Input| fields.text(name).map_or(Input::Other, make);
        match self.tool_name.as_str() {
            "Bash" => of("command", Input::Command),
            "apply_patch" => match fields.text("command").or_else(|| fields.text("input")) {
                Some(patch) => patch_files(&patch),
                None => Input::Other,
            },
            "NotebookEdit" | "NotebookRead" => one_file("notebook_path"),
            "Grep" | "Glob" | "LS" => self.searched(&fields),
            name if EDITING.contains(&name) || READING.contains(&name) => one_file("file_path"),
            "WebFetch" => of("url", Input::Address),
            "Agent" | "Task" => of("subagent_type", Input::AgentType),
            _ => Input::Other,
        }
    }

    /// The folder that a search is in: the one that is named, and what stands before the first wildcard of a `Glob`.
    fn searched(&self, fields: &Fields<'_>) -> Input {
        let folder = fields.text("path").unwrap_or_else(|| ".".to_owned());
        let pattern = fields.text("pattern").filter(|_| self.tool_name == "Glob").unwrap_or_default();
        let names: Vec<&str> = pattern.split('/').collect();
        let fixed = names.iter().take_while(|name| !name.contains(['*', '?', '[', '{', '\\'])).count();
        let is_whole = stays_below(&pattern);
        let fixed = names[..fixed.min(names.len().saturating_sub(1))].join("/");
        let path = match pattern.strip_prefix(['/', '~']) {
            Some(_) if fixed.is_empty() => "/".to_owned(),
            Some(_) => fixed,
            None => format!("{folder}/{fixed}"),
        };
        Input::Files { paths: vec![path], is_folder: true, is_whole }
    }

    /// Whether a tool may find a path in a home folder that is not known here.
    fn may_be_in_a_home(&self, path: &str) -> bool {
        path.strip_prefix('~').is_some_and(|rest| self.home.is_none() || !(rest.is_empty() || rest.starts_with('/')))
    }

    pub(crate) fn parts<'a>(&'a self, input: &'a Input) -> CallParts<'a> {
        let (mut parts, mut command) = (Vec::new(), None);
        match input {
            Input::Command(text) => {
                let line = CommandLine::parse(text);
                parts.extend(line.commands.into_iter().chain(line.guesses).map(Part::Command));
                parts.extend((!line.is_plain).then_some(Part::Other));
                parts.extend(line.is_unread.then_some(Part::Unread));
                command = Some(text.as_str());
            }
            Input::Files { paths, is_folder, is_whole } => {
                let file = |path: &String| Part::File { names: normal(path, self.places()), is_folder: *is_folder };
                parts.extend(paths.iter().map(file));
                let is_known = paths.iter().all(|path| !self.may_be_in_a_home(path));
                parts.extend((!is_whole || !is_known).then_some(Part::Other));
            }
            Input::Address(address) => parts.push(Part::Address(address.clone())),
            Input::AgentType(name) => parts.push(Part::AgentType(name.clone())),
            Input::Other => {}
        }
        if parts.is_empty() {
            parts.push(Part::Other);
        }
        CallParts { tool_name: &self.tool_name, places: self.places(), command, parts }
    }
}

/// Whether a `Glob` surely finds nothing outside the folder that its fixed part names: `..`, and alternatives that come to
/// it or begin at the root, may lead anywhere. Readers of escapes and of parentheses differ.
fn stays_below(pattern: &str) -> bool {
    const DOUBTS: [&str; 9] = ["..", "{/", ",/", "{~", ",~", "[.", "(", "|", "\\"];
    if DOUBTS.iter().any(|doubt| pattern.contains(doubt)) {
        return false;
    }
    let mut depth = 0_usize;
    pattern.split('/').all(|name| {
        let (mut has_braces, mut has_dot, mut only_dots_outside) = (depth > 0, false, true);
        for c in name.chars() {
            match c {
                '{' => {
                    depth += 1;
                    has_braces = true;
                }
                '}' => depth = depth.saturating_sub(1),
                c => {
                    has_dot |= c == '.';
                    only_dots_outside &= depth > 0 || c == '.';
                }
            }
        }
        // Alternatives may put two dots together.
        !(has_braces && has_dot && only_dots_outside)
    })
}

/// The files that a patch names.
fn patch_files(patch: &str) -> Input {
    const HEADS: [&str; 4] = ["*** Add File: ", "*** Update File: ", "*** Delete File: ", "*** Move to: "];
    let path_of = |line: &str| {
        let line = line.trim_start();
        HEADS.iter().find_map(|head| line.strip_prefix(head)).map(|path| path.trim().to_owned())
    };
    let mut paths: Vec<String> = patch.lines().filter_map(path_of).collect();
    paths.sort_unstable();
    paths.dedup();
    let is_whole = !paths.is_empty() && paths.iter().all(|path| !path.is_empty());
    Input::Files { paths, is_folder: false, is_whole }
}
