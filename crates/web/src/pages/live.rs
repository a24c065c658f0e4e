//! What tells a page that something new is in the ledger: positions, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};

use crate::server::App;

/// How often something is sent while nothing happens, so that a connection that broke is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The position that every read model has applied, whenever it grows. A page that is slow gets the newest one alone.
pub(crate) async fn serve(State(app): State<Arc<App>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let positions = WatchStream::new(app.applied.clone()).map(|position| Some(position.to_string()));
    let ends = WatchStream::new(app.ends.clone()).filter(|ends| *ends).map(|_| None);
    let stream = positions.merge(ends).map_while(|position| position.map(|text| Ok(Event::default().data(text))));
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
