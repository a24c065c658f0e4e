//! A client's hook settings as text: our own entries put in or taken out, everything else left as it is written.
//!
//! `{"hooks": {EVENT: [{"matcher": …, "hooks": [{"type": "command", "command": …, "timeout": seconds}]}]}}`, of Claude
//! Code's `settings.json` and Codex's `hooks.json` alike. The objects and lists on the way to a change are written anew,
//! member by member; what stands in them keeps its very text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::Serialize;
use serde_json::value::RawValue;

/// Settings that are not of the shape that the client takes. They are not touched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("it is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{name} is not {expected}")]
    Shape { name: String, expected: &'static str },
    #[error("{0} stands in it twice")]
    Twice(String),
}

/// One event that is to be observed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observed<'a> {
    pub(crate) event: &'static str,
    /// What the client runs.
    pub(crate) command: &'a str,
    /// How long the client waits for it.
    pub(crate) timeout_s: u32,
    /// Whether a shorter limit that stands there is raised to this one; else it is somebody's choice, and stays.
    pub(crate) raises_limit: bool,
}

/// The members of an object in their order, their values as they are written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl<'a> Members<'a> {
    /// Reads an object; `name` says in an error which one.
    fn parse(json: &'a str, name: &str) -> Result<Self, SettingsError> {
        if !json.trim_start().starts_with('{') {
            return Err(SettingsError::Shape { name: name.to_owned(), expected: "an object" });
        }
        let members: Self = serde_json::from_str(json)?;
        let mut names: Vec<&str> = members.0.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(SettingsError::Twice(format!("`{}`", pair[0]))),
            None => Ok(members),
        }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.get())
    }
}

