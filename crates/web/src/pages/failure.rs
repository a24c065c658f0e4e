//! The page of what went wrong.

use maud::{DOCTYPE, Markup, html};

use crate::assets::asset;
use crate::failure::Failure;
use crate::server::App;

/// The same for whoever is not let in.
pub(crate) fn bare(failure: &Failure) -> Markup {
    crate::show::harmless(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (failure.error) " · runledger" }
                link rel="stylesheet" href=(asset!("app.css"));
            }
            body { main { (words(failure)) } }
        }
    })
}

pub(crate) fn page(app: &App, failure: &Failure) -> Markup {
    super::page(app, &failure.error, "", &words(failure))
}

fn words(failure: &Failure) -> Markup {
    html! {
        section .failure {
            p .code { (failure.status.as_u16()) }
            h1 { (failure.error) }
            p { (failure.next) "." }
        }
    }
}
