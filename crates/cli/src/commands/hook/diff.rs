//! The difference between two texts, line by line, as `diff -u` shows it.

/// Unchanged lines shown around each change.
const CONTEXT: usize = 3;
/// Pairs of lines compared at the most; beyond that everything that differs is shown as one change.
const PAIRS_MAX: usize = 4_000_000;

/// One line of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Kept(&'a str),
    Removed(&'a str),
    Added(&'a str),
}

/// The unified difference from `old` to `new`, without line breaks; nothing where they are equal.
pub(crate) fn unified(old_name: &str, new_name: &str, old: &str, new: &str) -> Vec<String> {
    let (old_lines, new_lines): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let lines = compare(&old_lines, &new_lines);
    let changed: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| !matches!(line, Line::Kept(_))).map(|(at, _)| at).collect();
    let mut shown = Vec::new();
    let mut open = changed.as_slice();
    while let Some(&first) = open.first() {
        let together = open.windows(2).take_while(|pair| pair[1] - pair[0] <= 2 * CONTEXT).count() + 1;
        let (hunk, rest) = open.split_at(together);
        let last = hunk.last().copied().unwrap_or(first);
        if shown.is_empty() {
            shown.extend([format!("--- {old_name}"), format!("+++ {new_name}")]);
        }
        show(&lines, first.saturating_sub(CONTEXT), (last + CONTEXT + 1).min(lines.len()), &mut shown);
        open = rest;
    }
    shown
}

fn show(lines: &[Line<'_>], from: usize, to: usize, shown: &mut Vec<String>) {
    let in_old = |lines: &[Line<'_>]| lines.iter().filter(|line| !matches!(line, Line::Added(_))).count();
    let in_new = |lines: &[Line<'_>]| lines.iter().filter(|line| !matches!(line, Line::Removed(_))).count();
    let (before, hunk) = (&lines[..from], &lines[from..to]);
    // Of a side without lines, the line before it is named.
    let range = |before: usize, count: usize| format!("{},{count}", before + usize::from(count > 0));
    let old_range = range(in_old(before), in_old(hunk));
    shown.push(format!("@@ -{old_range} +{} @@", range(in_new(before), in_new(hunk))));
    shown.extend(hunk.iter().map(|line| match line {
        Line::Kept(text) => format!(" {text}"),
        Line::Removed(text) => format!("-{text}"),
        Line::Added(text) => format!("+{text}"),
    }));
}

/// The longest common subsequence, in the part that is not equal at both ends.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let head = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old_part, new_part) = (&old_rest[..old_rest.len() - tail], &new_rest[..new_rest.len() - tail]);
    let mut lines: Vec<Line<'a>> = old[..head].iter().map(|line| Line::Kept(line)).collect();
    if old_part.len().saturating_mul(new_part.len()) > PAIRS_MAX {
        lines.extend(old_part.iter().map(|line| Line::Removed(line)));
        lines.extend(new_part.iter().map(|line| Line::Added(line)));
    } else {
        lines.extend(longest_common(old_part, new_part));
    }
    lines.extend(old_rest[old_part.len()..].iter().map(|line| Line::Kept(line)));
    lines
}

fn longest_common<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    // common[i][j]: how many lines of old[i..] and new[j..] can be kept.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Kept(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(Line::Removed(old[i]));
            i += 1;
        } else {
            lines.push(Line::Added(new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_far_apart_are_shown_apart_with_three_lines_around() {
        let old: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
        let mut new = old.clone();
        new[1] = "two".to_owned();
        new.insert(18, "new".to_owned());
        let shown = unified("a", "b", &old.join("\n"), &new.join("\n")).join("|");
        assert_eq!(shown, "--- a|+++ b|@@ -1,5 +1,5 @@| 1|-2|+two| 3| 4| 5|@@ -16,5 +16,6 @@| 16| 17| 18|+new| 19| 20");
    }

    #[test]
    fn a_new_text_begins_before_its_first_line_and_equal_ones_show_nothing() {
        assert_eq!(unified("a", "b", "", "x\ny\n").join("|"), "--- a|+++ b|@@ -0,0 +1,2 @@|+x|+y");
        assert!(unified("a", "b", "x\n", "x\n").is_empty());
    }
}