/// The settings with one entry for each of `observed` that runs its command, and none of ours beside it.
pub(crate) fn with_entries(
    text: &str,
    observed: &[Observed<'_>],
    is_own: &dyn Fn(&str) -> bool,
) -> Result<String, SettingsError> {
    let style = Style::of(text);
    edit(
        text,
        &style,
        is_own,
        |event, groups| {
            let Some(observed) = observed.iter().find(|observed| observed.event == event) else {
                // An entry of ours that another version had put in.
                groups.iter_mut().for_each(|group| group.keep_if(|own| own.is_none()));
                return;
            };
            let mut is_there = false;
            for group in groups.iter_mut() {
                group.keep_if(|own| match own {
                    None => true,
                    Some(own) => own == observed.command && !std::mem::replace(&mut is_there, true),
                });
                if observed.raises_limit {
                    group.raise_limit(&style, observed.timeout_s);
                }
            }
            if !is_there {
                groups.push(Group::new(&style, observed.command, observed.timeout_s));
            }
        },
        observed,
    )
}

/// The settings without any entry of ours.
pub(crate) fn without_entries(text: &str, is_own: &dyn Fn(&str) -> bool) -> Result<String, SettingsError> {
    let style = Style::of(text);
    let take_out = |_: &str, groups: &mut Vec<Group>| {
        groups.iter_mut().for_each(|group| group.keep_if(|own| own.is_none()));
    };
    edit(text, &style, is_own, take_out, &[])
}

/// Goes through the events, those that are there and then `more`, and writes anew what was changed.
fn edit(
    text: &str,
    style: &Style,
    is_own: &dyn Fn(&str) -> bool,
    mut change: impl FnMut(&str, &mut Vec<Group>),
    more: &[Observed<'_>],
) -> Result<String, SettingsError> {
    let body = text.trim_start_matches('\u{feff}').trim();
    let top = Members::parse(if body.is_empty() { "{}" } else { body }, "it")?;
    let hooks = Members::parse(top.get("hooks").unwrap_or("{}"), "`hooks`")?;
    let mut is_changed = false;
    let mut written: Vec<(String, String)> = Vec::new();
    let missing = more.iter().map(|observed| observed.event).filter(|event| hooks.get(event).is_none());
    let events = hooks.0.iter().map(|(event, json)| (event.as_str(), Some(json.get())));
    for (event, json) in events.chain(missing.map(|event| (event, None))).collect::<Vec<_>>() {
        let mut groups = Group::parse_all(event, json.unwrap_or("[]"), is_own)?;
        let before = groups.len();
        change(event, &mut groups);
        if !groups.iter().any(|group| group.is_changed) && groups.len() == before {
            written.extend(json.map(|json| (event.to_owned(), json.to_owned())));
            continue;
        }
        is_changed = true;
        let groups: Vec<String> =
            groups.iter().filter(|group| !group.is_gone()).map(|group| group.text(style)).collect();
        if !groups.is_empty() {
            written.push((event.to_owned(), style.list(&groups, 2)));
        }
    }
    if !is_changed {
        return Ok(text.to_owned());
    }
    let hooks = (!written.is_empty()).then(|| style.object(&written, 1));
    let mut members: Vec<(String, String)> = Vec::new();
    for (name, value) in &top.0 {
        match (name.as_str(), &hooks) {
            ("hooks", Some(hooks)) => members.push((name.clone(), hooks.clone())),
            ("hooks", None) => {}
            _ => members.push((name.clone(), value.get().to_owned())),
        }
    }
    if let (None, Some(hooks)) = (top.get("hooks"), hooks) {
        members.push(("hooks".to_owned(), hooks));
    }
    let (before, after) = match text.find(body).filter(|_| !body.is_empty()) {
        Some(at) => (&text[..at], &text[at + body.len()..]),
        None => ("", style.newline),
    };
    Ok(format!("{before}{}{after}", style.object(&members, 0)))
}

/// One `{"matcher": …, "hooks": […]}`.
struct Group {
    /// Its members but for `hooks`, which stands at `hooks_at`.
    members: Vec<(String, String)>,
    hooks_at: usize,
    /// Each hook's text, and its command where it is ours.
    hooks: Vec<(String, Option<String>)>,
    /// As it was written.
    raw: String,
    is_changed: bool,
}

impl Group {
    fn new(style: &Style, command: &str, timeout_s: u32) -> Self {
        #[derive(serde::Serialize)]
        struct Entry<'a> {
            r#type: &'a str,
            command: &'a str,
            timeout: u32,
        }
        let entry = style.pretty(&Entry { r#type: "command", command, timeout: timeout_s }, 5);
        let hooks = vec![(entry, Some(command.to_owned()))];
        Self { members: Vec::new(), hooks_at: 0, hooks, raw: String::new(), is_changed: true }
    }

    /// The groups of an event. Of one that is of no known shape nothing is ours.
    fn parse_all(event: &str, json: &str, is_own: &dyn Fn(&str) -> bool) -> Result<Vec<Self>, SettingsError> {
        let groups: Vec<&RawValue> = serde_json::from_str(json)
            .map_err(|_| SettingsError::Shape { name: format!("`hooks.{event}`"), expected: "a list" })?;
        Ok(groups.into_iter().map(|group| Self::parse(group.get(), is_own)).collect())
    }

    fn parse(json: &str, is_own: &dyn Fn(&str) -> bool) -> Self {
        let mut group =
            Self { members: Vec::new(), hooks_at: 0, hooks: Vec::new(), raw: json.to_owned(), is_changed: false };
        let Ok(members) = Members::parse(json, "a group") else {
            return group;
        };
        let hooks = members.get("hooks").map(serde_json::from_str::<Vec<&RawValue>>);
        let Some(Ok(hooks)) = hooks else {
            return group;
        };
        let own_command = |hook: &str| {
            let command = Members::parse(hook, "a hook").ok()?.get("command")?.to_owned();
            serde_json::from_str::<String>(&command).ok().filter(|command| is_own(command))
        };
        group.hooks = hooks.iter().map(|hook| (hook.get().to_owned(), own_command(hook.get()))).collect();
        group.hooks_at = members.0.iter().position(|(name, _)| name == "hooks").unwrap_or_default();
        let others = members.0.iter().filter(|(name, _)| name != "hooks");
        group.members = others.map(|(name, value)| (name.clone(), value.get().to_owned())).collect();
        group
    }

    /// Keeps the hooks that `keep` says, given the command of each that is ours.
    fn keep_if(&mut self, mut keep: impl FnMut(Option<&str>) -> bool) {
        let before = self.hooks.len();
        self.hooks.retain(|(_, own)| keep(own.as_deref()));
        self.is_changed |= self.hooks.len() != before;
    }

    /// Gives ours a longer limit where theirs is shorter, or is the client's own.
    fn raise_limit(&mut self, style: &Style, timeout_s: u32) {
        for (hook, _) in self.hooks.iter_mut().filter(|(_, own)| own.is_some()) {
            let Ok(members) = Members::parse(hook, "a hook") else {
                continue;
            };
            let limit = members.get("timeout").and_then(|limit| limit.parse::<f64>().ok());
            if limit.is_some_and(|limit| limit >= f64::from(timeout_s)) {
                continue;
            }
            let mut members: Vec<(String, String)> =
                members.0.iter().map(|(name, value)| (name.clone(), value.get().to_owned())).collect();
            match members.iter_mut().find(|(name, _)| name == "timeout") {
                Some((_, limit)) => *limit = timeout_s.to_string(),
                None => members.push(("timeout".to_owned(), timeout_s.to_string())),
            }
            *hook = style.object(&members, 5);
            self.is_changed = true;
        }
    }

    /// Whether nothing is left in it that anybody else put in.
    fn is_gone(&self) -> bool {
        self.is_changed && self.hooks.is_empty()
    }

    fn text(&self, style: &Style) -> String {
        if !self.is_changed {
            return self.raw.clone();
        }
        let hooks: Vec<String> = self.hooks.iter().map(|(hook, _)| hook.clone()).collect();
        let mut members = self.members.clone();
        members.insert(self.hooks_at.min(members.len()), ("hooks".to_owned(), style.list(&hooks, 4)));
        style.object(&members, 3)
    }
}

/// How a file is written: its indentation and line breaks.
struct Style {
    indent: String,
    newline: &'static str,
}

impl Style {
    fn of(text: &str) -> Self {
        let indented = text.lines().find(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty());
        let indent = indented.map(|line| &line[..line.len() - line.trim_start().len()]);
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        Self { indent: indent.unwrap_or("  ").to_owned(), newline }
    }

    fn object(&self, members: &[(String, String)], depth: usize) -> String {
        let name = |name: &str| serde_json::Value::from(name).to_string();
        let members: Vec<String> = members.iter().map(|(key, value)| format!("{}: {value}", name(key))).collect();
        self.between("{", "}", &members, depth)
    }

    fn list(&self, items: &[String], depth: usize) -> String {
        self.between("[", "]", items, depth)
    }

    fn between(&self, open: &str, close: &str, parts: &[String], depth: usize) -> String {
        if parts.is_empty() {
            return format!("{open}{close}");
        }
        let inner = format!("{}{}", self.newline, self.indent.repeat(depth + 1));
        let outer = format!("{}{}", self.newline, self.indent.repeat(depth));
        format!("{open}{inner}{}{outer}{close}", parts.join(&format!(",{inner}")))
    }

    /// A small value over several lines.
    fn pretty(&self, value: &impl Serialize, depth: usize) -> String {
        let text = serde_json::to_string_pretty(value).unwrap_or_default();
        let lines: Vec<String> = text
            .lines()
            .map(|line| {
                let body = line.trim_start();
                format!("{}{body}", self.indent.repeat((line.len() - body.len()) / 2))
            })
            .collect();
        lines.join(&format!("{}{}", self.newline, self.indent.repeat(depth)))
    }
}
