//! A run in time, as a picture: iterations, turns, tools, subagents and questions, one lane each; what failed and what stalled
//! stands out, and where nothing happened for long, time is cut.
//!
//! It is drawn of feed entries alone, so it shows what the feed shows, at whatever position that ends.

use std::collections::{HashMap, HashSet};

use maud::{Markup, html};
use runledger_events::words::duration;
use runledger_events::{Position, TimestampMs};
use runledger_projections::{FeedEvent, Iteration};

/// Pixels: the lanes' names, a row, and the plot at its smallest.
const NAMES: f64 = 92.0;
const ROW: f64 = 18.0;
const PLOT: f64 = 860.0;
/// Where the lanes begin, below the axis.
const TOP: f64 = 26.0;
/// A cut gap, in pixels.
const GAP: f64 = 34.0;
/// Nothing that is shorter is a gap.
const GAP_MS_MIN: i64 = 30_000;
/// A gap is this part of the whole, at the least.
const GAP_PART: i64 = 25;
/// Rows of one lane; what is more lies in the last one.
const ROWS_MAX: usize = 6;
/// A call without an answer for so long has stalled.
const STALL_MS: i64 = 60_000;
/// Moments that are drawn, in Unix milliseconds: 273,790 years to either side, as in JavaScript.
const MS_MAX: i64 = 8_640_000_000_000_000;
/// How far it can be zoomed in.
pub(crate) const ZOOMS: [u32; 4] = [1, 2, 4, 8];

/// The lanes, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Lane {
    Iterations,
    Turns,
    Subagents,
    Tools,
    Questions,
}

impl Lane {
    const ALL: [Self; 5] = [Self::Iterations, Self::Turns, Self::Subagents, Self::Tools, Self::Questions];

    fn name(self) -> &'static str {
        match self {
            Self::Iterations => "iterations",
            Self::Turns => "turns",
            Self::Subagents => "subagents",
            Self::Tools => "tools",
            Self::Questions => "permissions",
        }
    }
}

/// Something that took time.
#[derive(Debug, Clone)]
struct Span {
    lane: Lane,
    name: String,
    begin: i64,
    /// None where it goes on.
    end: Option<i64>,
    class: &'static str,
    position: Position,
    seq: Option<u64>,
}

/// Time laid out in pixels, with its gaps cut.
struct Axis {
    /// Pieces in which something happens: from, to, and where they begin.
    pieces: Vec<(i64, i64, f64)>,
    scale: f64,
}

impl Axis {
    /// Of moments at which something is or changes; `width` is all pieces' and gaps'.
    fn new(spans: &[Span], now: i64, width: f64) -> Self {
        let mut busy: Vec<(i64, i64)> = spans
            .iter()
            // An iteration or a turn lasts while nothing happens in it.
            .filter(|span| !matches!(span.lane, Lane::Iterations | Lane::Turns))
            .map(|span| (span.begin, span.end.unwrap_or(span.begin).max(span.begin)))
            .chain(
                spans
                    .iter()
                    .flat_map(|span| [(span.begin, span.begin), (span.end.unwrap_or(now), span.end.unwrap_or(now))]),
            )
            .collect();
        busy.sort_unstable();
        let (first, last) =
            (busy.first().map_or(now, |piece| piece.0), busy.iter().map(|piece| piece.1).max().unwrap_or(now));
        let gap_min = GAP_MS_MIN.max(last.saturating_sub(first) / GAP_PART);
        let mut pieces: Vec<(i64, i64)> = Vec::new();
        for (begin, end) in busy {
            match pieces.last_mut() {
                Some((_, last)) if begin.saturating_sub(*last) < gap_min => *last = (*last).max(end),
                _ => pieces.push((begin, end)),
            }
        }
        let busy_ms: i64 = pieces.iter().map(|(begin, end)| end - begin).sum();
        let room = (width - GAP * pieces.len().saturating_sub(1) as f64).max(width / 4.0);
        let scale = room / busy_ms.max(1) as f64;
        let mut at = 0.0;
        let pieces = pieces
            .into_iter()
            .map(|(begin, end)| {
                let piece = (begin, end, at);
                at += (end - begin) as f64 * scale + GAP;
                piece
            })
            .collect();
        Self { pieces, scale }
    }

    /// Where a moment lies.
    fn x(&self, ms: i64) -> f64 {
        let index = self.pieces.partition_point(|(begin, ..)| *begin <= ms).saturating_sub(1);
        let Some((begin, end, at)) = self.pieces.get(index) else {
            return 0.0;
        };
        at + (ms.clamp(*begin, *end) - begin) as f64 * self.scale
    }

