//! Patterns of files, as Claude Code's rules and `.gitignore` have them. Paths are compared as they are written, `.` and
//! `..` taken out; links are not followed, since nothing is read here.

use crate::glob::{Segment, name_escaped, name_tokens, path_fits};
use crate::tool_pattern::Side;

/// A pattern of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathPattern {
    base: Base,
    /// Folders up from the base, where the pattern begins with `..`.
    up: usize,
    segments: Vec<Segment>,
}

/// What a pattern is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Root,
    Home,
    Project,
}

/// Where relative paths are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    pub(crate) cwd: &'a str,
    pub(crate) project_dir: &'a str,
    pub(crate) home: Option<&'a str>,
}

/// What is wrong with a pattern, and the character of it that it begins at.
pub(crate) type Fault = (usize, &'static str);

impl PathPattern {
    /// A rule's pattern: `//path` from the root, `~/path` from the home folder, `/path` and `path` from the project
    /// directory; one name alone is sought in every folder below. It covers what is below the folders that fit.
    pub(crate) fn of_rule(pattern: &str) -> Result<Self, Fault> {
        let characters: Vec<char> = pattern.chars().collect();
        let (base, from) = match characters.as_slice() {
            ['/', '/', ..] => (Base::Root, 2),
            ['~'] => (Base::Home, 1),
            ['~', '/', ..] => (Base::Home, 2),
            ['~', ..] => return Err((0, "another user's home folder cannot be told; write `//` and its path")),
            ['!', ..] => {
                return Err((0, "a pattern cannot be turned round by `!`; write a rule of its own before this one"));
            }
            ['/', ..] => (Base::Project, 1),
            _ => (Base::Project, 0),
        };
        let names = names_of(&characters, from);
        let is_one_name = base == Base::Project && from == 0 && names.len() == 1 && !is_step(names[0].1);
        let mut pattern = Self::with(base, names)?;
        if is_one_name && pattern.segments != [Segment::Any] {
            pattern.segments.insert(0, Segment::Any);
        }
        match pattern.segments.last() {
            // `a/**` is what is in `a`, not `a` itself.
            Some(Segment::Any) => {
                let last = pattern.segments.len() - 1;
                pattern.segments.insert(last, Segment::Name(name_tokens(&['*']).unwrap_or_default()));
            }
            _ => pattern.segments.push(Segment::Any),
        }
        Ok(pattern)
    }

    /// A pattern of the whole path of a folder; relative to the project directory where it does not begin with `/` or
    /// `~`. `a/**` is `a` itself too.
    pub(crate) fn of_folder(pattern: &str) -> Result<Self, Fault> {
        let characters: Vec<char> = pattern.chars().collect();
        let (base, from) = match characters.as_slice() {
            ['/', ..] => (Base::Root, 1),
            ['~'] => (Base::Home, 1),
            ['~', '/', ..] => (Base::Home, 2),
            _ => (Base::Project, 0),
        };
        Self::with(base, names_of(&characters, from))
    }

    fn with(base: Base, names: Vec<(usize, &[char])>) -> Result<Self, Fault> {
        let (mut up, mut segments) = (0, Vec::new());
        for (at, name) in names {
            match name {
                ['.'] => {}
                ['.', '.'] if segments.is_empty() && base == Base::Project => up += 1,
                ['.', '.'] => {
                    return Err((at, "`..` can only begin a pattern that is relative to the project directory"));
                }
                ['*', '*'] => segments.push(Segment::Any),
                name => {
                    let tokens = name_tokens(name).map_err(|(inner, what)| (at + inner, what))?;
                    segments.push(Segment::Name(tokens));
                }
            }
        }
        Ok(Self { base, up, segments })
    }

    /// Whether a path, as [`normal`] gives it, fits. A home folder that is not known may be any, for what denies or asks.
    pub(crate) fn fits(&self, names: &[String], places: Places<'_>, side: Side) -> bool {
        let base = match self.base {
            Base::Root => Vec::new(),
            Base::Home => match places.home {
                Some(home) => normal(home, places),
                None => {
                    let mut below = (0..=names.len()).map(|home| &names[home..]);
                    return side == Side::Wide && below.any(|rest| path_fits(&self.segments, rest));
                }
            },
            Base::Project => normal(places.project_dir, places),
        };
        let base = &base[..base.len().saturating_sub(self.up)];
        names.strip_prefix(base).is_some_and(|rest| path_fits(&self.segments, rest))
    }
}

/// The names between slashes, each with where it begins; an empty one says nothing.
fn names_of(characters: &[char], from: usize) -> Vec<(usize, &[char])> {
    let mut names = Vec::new();
    let mut began = from;
    for at in from..=characters.len() {
        if matches!(characters.get(at), Some('/') | None) {
            names.extend((at > began).then(|| (began, &characters[began..at])));
            began = at + 1;
        }
    }
    names
}

fn is_step(name: &[char]) -> bool {
    matches!(name, ['.'] | ['.', '.'])
}

/// A path's names from the root on, `.` and `..` taken out.
pub(crate) fn normal(path: &str, places: Places<'_>) -> Vec<String> {
    let (mut names, rest) = match (path.strip_prefix('~'), places.home) {
        _ if path.starts_with('/') => (Vec::new(), path),
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => (absolute_names(home), rest),
        _ => (absolute_names(places.cwd), path),
    };
    follow(&mut names, rest);
    names
}

fn absolute_names(path: &str) -> Vec<String> {
    let mut names = Vec::new();
    follow(&mut names, path);
    names
}

fn follow(names: &mut Vec<String>, path: &str) {
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name.to_owned()),
        }
    }
}

