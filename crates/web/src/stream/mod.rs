//! Events as they come, to any number of clients: server-sent events, resumable by position.
//!
//! | part | what it is |
//! | --- | --- |
//! | `ring` | the newest events as they are sent, shared by all |
//! | `hub` | the thread that reads each batch once and puts it there |
//! | here | what one client gets |
//!
//! Invariants: a client walks by positions, so it misses none and gets none twice, however slow it is. It holds one piece of
//! text, and the next one waits until that is taken: who is stuck keeps nobody from going on. What is not in the ring any
//! more is read out of the log, by two clients at a time, so that pages find room between them.

mod hub;
mod ring;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use runledger_events::{LogId, Position};
use runledger_store::{EventFilter, Read};
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::api::EventsAsked;
use crate::failure::Failure;
use crate::pages::event::{outside, position_of};
use crate::server::App;
use hub::Place;
pub(crate) use hub::{Hub, Reading};
use ring::{Next, chunks};
pub(crate) use ring::{RING_BYTES_MAX, RING_EVENTS_MAX};

/// Clients that follow at once, at the most; the other connections are for pages.
pub(crate) const CLIENTS_MAX: usize = 256;
/// How often something is sent while nothing happens, so that a connection that broke is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client waits while the ledger cannot be read.
const RETRY: Duration = Duration::from_secs(1);
/// Events that a client reads by itself at once, at the most.
const READ_MAX: usize = 128;
/// How long a client that reads by a filter rests between two reads.
const REST: Duration = Duration::from_millis(50);

/// What a client is to get.
struct Client {
    app: Arc<App>,
    filter: EventFilter,
    log_id: LogId,
    /// It has all up to here.
    at: Position,
    /// How many it reads at once: as many as went into one piece last time, twice.
    read: usize,
    sender: Sender<Bytes>,
    _place: Place,
}

/// Why a stream ends.
struct Over;

/// Begins a stream behind `Last-Event-ID`, or behind `after`, or at the log's beginning.
pub(crate) async fn serve(app: Arc<App>, headers: &HeaderMap, asked: EventsAsked) -> Result<Response, Failure> {
    let last = headers.get("last-event-id").map(|last| last.to_str().unwrap_or("what is no text"));
    let at = match last.filter(|last| !last.is_empty()) {
        Some(last) => position_of(last)?,
        None => asked.after.unwrap_or(Position::START),
    };
    let place = Hub::enter(&app.hub).ok_or_else(|| {
        let error = format!("{CLIENTS_MAX} clients follow already");
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, error, "try again later, or ask for pages of events")
    })?;
    let begun = app.ledger.ask(move |opened| {
        let filter = asked.filter(opened)?;
        opened.read(|reader| {
            let head = reader.head()?.position;
            if at > head { Err(outside(at, head)) } else { Ok((filter, reader.log_id().clone())) }
        })
    });
    let (filter, log_id) = begun.await?;
    let (sender, pieces) = mpsc::channel(1);
    let client = Client { app, filter, log_id, at, read: READ_MAX, sender, _place: place };
    tokio::spawn(client.follow());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let body = Body::from_stream(ReceiverStream::new(pieces).map(Ok::<_, Infallible>));
    Ok((headers, body).into_response())
}

impl Client {
    async fn follow(mut self) {
        let mut ends = self.app.ends.clone();
        tokio::select! {
            Err(Over) = self.run() => {}
            // Who is slow to take its piece does not keep the server from its end.
            _ = ends.wait_for(|ends| *ends) => {}
        }
    }

    /// Never well: a stream ends when its client goes, or its log does.
    async fn run(&mut self) -> Result<Infallible, Over> {
        let mut told = self.app.hub.told();
        let mut file = None;
        self.send(Bytes::from_static(b"retry: 1000\n\n")).await?;
        loop {
            let newest = told.borrow_and_update().clone();
            if let Some(told) = &newest
                && (told.log_id != self.log_id || *file.get_or_insert(told.file) != told.file)
            {
                // Another ledger lies in its place: its positions are not those of this one.
                return Err(Over);
            }
            match newest {
                Some(told) if told.to > self.at => self.catch_up(told.to).await?,
                _ => {
                    let changed = tokio::select! {
                        changed = tokio::time::timeout(KEEP_ALIVE, told.changed()) => changed,
                        () = self.sender.closed() => return Err(Over),
                    };
                    match changed {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Err(Over),
                        Err(_) => self.send(Bytes::from_static(b":\n\n")).await?,
                    }
                }
            }
        }
    }

    /// Sends all up to a position that was told.
    async fn catch_up(&mut self, to: Position) -> Result<(), Over> {
        if self.filter != EventFilter::default() {
            while self.at < to {
                self.send_from_log(to).await?;
            }
            tokio::time::sleep(REST).await;
            return Ok(());
        }
        while self.at < to {
            match self.app.hub.next(self.at) {
                Next::Chunk(chunk) => {
                    self.send(chunk.behind(self.at)).await?;
                    self.at = chunk.to;
                }
                Next::Older(begins) => self.send_from_log(begins).await?,
                // The ring was begun anew; what is in it by then is told.
                Next::Nothing => {
                    tokio::time::sleep(REST).await;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads what follows, at most up to a position, and sends one piece of it.
    async fn send_from_log(&mut self, to: Position) -> Result<(), Over> {
        let (filter, log_id, at, read) = (self.filter.clone(), self.log_id.clone(), self.at, self.read);
        let turn = self.app.hub.turn().await.ok_or(Over)?;
        let found = self.app.ledger.ask(move |opened| {
            opened.read(|reader| {
                if *reader.log_id() != log_id {
                    return Ok(None);
                }
                let batch = reader.read_readable(&filter, at, to, read, Read::All)?;
                Ok(Some(chunks(&batch, at).into_iter().next()))
            })
        });
        let found = found.await;
        drop(turn);
        match found {
            Ok(Some(Some(chunk))) => {
                self.read = (2 * chunk.events()).clamp(1, READ_MAX);
                self.send(chunk.behind(self.at)).await?;
                self.at = chunk.to;
                Ok(())
            }
            // The log is shorter than it was told: that is noticed in a moment.
            Ok(Some(None)) => {
                tokio::time::sleep(REST).await;
                Ok(())
            }
            Ok(None) => Err(Over),
            Err(failure) => {
                tracing::debug!(error = failure.error, "a client that follows waits for the ledger");
                self.send(Bytes::from_static(b": the ledger cannot be read now\n\n")).await?;
                tokio::time::sleep(RETRY).await;
                Ok(())
            }
        }
    }

    /// Sends a piece, as soon as the one before it is taken.
    async fn send(&self, piece: Bytes) -> Result<(), Over> {
        if piece.is_empty() { Ok(()) } else { self.sender.send(piece).await.map_err(|_| Over) }
    }
}