    fn width(&self) -> f64 {
        self.pieces.last().map_or(0.0, |(begin, end, at)| at + (end - begin) as f64 * self.scale)
    }

    /// The gaps: where each lies, and how long it is.
    fn gaps(&self) -> impl Iterator<Item = (f64, i64)> + '_ {
        self.pieces.windows(2).map(|pair| (pair[1].2 - GAP, pair[1].0 - pair[0].1))
    }

    /// What a tick is called: its time, to the millisecond where others stand in the same second.
    fn tick_name(ms: i64, is_fine: bool) -> String {
        let name = crate::show::time_text(TimestampMs(ms)).get(11..).unwrap_or_default().to_owned();
        if is_fine { format!("{name}.{:03}", ms.rem_euclid(1000)) } else { name }
    }

    /// Moments to be named, about as many as fit.
    fn ticks(&self) -> Vec<i64> {
        const STEPS: [i64; 14] = [
            100, 500, 1000, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000, 10_800_000,
            43_200_000, 86_400_000,
        ];
        let step = STEPS.into_iter().find(|step| *step as f64 * self.scale >= 90.0).unwrap_or(86_400_000);
        let mut ticks = Vec::new();
        for (begin, end, _) in &self.pieces {
            if ticks.last().is_none_or(|last| self.x(*begin) - self.x(*last) > 70.0) {
                ticks.push(*begin);
            }
            let mut at = (begin.div_euclid(step) + 1).saturating_mul(step);
            // A piece of a year is named by its first days; the picture has an end.
            while at < *end && ticks.len() < 200 {
                if ticks.last().is_none_or(|last| self.x(at) - self.x(*last) > 70.0) {
                    ticks.push(at);
                }
                at += step;
            }
        }
        ticks
    }
}

/// A moment that can be drawn.
fn ms(at: TimestampMs) -> i64 {
    at.0.clamp(-MS_MAX, MS_MAX)
}

/// What took time, out of iterations and entries.
fn spans(iterations: &[Iteration], entries: &[FeedEvent]) -> Vec<Span> {
    let mut spans: Vec<Span> = iterations
        .iter()
        .map(|iteration| Span {
            lane: Lane::Iterations,
            name: match &iteration.retry {
                Some(_) => format!("{} (retry)", iteration.iteration),
                None => iteration.iteration.to_string(),
            },
            begin: ms(iteration.started_at),
            end: iteration.ended_at.map(ms),
            class: match (&iteration.error, &iteration.retry) {
                (Some(_), _) => "failed",
                (None, Some(_)) => "retried",
                (None, None) => "plain",
            },
            position: iteration.start_position,
            seq: None,
        })
        .collect();
    // What was begun and not ended: by its call, its turn or its subagent, and by the entry that began it.
    let mut open: HashMap<(Lane, String), usize> = HashMap::new();
    let mut begun: HashMap<(Lane, &str), usize> = HashMap::new();
    // The calls of each turn, which end with it at the latest.
    let mut calls: HashMap<&str, Vec<usize>> = HashMap::new();
    for entry in entries {
        let call = entry.cause.tool_use_id.clone();
        let key = |lane: Lane| match lane {
            Lane::Turns => Some(entry.run_id.clone()),
            Lane::Subagents => Some(entry.actor_id.clone()),
            _ => call.clone(),
        };
        let (lane, is_begin) = match entry.kind.as_str() {
            "run.start" => (Lane::Turns, true),
            "run.end" => (Lane::Turns, false),
            "subagent.start" => (Lane::Subagents, true),
            "subagent.stop" => (Lane::Subagents, false),
            "tool.pre" => (Lane::Tools, true),
            "tool.post" | "tool.failure" => (Lane::Tools, false),
            "permission.request" => (Lane::Questions, true),
            "permission.decision" | "permission.denied" => (Lane::Questions, false),
            _ => continue,
        };
        let key = key(lane).map(|key| (lane, key));
        if is_begin {
            if let Some(key) = key {
                open.insert(key, spans.len());
            }
            begun.insert((lane, entry.event_id.as_str()), spans.len());
            if lane == Lane::Tools {
                calls.entry(entry.run_id.as_str()).or_default().push(spans.len());
            }
            spans.push(Span {
                lane,
                name: entry.title.clone(),
                begin: ms(entry.ts),
                end: None,
                class: "plain",
                position: entry.position,
                seq: Some(entry.seq),
            });
            continue;
        }
        let class = match entry.kind.as_str() {
            "tool.failure" | "permission.denied" => "failed",
            _ => "plain",
        };
        if lane == Lane::Turns {
            for index in calls.remove(entry.run_id.as_str()).unwrap_or_default() {
                if let Some(call) = spans.get_mut(index).filter(|call| call.end.is_none()) {
                    call.end = Some(ms(entry.ts).max(call.begin));
                    call.class = "unknown";
                }
            }
        }
        let by_parent = || begun.get(&(lane, entry.cause.parent_event_id.as_deref()?)).copied();
        match key.and_then(|key| open.remove(&key)).or_else(by_parent).and_then(|index| spans.get_mut(index)) {
            Some(span) => {
                span.end = Some(ms(entry.ts).max(span.begin));
                span.class = class;
            }
            // Its beginning is not among the entries.
            None if lane != Lane::Turns => spans.push(Span {
                lane,
                name: entry.title.clone(),
                begin: ms(entry.ts),
                end: Some(ms(entry.ts)),
                class,
                position: entry.position,
                seq: Some(entry.seq),
            }),
            None => {}
        }
    }
    spans
}

