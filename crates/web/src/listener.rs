//! A listener that takes so many connections at once: the next one waits in the system's queue until one ends. One on which
//! nothing is answered for long is ended, whatever trickles in, so that whoever only holds it keeps nobody out.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// The listener.
pub(crate) struct Limited {
    inner: TcpListener,
    places: Arc<Semaphore>,
    /// How long nothing may be answered.
    idle_max: Duration,
}

impl Limited {
    pub(crate) fn new(inner: TcpListener, connections_max: usize, idle_max: Duration) -> Self {
        Self { inner, places: Arc::new(Semaphore::new(connections_max)), idle_max }
    }
}

impl Listener for Limited {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        // The semaphore is never closed; were it, connections would go on without a limit.
        let place = self.places.clone().acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.inner).await;
        // What is sent are small pieces, each to be seen at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        let idle = Idle { max: self.idle_max, deadline: Box::pin(tokio::time::sleep(self.idle_max)) };
        (Held { stream, idle, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection, and the place that it holds.
pub(crate) struct Held {
    stream: TcpStream,
    idle: Idle,
    _place: Option<OwnedSemaphorePermit>,
}

/// Until when something has to be answered.
struct Idle {
    max: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Idle {
    /// What became of a try; an error where nothing has been answered for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, tried: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            let deadline = Instant::now() + self.max;
            self.deadline.as_mut().reset(deadline);
            return tried;
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_read(context, buffer);
        // What trickles in keeps no place: it is the answer that has to go on.
        if tried.is_ready() { tried } else { self.idle.watch(context, tried) }
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.idle.watch(context, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.idle.watch(context, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_connection_on_which_nothing_goes_gives_its_place_to_the_next_one() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inner = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = inner.local_addr().unwrap();
        let router = axum::Router::new().route("/", axum::routing::get(|| async { "here" }));
        let listener = Limited::new(inner, 1, Duration::from_millis(200));
        runtime.spawn(async move { axum::serve(listener, router).await });
        let mut silent = std::net::TcpStream::connect(address).unwrap();
        // A head that never ends, byte by byte.
        let mut trickling = silent.try_clone().unwrap();
        std::thread::spawn(move || {
            while trickling.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut next = std::net::TcpStream::connect(address).unwrap();
        next.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        next.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("here"), "{answer}");
        assert_eq!(silent.read(&mut [0; 8]).unwrap_or_default(), 0, "it was ended");
    }
}
