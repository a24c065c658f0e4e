//! A server of a temporary ledger, and a client as small as HTTP allows.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use runledger_testkit::TempLedger;
use runledger_web::{Options, Server, Token};

/// The token of every server here.
pub(crate) const TOKEN: &str = "a-token-of-the-tests";

/// A running server, which ends with its test.
pub(crate) struct Served {
    pub(crate) ledger: TempLedger,
    pub(crate) address: SocketAddr,
    end: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::with(|options| options)
    }

    pub(crate) fn with(change: impl FnOnce(Options) -> Options) -> Self {
        let ledger = TempLedger::new();
        let options = Options::new(&ledger.path).port(0).token(Token::parse(TOKEN).unwrap());
        let server = Server::bind(change(options)).unwrap();
        let address = server.address();
        let (end, ended) = channel::<()>();
        let thread = std::thread::spawn(move || server.serve_until(move || _ = ended.recv()).unwrap());
        Self { ledger, address, end, thread: Some(thread) }
    }

    /// Sends a request with these lines in its head; gives the connection, to read the answer from.
    pub(crate) fn send(&self, method: &str, path: &str, lines: &[&str], body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !lines.iter().any(|line| line.starts_with("host:")) {
            head.push_str(&format!("host: {}\r\n", self.address));
        }
        for line in lines {
            head.push_str(&format!("{line}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    pub(crate) fn ask(&self, method: &str, path: &str, lines: &[&str], body: &str) -> Answer {
        let mut lines = lines.to_vec();
        lines.push("connection: close");
        let mut text = String::new();
        self.send(method, path, &lines, body).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// As a program that has the token.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[&bearer()], "")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[&bearer(), "content-type: application/json"], body)
    }

    /// One figure of `/metrics`.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let text = self.get("/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("runledger_{name} "))).map(str::parse);
        line.unwrap_or_else(|| panic!("{name}: {text}")).unwrap()
    }

    /// Follows events from an address on.
    pub(crate) fn follow(&self, path: &str, last: Option<u64>) -> Following {
        let last = last.map(|last| format!("last-event-id: {last}"));
        let bearer = bearer();
        let lines: Vec<&str> =
            ["accept: text/event-stream", bearer.as_str()].into_iter().chain(last.as_deref()).collect();
        let mut stream = BufReader::with_capacity(64 << 10, self.send("GET", path, &lines, ""));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        Following { stream, text: String::new() }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        _ = self.end.send(());
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

pub(crate) fn bearer() -> String {
    format!("authorization: Bearer {TOKEN}")
}

/// A stream of events.
pub(crate) struct Following {
    stream: BufReader<TcpStream>,
    text: String,
}

/// One event of it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) id: u64,
    pub(crate) event: Option<String>,
    pub(crate) data: String,
}

impl Following {
    /// The next event; none where the stream has ended.
    pub(crate) fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let frame: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
                };
                if let (Some(id), Some(data)) = (field("id"), field("data")) {
                    return Some(Told { id: id.parse().unwrap(), event: field("event"), data });
                }
                continue;
            }
            // One piece of the body: its length in hexadecimal, then it.
            let mut length = String::new();
            self.stream.read_line(&mut length).unwrap();
            let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
            if length == 0 {
                return None;
            }
            let mut piece = vec![0; length + 2];
            self.stream.read_exact(&mut piece).unwrap();
            piece.truncate(length);
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }
}
