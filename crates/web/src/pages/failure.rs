//! The page of what went wrong.

use maud::{Markup, html};

use crate::failure::Failure;
use crate::server::App;

pub(crate) fn page(app: &App, failure: &Failure) -> Markup {
    let main = html! {
        section .failure {
            p .code { (failure.status.as_u16()) }
            h1 { (failure.error) }
            p { (failure.next) "." }
        }
    };
    super::page(app, &failure.error, "", &main)
}