/// The picture. `shown` are the entries that stand on the page, to which it leads; `ended_at` is when the run ended; `now` the
/// moment that it is shown as of.
pub(crate) fn draw(
    iterations: &[Iteration],
    entries: &[FeedEvent],
    shown: &[FeedEvent],
    ended_at: Option<TimestampMs>,
    now: TimestampMs,
    zoom: u32,
) -> Markup {
    let mut spans = spans(iterations, entries);
    let until = ms(ended_at.unwrap_or(now));
    for span in &mut spans {
        // A call that nobody answers any more, and one that nobody has answered for long.
        let is_stalled = span.lane == Lane::Tools && until.saturating_sub(span.begin) > STALL_MS;
        if span.end.is_none() && (ended_at.is_some() || is_stalled) && !matches!(span.lane, Lane::Iterations) {
            span.class = if span.lane == Lane::Tools { "stalled" } else { span.class };
        }
    }
    if spans.is_empty() {
        return html! { p .nothing { "Nothing took time yet." } };
    }
    let axis = Axis::new(&spans, until, PLOT * f64::from(zoom));
    let rows = rows(&spans, &axis, until);
    let mut tops = HashMap::new();
    let mut top = TOP;
    for lane in Lane::ALL {
        let count = spans.iter().zip(&rows).filter(|(span, _)| span.lane == lane).map(|(_, row)| row + 1).max();
        if let Some(count) = count {
            tops.insert(lane, top);
            top += ROW * count as f64 + 8.0;
        }
    }
    // The last moment is named behind its line.
    let width = NAMES + axis.width() + 92.0;
    let marks = entries.iter().filter(|entry| is_error(entry));
    let px = |value: f64| format!("{value:.1}");
    let shown: HashSet<u64> = shown.iter().map(|entry| entry.seq).collect();
    let address = |seq: Option<u64>, position: Position| match seq.filter(|seq| shown.contains(seq)) {
        Some(seq) => format!("#e{seq}"),
        None => format!("/events/{position}"),
    };
    html! {
        div .scroll tabindex="0" { svg .timeline viewBox={ "0 0 " (px(width)) " " (px(top)) } width=(px(width)) height=(px(top)) role="group" aria-label="Timeline" {
            @for (x, ms) in axis.gaps() {
                g .gap { title { "nothing happened for " (duration(ms)) }
                    rect x=(px(NAMES + x)) y="0" width=(px(GAP)) height=(px(top)) {}
                    text x=(px(NAMES + x + GAP / 2.0)) y=(px(top - 4.0)) { (short_duration(ms)) }
                }
            }
            @let ticks = axis.ticks();
            @let is_fine = ticks.windows(2).any(|pair| pair[0].div_euclid(1000) == pair[1].div_euclid(1000));
            @for ms in ticks {
                @let x = NAMES + axis.x(ms);
                line .rule x1=(px(x)) x2=(px(x)) y1="16" y2=(px(top)) {}
                text .tick x=(px(x + 3.0)) y="12" { (Axis::tick_name(ms, is_fine)) }
            }
            @for lane in Lane::ALL { @if let Some(top) = tops.get(&lane) {
                text .lane x="0" y=(px(top + 12.0)) { (lane.name()) }
            } }
            @for (span, row) in spans.iter().zip(&rows) {
                @let begin = axis.x(span.begin);
                @let wide = (axis.x(span.end.unwrap_or(until).max(span.begin)) - begin).max(3.0);
                @let y = tops.get(&span.lane).copied().unwrap_or(TOP) + ROW * *row as f64;
                @let took = span.end.map_or_else(|| "goes on".to_owned(), |end| duration(end - span.begin));
                a href=(address(span.seq, span.position))
                    class={ "span " (span.lane.name()) " " (span.class) @if span.end.is_none() { " open" } } {
                    title { (span.name) ", " (took) @if span.class == "stalled" { ", never answered" } @if span.class == "unknown" { ", until its turn ended: what it answered was not told" } }
                    rect x=(px(NAMES + begin)) y=(px(y)) width=(px(wide)) height=(px(ROW - 4.0)) rx="2" {}
                    @if wide > 46.0 {
                        text x=(px(NAMES + begin + 4.0)) y=(px(y + 11.0)) { (shortened(&span.name, ((wide - 8.0) / 6.2) as usize)) }
                    }
                }
            }
            @for entry in marks {
                a .error-mark href=(address(Some(entry.seq), entry.position)) { title { (entry.title) }
                    path d={ "M" (px(NAMES + axis.x(ms(entry.ts)))) " 16l-4 -8h8z" } {}
                }
            }
        } }
    }
}

