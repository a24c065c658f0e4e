//! A run's states as a picture: which there are, which way it took, and where it is.

use maud::{Markup, html};
use runledger_events::{Position, RecordedEvent, RunState, RunStatus, TimestampMs, WorkflowState, transition_is_legal};

/// Pixels of a state's box, and from one to the next.
const BOX: (u32, u32) = (104, 34);
const STEP: u32 = 148;
const MARGIN: u32 = 8;
/// Where the boxes begin, below the arrows that lead back.
const TOP: u32 = 46;

/// A state that a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) state: RunState,
    pub(crate) position: Position,
    pub(crate) at: TimestampMs,
}

/// The states that a run came to, one after another, as its own events tell.
pub(crate) fn way(events: &[RecordedEvent]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut state: Option<WorkflowState> = None;
    for event in events {
        match &mut state {
            None => state = WorkflowState::initial(event),
            // What cannot follow changes nothing; `verify` tells of it.
            Some(state) => drop(state.evolve(event)),
        }
        if let Some(state) = &state
            && steps.last().is_none_or(|last| last.state != state.state)
        {
            steps.push(Step { state: state.state, position: event.position, at: event.occurred_at });
        }
    }
    steps
}

/// How often a run went from one state to another.
fn times(way: &[Step], from: RunState, to: RunState) -> usize {
    way.windows(2).filter(|pair| pair[0].state == from && pair[1].state == to).count()
}

pub(crate) fn draw(way: &[Step], status: RunStatus) -> Markup {
    let states = RunState::ALL;
    let width = MARGIN * 2 + BOX.0 + STEP * (states.len() as u32 - 1);
    let left = |index: usize| MARGIN + STEP * index as u32;
    let middle = TOP + BOX.1 / 2;
    let now = way.last().map(|step| step.state);
    let moves = states.iter().enumerate().flat_map(|(from, a)| {
        let legal = states.iter().enumerate().filter(move |(_, b)| transition_is_legal(*a, **b));
        legal.map(move |(to, b)| (from, *a, to, *b))
    });
    let told: Vec<String> = way.iter().map(|step| format!("{} at {}", step.state, step.position)).collect();
    html! {
        svg .machine viewBox={ "0 0 " (width) " 118" } width=(width) height="118" role="img" aria-label={ "The way: " (told.join(", ")) } {
            @for (from, a, to, b) in moves {
                @let count = times(way, a, b);
                @let class = if count > 0 { "move taken" } else { "move" };
                @if to == from + 1 {
                    line class=(class) x1=(left(from) + BOX.0) y1=(middle) x2=(left(to) - 7) y2=(middle) {}
                    path class={ (class) " tip" } d={ "M" (left(to) - 8) " " (middle - 4) "l8 4l-8 4z" } {}
                    @if count > 1 { text .count x=(left(from) + BOX.0 + 18) y=(middle - 6) { "×" (count) } }
                } @else {
                    // Back to idle above the boxes, past a state below them.
                    @let x = (left(from) + BOX.0 / 2, left(to) + BOX.0 / 2);
                    @let (edge, bow) = if to < from { (TOP, TOP - 8 - 10 * from as u32) } else { (TOP + BOX.1, TOP + BOX.1 + 26) };
                    @let tip = if to < from { "l-4 -8h8z" } else { "l-4 8h8z" };
                    path class=(class) fill="none" d={ "M" (x.0) " " (edge) "V" (bow) "H" (x.1) "V" (edge) } {}
                    path class={ (class) " tip" } d={ "M" (x.1) " " (edge) (tip) } {}
                    @if count > 0 { text .count x=((x.0 + x.1) / 2) y=(bow - 2) { "×" (count) } }
                }
            }
            @for (index, state) in states.iter().enumerate() {
                @let been = way.iter().rfind(|step| step.state == *state);
                @let class = match (now == Some(*state), been) {
                    (true, _) => format!("state now {status}"), (false, Some(_)) => "state been".to_owned(), (false, None) => "state".to_owned(),
                };
                g class=(class) {
                    @if let Some(step) = been { title { "since position " (step.position) ", " (crate::show::time_text(step.at)) } }
                    rect x=(left(index)) y=(TOP) width=(BOX.0) height=(BOX.1) rx="4" {}
                    text x=(left(index) + BOX.0 / 2) y=(middle + 4) { (state) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_counted_and_drawn_with_where_it_is() {
        let step = |state, position| Step { state, position: Position(position), at: TimestampMs(0) };
        let way = [
            step(RunState::Idle, 1),
            step(RunState::Starting, 2),
            step(RunState::Running, 3),
            step(RunState::Idle, 7),
            step(RunState::Starting, 8),
            step(RunState::Running, 9),
        ];
        assert_eq!(times(&way, RunState::Starting, RunState::Running), 2);
        assert_eq!(times(&way, RunState::Completing, RunState::Done), 0);
        let drawn = draw(&way, RunStatus::Running).into_string();
        assert_eq!(drawn.matches("state now running").count(), 1);
        assert_eq!(drawn.matches("state been").count(), 2);
    }
}
