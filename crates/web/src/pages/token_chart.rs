//! Tokens by iteration, as bars: read, written, from the cache and into it, one on the other.

use maud::{Markup, html};
use runledger_events::words::count;
use runledger_projections::Iteration;

/// Pixels: the plot's height, a bar with its room, and the room for the scale's words.
const HEIGHT: u64 = 120;
const BAR: u64 = 26;
const SCALE: u64 = 76;
/// Bars that are drawn, the last ones.
const BARS_MAX: usize = 200;

pub(crate) fn draw(iterations: &[Iteration]) -> Markup {
    let drawn = &iterations[iterations.len().saturating_sub(BARS_MAX)..];
    let parts = |iteration: &Iteration| {
        let tokens = &iteration.tokens;
        [
            ("cache-read", "from the cache", tokens.cache_read.unwrap_or(0)),
            ("input", "read", tokens.input.unwrap_or(0)),
            ("cache-write", "into the cache", tokens.cache_write.unwrap_or(0)),
            ("output", "written", tokens.output.unwrap_or(0)),
        ]
    };
    let sum = |iteration: &Iteration| parts(iteration).iter().map(|(.., tokens)| *tokens).sum::<u64>();
    let most = drawn.iter().map(sum).max().unwrap_or(0);
    let width = SCALE + BAR * drawn.len() as u64 + 8;
    let height = |tokens: u64| tokens as f64 * HEIGHT as f64 / most.max(1) as f64;
    html! {
        @if most == 0 {
            p .nothing { "No tokens are known." }
        } @else {
            div .scroll { svg .tokens viewBox={ "0 0 " (width) " 156" } width=(width) height="156" role="img" aria-label="Tokens by iteration" {
                @for (part, y) in [(1, 10), (2, 10 + HEIGHT / 2)] {
                    line .rule x1=(SCALE) x2=(width) y1=(y) y2=(y) {}
                    text .scale x=(SCALE - 6) y=(y + 4) { (count(most / part)) }
                }
                line .rule x1=(SCALE) x2=(width) y1=(10 + HEIGHT) y2=(10 + HEIGHT) {}
                @for (index, iteration) in drawn.iter().enumerate() {
                    @let x = SCALE + 5 + BAR * index as u64;
                    @let told: Vec<String> = parts(iteration).iter().filter(|part| part.2 > 0).map(|part| format!("{} {}", count(part.2), part.1)).collect();
                    g {
                        title { "iteration " (iteration.iteration) ": " (told.join(", ")) }
                        @let mut top = 10.0 + HEIGHT as f64;
                        @for (class, _, tokens) in parts(iteration) {
                            @if tokens > 0 {
                                @let high = height(tokens);
                                ({ top -= high; "" })
                                rect class=(class) x=(x) y={ (format!("{top:.1}")) } width=(BAR - 8) height=(format!("{high:.1}")) {}
                            }
                        }
                        text .label x=(x + (BAR - 8) / 2) y=(HEIGHT + 26) { (iteration.iteration) }
                    }
                }
            } }
            ul .legend {
                li .cache-read { "from the cache" } li .input { "read" } li .cache-write { "into the cache" } li .output { "written" }
            }
        }
    }
}