/// The rule's pattern that this path, and what is below it, fits.
pub(crate) fn pattern_of(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| name_escaped(name)).collect();
    format!("//{}", names.join("/"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;

    const PLACES: Places<'_> = Places { cwd: "/home/dev/p/sub", project_dir: "/home/dev/p/", home: Some("/home/dev") };

    #[test]
    fn a_rules_pattern_covers_paths_as_gitignore_does() {
        for (pattern, path, fits) in [
            ("src/**", "/home/dev/p/src/a/b.rs", true),
            ("src/**", "/home/dev/p/src", false),
            ("src/**", "/home/dev/p/srcs/a", false),
            ("src/**", "/home/dev/p/src/../Cargo.toml", false),
            ("src/**", "/etc/src/a", false),
            ("/src/*.rs", "/home/dev/p/src/a.rs", true),
            ("/src/*.rs", "/home/dev/p/src/a/b.rs", false),
            ("src", "/home/dev/p/x/src/a", true),
            ("./src", "/home/dev/p/x/src/a", false),
            ("./src", "/home/dev/p/src/a", true),
            ("src/", "/home/dev/p/src/a", true),
            (".env", "/home/dev/p/deep/.env", true),
            (".env", "/home/dev/.env", false),
            ("*.md", "/home/dev/p/docs/a.md", true),
            ("**", "/home/dev/p/a", true),
            ("**", "/home/dev/q/a", false),
            ("**/*.rs", "/home/dev/p/a.rs", true),
            ("a/**/b", "/home/dev/p/a/b", true),
            ("a/**/b", "/home/dev/p/a/x/y/b/c", true),
            ("~/.zshrc", "/home/dev/.zshrc", true),
            ("~/.zshrc", "~/.zshrc", true),
            ("~", "/home/dev/x", true),
            ("//etc/**", "/etc/passwd", true),
            ("//etc/**", "/etcetera", false),
            ("//**", "/anything/at/all", true),
            ("../shared/**", "/home/dev/shared/x", true),
            ("../shared/**", "/home/dev/p/shared/x", false),
            ("other.rs", "other.rs", true),
            ("sub/rel.rs", "rel.rs", true),
            ("sub/rel.rs", "../p/./sub//rel.rs", false),
            ("sub/rel.rs", "../sub/./rel.rs", true),
            ("a[bc]?", "/home/dev/p/abx", true),
        ] {
            let found = PathPattern::of_rule(pattern).unwrap().fits(&normal(path, PLACES), PLACES, Side::Strict);
            assert_eq!(found, fits, "{pattern} {path}");
        }
    }

    #[test]
    fn a_folders_pattern_is_of_its_whole_path() {
        for (pattern, path, fits) in [
            ("sub", "/home/dev/p/sub", true),
            ("sub", "/home/dev/p/sub/x", false),
            ("sub/**", "/home/dev/p/sub", true),
            ("sub/**", "/home/dev/p/sub/x", true),
            ("/home/*/p", "/home/dev/p", true),
            ("~/p/**", "/home/dev/p/q", true),
            (".", "/home/dev/p", true),
            ("**", "/home/dev/p", true),
            ("/**", "/", true),
        ] {
            let found = PathPattern::of_folder(pattern).unwrap().fits(&normal(path, PLACES), PLACES, Side::Strict);
            assert_eq!(found, fits, "{pattern} {path}");
        }
    }

    #[test]
    fn without_a_home_its_patterns_allow_nothing_and_deny_below_any_folder() {
        let places = Places { home: None, ..PLACES };
        for (pattern, path, denies) in [
            ("~/.ssh/**", "/home/dev/.ssh/id", true),
            ("~/.ssh/**", "/root/.ssh/a/b", true),
            ("~/.ssh/**", "~/.ssh/id", true),
            ("~/.ssh/**", "/home/dev/ssh/id", false),
            ("~/.zshrc", "/home/dev/.zshrc", true),
            ("~", "/x", true),
        ] {
            let fits = |side| PathPattern::of_rule(pattern).unwrap().fits(&normal(path, places), places, side);
            assert_eq!((fits(Side::Strict), fits(Side::Wide)), (false, denies), "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_where() {
        for (pattern, at) in [("~other/x", 0), ("!src", 0), ("src/../x", 4), ("//..", 2), ("a/b[", 3), ("a/b\\", 3)] {
            assert_eq!(PathPattern::of_rule(pattern).unwrap_err().0, at, "{pattern}");
        }
    }
}
