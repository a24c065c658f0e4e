//! How the servers stand that keep a ledger's stream.

use runledger_store::StorageError;
use serde::Serialize;

use crate::log::JetStreamLog;
use crate::settings::log_of;

/// How a ledger's stream stands, as its leader has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamState {
    /// The ledger's address.
    pub address: String,
    /// The version of the server that was asked.
    pub server_version: String,
    /// The server that leads the stream; none where it has one replica alone.
    pub leader: Option<String>,
    /// Replicas that the stream has.
    pub replicas: usize,
    /// How many of them have all that the leader has.
    pub current: usize,
    /// Its messages.
    pub messages: u64,
    /// Their bytes, of one replica.
    pub bytes: u64,
    /// The sequence of the last one.
    pub last_position: u64,
    /// The largest message that the server takes, in bytes.
    pub message_bytes_max: usize,
    /// Messages that are gone from the servers, whoever had them deleted.
    pub deleted: u64,
    /// What is wrong with its settings by now.
    pub problems: Option<String>,
}

impl JetStreamLog {
    /// How the stream stands.
    ///
    /// # Errors
    /// [`StorageError::Engine`] where the servers do not answer.
    pub fn state(&self) -> Result<StreamState, StorageError> {
        let engine = self.engine();
        let info = engine.info().map_err(|detail| self.failed(detail))?;
        let address = engine.address();
        let peers = info.cluster.as_ref().map(|cluster| cluster.replicas.as_slice()).unwrap_or_default();
        Ok(StreamState {
            address: address.to_string(),
            server_version: engine.client().server_info().version,
            leader: info.cluster.as_ref().and_then(|cluster| cluster.leader.clone()),
            replicas: info.config.num_replicas,
            // The leader is current, and stands by itself.
            current: 1 + peers.iter().filter(|peer| peer.current && !peer.offline).count(),
            messages: info.state.messages,
            bytes: info.state.bytes,
            last_position: info.state.last_sequence,
            message_bytes_max: engine.message_bytes_max(),
            deleted: info.state.last_sequence.saturating_sub(info.state.messages),
            problems: log_of(&info.config, address).err(),
        })
    }
}
