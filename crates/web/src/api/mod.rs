//! `/api/v1`: the objects of the program's `--json`, read and act; each way to ask stands beside its description.
//!
//! | part | what it is |
//! | --- | --- |
//! | `asking` | what a request brings along, who may act, and the bounds of both |
//! | `reads`, `acts` | what is answered and done |
//! | `lists` | what lists look like |
//! | `description` | OpenAPI 3.1, out of the types of all of these |
//!
//! Errors are `{error, next}`. Words that an address does not know are refused, so that a filter that is misspelt does not
//! look like one that everything fits.

mod acts;
mod asking;
mod description;
mod lists;
mod reads;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{self, HeaderMap};
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::server::App;
use crate::stream;
use asking::{Act, Asking, Name, Words, answer};
use description::Operation;
pub(crate) use lists::UnreadableEvent;
pub(crate) use reads::EventsAsked;

/// Where it is.
const ROOT: &str = "/api/v1";

/// The interface, as it is put together: each address with its description.
#[derive(Default)]
struct Interface {
    router: Router<Arc<App>>,
    operations: Vec<Operation>,
}

/// What answers.
type Answer<A, T> = fn(&Asking<'_, A>) -> Result<T, Failure>;

impl Interface {
    fn get<A, T>(mut self, path: &'static str, id: &'static str, about: &'static str, by: Answer<A, T>) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        T: Serialize + JsonSchema + 'static,
    {
        let handler = move |State(app): State<Arc<App>>, Name(name): Name, Words(asked): Words<A>| async move {
            answer(app, name, asked, by).await
        };
        self.router = self.router.route(path, get(handler));
        self.operations.push(Operation::get::<A, T>(path, id, about));
        self
    }

    fn post<A, T>(mut self, path: &'static str, id: &'static str, about: &'static str, by: Answer<A, T>) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        T: Serialize + JsonSchema + 'static,
    {
        let handler = move |State(app): State<Arc<App>>, Name(name): Name, Act(asked): Act<A>| async move {
            answer(app, name, asked, by).await
        };
        self.router = self.router.route(path, post(handler));
        self.operations.push(Operation::post::<A, T>(path, id, about));
        self
    }

    /// Events, as a page or as a stream: as it is accepted.
    fn events(mut self) -> Self {
        let about = "Events of the log; with `Accept: text/event-stream` those that come, too";
        self.router = self.router.route("/events", get(events));
        self.operations.push(Operation::get::<EventsAsked, lists::Events>("/events", "listEvents", about).or_stream());
        self
    }

    fn all() -> Self {
        Self::default()
            .get("/runs", "listRuns", "Runs, the newest first", reads::runs)
            .get("/runs/{id}", "getRun", "One run with its iterations, now or as of a position", reads::run)
            .get("/runs/{id}/feed", "getRunFeed", "The feed of one run", reads::run_feed)
            .get("/feed", "getFeed", "The feed: prompts, messages, tools, permissions, runs", reads::feed)
            .get("/sessions", "listSessions", "Sessions, those with the latest event first", reads::sessions)
            .get("/sessions/{id}", "getSession", "One session", reads::session)
            .events()
            .get("/events/{position}", "getEvent", "One event, whole", reads::event)
            .get("/permissions", "listPermissions", "Permission requests, the newest first", reads::permissions)
            .get("/permissions/{name}", "getPermission", "One request in its workflow context", reads::permission)
            .get("/status", "getStatus", "Head, checkpoints, lag, sizes and versions", reads::status)
            .get("/projections", "listProjections", "How the read models stand", reads::read_models)
            .get("/jobs", "listJobs", "Long work since the server began, the newest first", reads::jobs)
            .get("/jobs/{id}", "getJob", "One job, and how far it is", reads::job)
            .post("/projections/rebuild", "rebuild", "Build read models again, as a job", acts::rebuild)
            .post("/verify", "verify", "Check the log and every read model, as a job", acts::verify)
            .post("/permissions/{name}/decision", "decide", "Allow, answer or deny a request", acts::decide)
            .post("/runs/{id}/cancel", "cancelRun", "End a run and the runs within it", acts::cancel)
            .post("/runs/{id}/signal", "signalRun", "Tell a run something", acts::signal)
            .post("/runs/{id}/fork", "forkRun", "Begin a new run where this one stood", acts::fork)
    }
}

async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Words(asked): Words<EventsAsked>,
) -> Result<Response, Failure> {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accepts.is_some_and(|accept| accept.to_ascii_lowercase().contains("text/event-stream")) {
        return stream::serve(app, &headers, asked).await;
    }
    answer(app, String::new(), asked, reads::events).await
}

/// The addresses below `/api/v1`.
pub(crate) fn routes() -> Router<Arc<App>> {
    let Interface { router, operations } = Interface::all();
    let description = Arc::new(description::describe(&operations));
    let described = move || async move { axum::Json(description.as_ref().clone()) };
    let router = router.route("/openapi.json", get(described)).method_not_allowed_fallback(unfit_method);
    Router::new().nest(ROOT, router)
}

async fn unfit_method(method: Method, uri: Uri) -> Failure {
    let error = format!("{method} does not fit {}", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, error, "/api/v1/openapi.json lists what does")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_the_one_that_was_released() {
        let description = description::describe(&Interface::all().operations);
        // A line for each address and each object, so that a change shows where it is.
        let mut lines = Vec::new();
        for (name, part) in description.as_object().into_iter().flatten() {
            match (name.as_str(), part.as_object()) {
                ("paths" | "components", Some(parts)) => {
                    let inner = parts.iter().flat_map(|(path, part)| {
                        let parts = part.as_object().into_iter().flatten();
                        parts.map(move |(name, part)| format!("{path} {name} {part}"))
                    });
                    lines.extend(inner);
                }
                _ => lines.push(format!("{name} {part}")),
            }
        }
        insta::assert_snapshot!(lines.join("\n"));
    }
}
