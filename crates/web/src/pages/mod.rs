//! The pages, one a file, and what stands around each of them.

pub(crate) mod decision;
pub(crate) mod event;
pub(crate) mod failure;
pub(crate) mod feed;
pub(crate) mod health;
pub(crate) mod live;
pub(crate) mod permissions;
pub(crate) mod run;
pub(crate) mod runs;
mod state_machine;
mod timeline;
mod token_chart;
mod tracker;

use maud::{DOCTYPE, Markup, html};

use crate::assets::asset;
use crate::failure::Failure;
use crate::server::App;

/// Bytes of words to look for, at the most; SQLite takes no longer pattern than 50,000.
const WORDS_BYTES_MAX: usize = 2000;

/// The parts of the site, as the head of each page names them.
const PARTS: [(&str, &str); 3] = [("/", "Runs"), ("/permissions", "Permissions"), ("/health", "Health")];

/// Words to look for: none where nothing but blanks is there.
pub(crate) fn given(words: &str) -> Result<Option<String>, Failure> {
    match words.trim() {
        "" => Ok(None),
        words if words.len() > WORDS_BYTES_MAX => {
            let error = format!("words to look for are {} bytes long", words.len());
            Err(Failure::bad_request(error, format!("say it in {WORDS_BYTES_MAX}")))
        }
        words => Ok(Some(words.to_owned())),
    }
}

/// A whole page: `part` is the address of the part that it belongs to. What stands in an element with `data-live` is drawn anew
/// when something new is in the ledger.
pub(crate) fn page(app: &App, title: &str, part: &str, main: &Markup) -> Markup {
    crate::show::harmless(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · runledger" }
                link rel="icon" href=(asset!("mark.svg"));
                link rel="stylesheet" href=(asset!("app.css"));
                script src=(asset!("app.js")) defer {}
            }
            body {
                a .skip href="#main" { "Skip to the content" }
                header .top {
                    a .name href="/" { img src=(asset!("mark.svg")) alt="" width="20" height="20"; "runledger" }
                    nav aria-label="Parts" {
                        @for (address, name) in PARTS {
                            a href=(address) aria-current=[(address == part).then_some("page")] { (name) }
                        }
                    }
                    @let path = app.ledger.path().display().to_string();
                    span .ledger title=(path) { (app.ledger.path().file_name().map(|name| name.to_string_lossy()).unwrap_or_default()) }
                    @if app.ledger.is_read_only() { span .mark.quiet { "read only" } }
                    output #live .live aria-live="polite" title="Whether this page follows the ledger" {}
                }
                main #main tabindex="-1" { (main) }
            }
        }
    })
}