fn is_error(entry: &FeedEvent) -> bool {
    entry.level.as_str() == "error"
}

/// A length of time in its first unit.
fn short_duration(ms: i64) -> String {
    let text = duration(ms);
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn shortened(text: &str, characters_max: usize) -> String {
    runledger_events::words::short(text, characters_max)
}

/// The row of each span in its lane: the first one that is free where it begins.
fn rows(spans: &[Span], axis: &Axis, until: i64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|index| spans[*index].begin);
    let mut free: HashMap<Lane, Vec<f64>> = HashMap::new();
    let mut rows = vec![0; spans.len()];
    for index in order {
        let span = &spans[index];
        let begin = axis.x(span.begin);
        let end = axis.x(span.end.unwrap_or(until)).max(begin + 4.0);
        let lanes = free.entry(span.lane).or_default();
        let row = lanes.iter().position(|free| *free <= begin).unwrap_or(lanes.len()).min(ROWS_MAX - 1);
        if row == lanes.len() {
            lanes.push(end);
        } else {
            lanes[row] = lanes[row].max(end);
        }
        rows[index] = row;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(lane: Lane, begin: i64, end: Option<i64>) -> Span {
        Span { lane, name: "x".to_owned(), begin, end, class: "plain", position: Position(1), seq: None }
    }

    #[test]
    fn where_nothing_happens_for_long_time_is_cut() {
        let day = 86_400_000;
        let spans = [span(Lane::Tools, 0, Some(1000)), span(Lane::Tools, day, Some(day + 1000))];
        let axis = Axis::new(&spans, day + 1000, 1000.0);
        assert_eq!(axis.gaps().map(|(_, ms)| ms).collect::<Vec<_>>(), [day - 1000]);
        assert!((axis.width() - 1000.0).abs() < 0.001, "{}", axis.width());
        assert!(axis.x(day) - axis.x(1000) < GAP + 0.001);
        // Moments keep their order, within gaps too.
        let xs: Vec<f64> = [-5, 0, 500, 1000, day / 2, day, day + 1000, day * 2].map(|ms| axis.x(ms)).into();
        assert!(xs.windows(2).all(|pair| pair[0] <= pair[1]), "{xs:?}");
    }

    #[test]
    fn what_overlaps_lies_in_rows_of_its_own_up_to_a_bound() {
        let spans: Vec<Span> = (0..10).map(|index| span(Lane::Tools, index, Some(1000))).collect();
        let axis = Axis::new(&spans, 1000, 500.0);
        let rows = rows(&spans, &axis, 1000);
        assert_eq!(rows[..6], [0, 1, 2, 3, 4, 5]);
        assert!(rows.iter().all(|row| *row < ROWS_MAX));
    }

    #[test]
    fn ticks_are_bounded_whatever_the_times() {
        let spans = [span(Lane::Tools, -MS_MAX, Some(MS_MAX))];
        let axis = Axis::new(&spans, 0, 1000.0);
        assert!(axis.ticks().len() <= 201);
    }
}
