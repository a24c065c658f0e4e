//! `/metrics`: figures for Prometheus, in its text format. Answered also while the ledger cannot be read, which is a figure too.

use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};
use runledger_events::Position;

use crate::failure::Failure;
use crate::ledger::Opened;
use crate::objects::{Checkpoint, checkpoints};
use crate::server::App;
use crate::stream;

/// Answers by the first figure of their status.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; 5]);

impl Counts {
    pub(crate) fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).checked_sub(1);
        if let Some(count) = class.and_then(|class| self.0.get(class)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the ledger says.
struct Found {
    head: Position,
    models: Vec<Checkpoint>,
    parked: usize,
    pending: u64,
}

fn look(opened: &Opened) -> Result<Found, Failure> {
    let models = opened.queries.status()?;
    let head = opened.read(|reader| Ok(reader.head()?.position))?;
    let (parked, pending) = (opened.queries.parked()?.len(), opened.queries.count_pending()?);
    Ok(Found { head, models: checkpoints(models, head), parked, pending })
}

pub(crate) async fn serve(State(app): State<Arc<App>>) -> Response {
    let found = app.ledger.ask(look).await;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text(&app, found.as_ref().ok())).into_response()
}

fn text(app: &App, found: Option<&Found>) -> String {
    let mut figures = Figures::default();
    figures.gauge("build_info", "The program's version", &[(&label("version", env!("CARGO_PKG_VERSION")), 1)]);
    figures.gauge("ledger_readable", "Whether the ledger can be read: 0 or 1", &[("", u8::from(found.is_some()))]);
    if let Some(found) = found {
        figures.gauge("log_head_position", "The last position of the log", &[("", found.head)]);
        let each = |figure: fn(&Checkpoint) -> Option<u64>| -> Vec<(String, u64)> {
            let models = found.models.iter();
            models.filter_map(|model| Some((label("projection", &model.projection), figure(model)?))).collect()
        };
        let about = "The last position that a read model has applied";
        figures.gauge("projection_position", about, &each(|model| model.position.map(|position| position.0)));
        let about = "Positions between a read model and the log's head";
        figures.gauge("projection_lag_positions", about, &each(|model| model.lag));
        let about = "Streams that read models leave out, because of an event that cannot be read";
        figures.gauge("projection_parked_streams", about, &[("", found.parked)]);
        let about = "Permission requests that wait for a decision";
        figures.gauge("permission_requests_pending", about, &[("", found.pending)]);
    }
    let (bytes, events) = app.hub.size();
    figures.gauge("event_stream_clients", "Clients that follow the log", &[("", app.hub.clients())]);
    figures.gauge("event_stream_clients_max", "Clients that may follow at once", &[("", stream::CLIENTS_MAX)]);
    figures.gauge("event_stream_ring_bytes", "Bytes of the newest events that clients share", &[("", bytes)]);
    figures.gauge("event_stream_ring_bytes_max", "Their bound", &[("", stream::RING_BYTES_MAX)]);
    figures.gauge("event_stream_ring_events", "The newest events that clients share", &[("", events)]);
    figures.gauge("event_stream_ring_events_max", "Their bound", &[("", stream::RING_EVENTS_MAX)]);
    let classes = (1..).zip(&app.counts.0);
    let classes: Vec<_> =
        classes.map(|(class, count)| (label("class", &format!("{class}xx")), count.load(Ordering::Relaxed))).collect();
    figures.counter("http_responses_total", "Requests that were answered, by the class of the status", &classes);
    figures.0
}

/// A label with its value.
fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{{name}=\"{value}\"}}")
}

/// The text, as it is put together.
#[derive(Default)]
struct Figures(String);

impl Figures {
    fn gauge(&mut self, name: &str, about: &str, samples: &[(impl AsRef<str>, impl Display)]) {
        self.add("gauge", name, about, samples);
    }

    fn counter(&mut self, name: &str, about: &str, samples: &[(impl AsRef<str>, impl Display)]) {
        self.add("counter", name, about, samples);
    }

    fn add(&mut self, kind: &str, name: &str, about: &str, samples: &[(impl AsRef<str>, impl Display)]) {
        // Writing to a text cannot fail.
        let _ = writeln!(self.0, "# HELP runledger_{name} {about}\n# TYPE runledger_{name} {kind}");
        for (label, value) in samples {
            let _ = writeln!(self.0, "runledger_{name}{} {value}", label.as_ref());
        }
    }
}
