//! A ledger on JetStream where the tests of every log want one, and its copy where they look at the file.
#![allow(dead_code, reason = "each test uses a part")]

use std::path::PathBuf;
use std::sync::Arc;

use runledger_store::{EventLog, LogReader, LogReport};
use runledger_store_jetstream::{Address, JetStreamLog, Options};
use runledger_testkit::{new_address, shared_nats};

#[path = "../../../store/tests/support/mod.rs"]
mod every;

pub(crate) use every::{
    all, append_one, assert_dense, assert_verifies, belonging, id, json, prompt, prompt_with, stream,
};

/// A ledger of its own on the shared server, and a folder for its copy.
pub(crate) struct Place {
    sqlite: every::Place,
    address: Option<Address>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let address = shared_nats().map(|servers| new_address(servers, 1).parse().unwrap());
        Self { sqlite: every::Place::new(), address }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.sqlite.path()
    }

    /// Another handle, with a connection of its own.
    pub(crate) fn shared(&self) -> Arc<dyn EventLog> {
        match &self.address {
            Some(address) => Arc::new(JetStreamLog::open(address, self.sqlite.folder(), &Options::default()).unwrap()),
            None => self.sqlite.shared(),
        }
    }

    pub(crate) fn reader(&self) -> LogReader {
        self.sqlite.reader()
    }

    pub(crate) fn sqlite(&self) -> rusqlite::Connection {
        self.sqlite.sqlite()
    }

    pub(crate) fn verify(&self) -> LogReport {
        self.sqlite.verify()
    }
}
