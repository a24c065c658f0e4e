//! `serve`: the ledger in a browser.

use std::net::IpAddr;

use clap::Args;
use runledger_store::LogReader;
use runledger_web::{Options, ServeError, Server, Token};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::commands::status::aside;
use crate::exit_code::{CouldNotStart, Exit, Usage};
use crate::ledger::LedgerArg;
use crate::output::{Output, is_watched, message};
use crate::spools::Spools;

/// Show the ledger in a browser
///
/// Pages of runs, of what waits for a decision, and of how the ledger stands, live; and the same objects as --json below
/// /api/v1. Only this machine is answered unless --listen says otherwise, and only who has the token that is in the printed
/// address.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger serve --open
  runledger serve --port 0 --read-only
  RUNLEDGER_TOKEN=$(openssl rand -hex 24) runledger serve --listen 0.0.0.0 --host build-7.example

It serves until it is interrupted; exit status 0 then, 3 when it could not begin")]
pub(crate) struct Serve {
    /// The port; 0 for any that is free
    #[arg(long, value_name = "N", default_value_t = 4848)]
    port: u16,
    /// Open the page in a browser
    #[arg(long)]
    open: bool,
    /// Open no write half at all: nothing can be decided, cancelled or forked
    #[arg(long)]
    read_only: bool,
    /// The address of this machine to listen on; others than 127.0.0.1 let other machines ask too
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// A name under which browsers reach it, beside localhost; several times for several
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    host: Vec<String>,
}

/// A name or an address as browsers have it in front of the port.
fn host_name(text: &str) -> Result<String, String> {
    let is_name = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    let v6 = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match !text.is_empty()
        && (text.chars().all(is_name) || v6.is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()))
    {
        true => Ok(text.to_owned()),
        false => {
            Err("a name is letters, digits, dots and dashes, an IPv6 address stands in brackets; the port is --port"
                .to_owned())
        }
    }
}

#[derive(Serialize)]
struct ServeObject {
    /// The address to open, with the token.
    url: String,
    address: String,
    read_only: bool,
}

impl Serve {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let reader: LogReader = ledger.open_for_reading()?;
        let path = reader.path().to_owned();
        drop(reader);
        let mut options = Options::new(&path).port(self.port).listen(self.listen);
        let beside = path.clone();
        options = options.aside(move || aside(&beside));
        for host in &self.host {
            options = options.name(host);
        }
        if let Some(token) = std::env::var("RUNLEDGER_TOKEN").ok().filter(|token| !token.is_empty()) {
            options = options.token(Token::parse(&token).map_err(|error| Usage(format!("RUNLEDGER_TOKEN: {error}")))?);
        }
        if !self.read_only
            && let Some(log) = ledger.log_on_nats()?
        {
            options = options.log(log);
        }
        options = match self.read_only {
            true => options.read_only(),
            false => options.housekeeping(move |log| Spools::of(log.path()).take_in_all(log)),
        };
        let server = Server::bind(options).map_err(in_words)?;
        let url = server.url();
        if output.is_json() {
            let address = server.address().to_string();
            output.json(&ServeObject { url: url.clone(), address, read_only: self.read_only })?;
        } else {
            output.line(&url)?;
            if is_watched() {
                message("open this address; Ctrl-C ends it");
            }
        }
        if !self.listen.is_loopback() && self.host.is_empty() {
            message(&match self.listen.is_unspecified() {
                true => {
                    "only this machine is answered yet: --host NAME adds the name or address by which others reach it"
                        .to_owned()
                }
                false => format!("others are answered at {} alone; --host NAME adds a name of it", server.address()),
            });
        }
        output.flush()?;
        // From here on a signal ends it in order.
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        if self.open
            && let Err(error) = open(&url)
        {
            message(&format!("no browser could be opened: {error}; open the address yourself"));
        }
        server.serve_until(move || _ = signals.forever().next()).map_err(in_words)?;
        Ok(Exit::Done)
    }
}

fn in_words(error: ServeError) -> anyhow::Error {
    match error {
        ServeError::Listen { .. } | ServeError::Random(_) => CouldNotStart(error.to_string()).into(),
        ServeError::Open(error) => error.into(),
        ServeError::System(_) => error.into(),
    }
}

/// Opens an address in the user's browser, as the system does it.
fn open(url: &str) -> std::io::Result<()> {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let browser = std::env::var_os("BROWSER").filter(|browser| !browser.is_empty());
    let program = browser.unwrap_or_else(|| program.into());
    let null = std::process::Stdio::null;
    let mut child = std::process::Command::new(program).arg(url).stdin(null()).stdout(null()).stderr(null()).spawn()?;
    // It is waited for, so that it does not stay as a zombie; what it answers is its own.
    std::thread::Builder::new().name("runledger-browser".to_owned()).spawn(move || _ = child.wait())?;
    Ok(())
}
