//! What pages load: the style, the script and the mark, all from within the program.

use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};

use crate::failure::Failure;

/// Name, type and content.
const ASSETS: [(&str, &str, &str); 3] = [
    ("app.css", "text/css; charset=utf-8", include_str!("../assets/app.css")),
    ("app.js", "text/javascript; charset=utf-8", include_str!("../assets/app.js")),
    ("mark.svg", "image/svg+xml", include_str!("../assets/mark.svg")),
];

/// The address of an asset; with the program's version, so that a newer program's is loaded anew.
macro_rules! asset {
    ($name:literal) => {
        concat!("/assets/", $name, "?", env!("CARGO_PKG_VERSION"))
    };
}
pub(crate) use asset;

pub(crate) async fn serve(axum::extract::Path(name): axum::extract::Path<String>) -> Result<Response, Failure> {
    let found = ASSETS.iter().find(|(known, ..)| *known == name);
    let (_, kind, content) =
        found.ok_or_else(|| Failure::not_found(format!("there is no asset {name}"), "reload the page"))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    Ok((headers, *content).into_response())
}
