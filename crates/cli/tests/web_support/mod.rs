//! What the tests of `serve` need: the server as a process of its own, and a client that says just what it is told to.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test uses a part, and may fail loudly")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Ran, Room, Running, wait_for_line, wait_until};

/// How long an answer may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program that serves a room's ledger; it ends with this value.
pub(crate) struct Serving {
    running: Running,
    /// The address to open, with the token.
    pub(crate) url: String,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    pub(crate) token: String,
}

impl Serving {
    /// Starts it on a port that is free.
    pub(crate) fn start(room: &Room, options: &[&str]) -> Self {
        let mut command = room.command(["serve", "--port", "0"]);
        command.args(options);
        Self::by(command, &room.path("address"))
    }

    /// Starts it by this command, whose words are kept in a file.
    pub(crate) fn by(mut command: Command, out: &Path) -> Self {
        _ = std::fs::remove_file(out);
        command.stdout(std::fs::File::create(out).unwrap());
        let running = Running::start_without_stdout(&mut command);
        let url = wait_for_line(out);
        let (address, token) = url.strip_prefix("http://").unwrap().split_once("/?token=").unwrap();
        Self { running, address: address.to_owned(), token: token.to_owned(), url }
    }

    /// A request in any words of one's own.
    pub(crate) fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let answer = ask(&self.address, method, target, headers, body);
        answer.has_the_headers_of_every_answer();
        answer
    }

    /// What somebody with the token gets to see in a browser.
    pub(crate) fn page(&self, target: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        self.ask("GET", target, &[("Accept", "text/html"), ("Authorization", &bearer)], "")
    }

    /// A page that has to be there.
    pub(crate) fn good_page(&self, target: &str) -> String {
        let answer = self.page(target);
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        answer.body
    }

    /// The cookie of somebody who brought the token.
    pub(crate) fn cookie(&self) -> String {
        let answer = self.ask("GET", &format!("/?token={}", self.token), &[], "");
        answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }

    /// A form from a page that was opened with this cookie.
    pub(crate) fn form(&self, cookie: &str, target: &str, form: &str) -> Answer {
        let origin = format!("http://{}", self.address);
        let headers = [
            ("Cookie", cookie),
            ("Origin", &origin),
            ("Accept", "text/html"),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        self.ask("POST", target, &headers, form)
    }

    /// Asks it to end, and gives how it did.
    pub(crate) fn end(self) -> Ran {
        self.running.signal(Signal::TERM);
        self.running.wait()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.ask("GET", "/healthz", &[], "").status == 200
    }
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// What keeps strangers' scripts, frames and caches away.
    fn has_the_headers_of_every_answer(&self) {
        let policy = self.header("content-security-policy").unwrap_or_else(|| panic!("no policy: {self:?}"));
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(self.header(name), Some(value), "{name}: {self:?}");
        }
        assert!(self.header("access-control-allow-origin").is_none(), "{self:?}");
        assert!(self.header("cache-control").is_some_and(|value| value.starts_with("no-")), "{self:?}");
    }

    /// The page of a form that was refused, filled in as it was sent.
    pub(crate) fn is_refused(&self, status: u16, words: &str) -> &str {
        assert_eq!(self.status, status, "{self:?}");
        let (_, banner) = self.body.split_once("role=\"alert\">").unwrap_or_else(|| panic!("{self:?}"));
        let banner = banner.split("</p>").next().unwrap();
        assert!(banner.contains(words), "{words:?} is not in {banner:?}");
        &self.body
    }

    /// A page that says what is wrong, and what to do next.
    pub(crate) fn is_a_page_of(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{self:?}");
        let (_, failure) = self.body.split_once("class=\"failure\"").unwrap_or_else(|| panic!("{self:?}"));
        let (_, wrong) = failure.split_once("<h1>").unwrap();
        let (wrong, next) = wrong.split_once("</h1>").unwrap();
        assert!(wrong.contains(words), "{words:?} is not in {wrong:?}");
        let next = next.trim_start_matches("<p>").split("</p>").next().unwrap();
        assert!(next.len() > 5, "nothing to do next: {}", self.body);
    }
}

/// Asks whoever listens there, on a connection of its own.
pub(crate) fn ask(address: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = connect(address);
    let has = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut text = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
    if !has("host") {
        text.push_str(&format!("Host: {address}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    // Who is refused early may not read it all.
    _ = stream.write_all(format!("{text}\r\n{body}").as_bytes());
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 << 10]);
    while !is_whole(&bytes, method) {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
            _ => break,
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {target}: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
    Answer { status, headers, body: body.to_owned() }
}

/// Whether an answer has all the bytes that it says it has; not each server ends the connection then.
fn is_whole(bytes: &[u8], method: &str) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    length.is_some_and(|length: usize| method == "HEAD" || bytes.len() >= end + 4 + length)
}

pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Follows the ledger, on a connection that stays; what it is told can be read from it.
pub(crate) fn follow(serving: &Serving) -> TcpStream {
    let mut stream = connect(&serving.address);
    let request =
        format!("GET /live HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n", serving.address, serving.token);
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Reads from a connection until something holds of all that came.
pub(crate) fn read_until(stream: &mut TcpStream, what: &str, holds: impl Fn(&str) -> bool) {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    wait_until(what, || {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "it ended before {what}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        holds(&text)
    });
}

/// The word that a page's forms say.
pub(crate) fn form_word(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form_word\" value=\"").unwrap_or_else(|| panic!("no form: {page}"));
    rest.split('"').next().unwrap().to_owned()
}
