//! The page of what went wrong.

use axum::http::Uri;
use maud::{DOCTYPE, Markup, html};

use crate::assets::asset;
use crate::failure::Failure;
use crate::guard::own_path;
use crate::server::App;
use crate::show;

/// The same for whoever is not let in; with a way in to the address that was asked for.
pub(crate) fn bare(failure: &Failure, asked: Option<&Uri>) -> Markup {
    crate::show::harmless(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (failure.error) " · runledger" }
                link rel="icon" href=(asset!("mark.svg"));
                link rel="stylesheet" href=(asset!("app.css"));
            }
            body { main { (words(failure)) @if let Some(asked) = asked { (door(asked)) } } }
        }
    })
}

/// Where the token is given. Browsers send no strict cookie along with a link from elsewhere, but with one of ours.
fn door(asked: &Uri) -> Markup {
    let path = own_path(asked);
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_str(asked.query().unwrap_or_default()).unwrap_or_default();
    let pairs: Vec<_> = pairs.iter().filter(|(name, _)| name != "token").collect();
    let parameters: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))).collect();
    html! {
        section .failure {
            p { "You have been here before? " a href=(show::address(&path, &parameters)) { "Go on to the page" } "." }
            form .door method="get" action=(path) {
                @for (name, value) in &pairs { input type="hidden" name=(name) value=(value); }
                label { "Token " input type="password" name="token" required autocomplete="current-password" size="32"; }
                button { "Enter" }
            }
        }
    }
}

pub(crate) fn page(app: &App, failure: &Failure) -> Markup {
    super::page(app, &failure.error, "", &words(failure))
}

pub(super) fn words(failure: &Failure) -> Markup {
    html! {
        section .failure {
            p .code { (failure.status.as_u16()) }
            h1 { (failure.error) }
            p { (failure.next) "." }
        }
    }
}
