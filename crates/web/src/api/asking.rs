//! What a request of the interface brings along: the words of its address, its JSON, and the right to act; and its answer.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use runledger_events::Position;
use runledger_projections::{Iteration, Run};
use runledger_store::LogReader;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::ledger::Opened;
use crate::pages::run::one_run;
use crate::server::App;

/// Items of a list, at the most.
pub(crate) const LIMIT_MAX: u64 = 1000;
/// Bytes of JSON that is taken.
const BODY_BYTES_MAX: usize = 64 << 10;
/// The header that says the word which our own pages know.
const FORM_WORD: &str = "x-form-word";

/// One question, or one act, on the ledger as it is now.
pub(crate) struct Asking<'a, A> {
    pub(crate) app: &'a App,
    pub(crate) opened: &'a Opened,
    /// The name in the path; empty where it has none.
    pub(crate) name: &'a str,
    /// The words behind the path, or the JSON.
    pub(crate) asked: A,
}

/// Answers by a function, on a thread that may wait for the disk.
pub(crate) async fn answer<A: Send + 'static, T: Serialize + 'static>(
    app: Arc<App>,
    name: String,
    asked: A,
    answer: fn(&Asking<'_, A>) -> Result<T, Failure>,
) -> Result<Response, Failure> {
    let of = app.clone();
    let json = app.ledger.ask(move |opened| {
        let answer = answer(&Asking { app: &of, opened, name: &name, asked })?;
        serde_json::to_vec(&answer).map_err(|error| {
            let next = "`runledger verify` says what is wrong with it";
            Failure::unavailable(format!("what is stored is no JSON: {error}")).with_next(next)
        })
    });
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((headers, Bytes::from(json.await?)).into_response())
}

/// The name in the path.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let unfit = || Failure::bad_request("the path is no text", "write it as UTF-8, in percent signs where needed");
        let names = RawPathParams::from_request_parts(parts, state).await.map_err(|_| unfit())?;
        let name = names.iter().next().map(|(_, name)| name.to_owned());
        Ok(Self(name.unwrap_or_default()))
    }
}

/// The words behind the path; those that nobody knows are refused.
pub(crate) struct Words<A>(pub(crate) A);

impl<A: DeserializeOwned> Words<A> {
    pub(crate) fn of(uri: &Uri) -> Result<Self, Failure> {
        serde_urlencoded::from_str(uri.query().unwrap_or_default()).map(Self).map_err(|error| {
            let next = "/api/v1/openapi.json lists what this address takes";
            Failure::bad_request(format!("the words behind the path do not fit: {error}"), next)
        })
    }
}

impl<S: Send + Sync, A: DeserializeOwned> FromRequestParts<S> for Words<A> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Self::of(&parts.uri)
    }
}

/// JSON of who may act: a program that sends the token, or a page of ours that says its word.
pub(crate) struct Act<A>(pub(crate) A);

impl<A: DeserializeOwned> FromRequest<Arc<App>> for Act<A> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        let headers = request.headers();
        let word = headers.get(FORM_WORD).and_then(|word| word.to_str().ok());
        if !app.guard.may_act(headers, word) {
            let next = "programs send `Authorization: Bearer TOKEN`, pages `x-form-word` beside the cookie";
            return Err(Failure::new(StatusCode::FORBIDDEN, "a cookie alone may not act", next));
        }
        if !is_json(headers) {
            let next = "send JSON, with `Content-Type: application/json`";
            return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "what was sent is not said to be JSON", next));
        }
        let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(|_| {
            let next = format!("send at most {BODY_BYTES_MAX} bytes");
            Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "what was sent is too long, or broke off", next)
        })?;
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            let next = "/api/v1/openapi.json describes what this address takes";
            Failure::bad_request(format!("the JSON does not fit: {error}"), next)
        })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// How many items at the most; 100 where nothing is said.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct Limit(u64);

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl Limit {
    pub(crate) fn get(self) -> Result<usize, Failure> {
        let limit =
            Some(self.0).filter(|limit| (1..=LIMIT_MAX).contains(limit)).and_then(|limit| limit.try_into().ok());
        limit.ok_or_else(|| {
            let next = format!("a limit is 1 to {LIMIT_MAX}; the answer says where the next page begins");
            Failure::bad_request(format!("{} is no limit", self.0), next)
        })
    }
}

impl JsonSchema for Limit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": 100 })
    }
}

/// A position that is in the log, or before its first event; and the log's head.
pub(crate) fn within(reader: &LogReader, position: Position) -> Result<Position, Failure> {
    let head = reader.head()?.position;
    if position > head { Err(crate::pages::event::outside(position, head)) } else { Ok(head) }
}

/// The one run of an id, or of its beginning.
pub(crate) fn run_of(opened: &Opened, id: &str) -> Result<(Run, Vec<Iteration>), Failure> {
    one_run(opened, id).map_err(|failure| known_elsewhere(failure, "/api/v1/runs lists them"))
}

/// What is not there is found by the interface's own list, and not by that of a page.
pub(crate) fn known_elsewhere(failure: Failure, next: &str) -> Failure {
    if failure.status == StatusCode::NOT_FOUND { failure.with_next(next) } else { failure }
}
