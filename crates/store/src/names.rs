//! The names that rows share, each made once: streams by their key, and the adapter session that was read last.

use std::collections::HashMap;
use std::sync::Arc;

use runledger_events::{AdapterSessionId, IdError, RunId, SessionId, StreamName};

/// Stream names kept; they never change, so a kept one is never wrong.
const STREAMS_MAX: usize = 100_000;

/// A stream's name, and what it is the stream of.
#[derive(Debug)]
pub(crate) struct NamedStream {
    pub(crate) name: StreamName,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) run_id: Option<RunId>,
}

impl NamedStream {
    pub(crate) fn new(name: StreamName) -> Self {
        Self { session_id: name.session_id(), run_id: name.run_id(), name }
    }
}

/// What one reader has read of them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    streams: HashMap<i64, Arc<NamedStream>>,
    /// Neighbours in the log are mostly of one stream.
    last: Option<(i64, Arc<NamedStream>)>,
    last_adapter: Option<AdapterSessionId>,
}

impl Names {
    /// The stream with this key, where it is kept.
    pub(crate) fn stream(&mut self, key: i64) -> Option<Arc<NamedStream>> {
        match &self.last {
            Some((last, stream)) if *last == key => Some(stream.clone()),
            _ => {
                let stream = self.streams.get(&key)?.clone();
                self.last = Some((key, stream.clone()));
                Some(stream)
            }
        }
    }

    /// Keeps a stream.
    pub(crate) fn keep(&mut self, key: i64, stream: NamedStream) -> Arc<NamedStream> {
        if self.streams.len() >= STREAMS_MAX {
            self.streams.clear();
        }
        let stream = Arc::new(stream);
        self.streams.insert(key, stream.clone());
        stream
    }

    /// The adapter session of this name.
    pub(crate) fn adapter_session(&mut self, text: &str) -> Result<AdapterSessionId, IdError> {
        match &self.last_adapter {
            Some(last) if last.as_str() == text => Ok(last.clone()),
            _ => {
                let id = AdapterSessionId::new(text)?;
                self.last_adapter = Some(id.clone());
                Ok(id)
            }
        }
    }
}
