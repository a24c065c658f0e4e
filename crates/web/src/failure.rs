//! What goes wrong, as an answer: a status, what it is about, and what to do next; a page, or JSON below `/api`.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use runledger_projections::ProjectionError;
use runledger_store::{OpenError, ReadError, StorageError};
use schemars::JsonSchema;
use serde::Serialize;

/// Why there is no such answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Failure {
    #[serde(skip)]
    pub(crate) status: StatusCode,
    /// What is wrong.
    pub(crate) error: String,
    /// What to do next.
    pub(crate) next: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>, next: impl Into<String>) -> Self {
        Self { status, error: error.into(), next: next.into() }
    }

    pub(crate) fn not_found(error: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, next)
    }

    pub(crate) fn bad_request(error: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, next)
    }

    /// The same with other advice.
    pub(crate) fn with_next(self, next: impl Into<String>) -> Self {
        Self { next: next.into(), ..self }
    }

    /// What is refused before a page is asked: an address or a method that does not fit, with what was said of it.
    pub(crate) async fn of_refused(response: Response) -> Self {
        let status = response.status();
        let said = axum::body::to_bytes(response.into_body(), 4096).await.unwrap_or_default();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        let error = match said.is_empty() {
            true => status.canonical_reason().unwrap_or("that cannot be asked").to_lowercase(),
            false => said,
        };
        Self::new(status, error, "look at the address; the list of runs is at /")
    }

    /// The ledger cannot be read now.
    pub(crate) fn unavailable(error: impl std::fmt::Display) -> Self {
        let next = "the server goes on, and answers again once the ledger is back; `runledger doctor` says more";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), next)
    }
}

impl From<ProjectionError> for Failure {
    fn from(error: ProjectionError) -> Self {
        Self::unavailable(error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::unavailable(error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::unavailable(error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::unavailable(error)
    }
}

impl IntoResponse for Failure {
    /// As JSON; pages are made of it by [`crate::guard`], which knows what was asked for.
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, axum::Json(&self)).into_response();
        response.extensions_mut().insert(self);
        response
    }
}
