//! Which ledger session a harness session belongs to, where nobody says: the one that the ledger knows it of, else its own.

use std::collections::HashMap;

use runledger_events::{AdapterSessionId, SessionId};
use runledger_projections::Queries;

use crate::ledger::LedgerArg;
use crate::output::message;
use crate::render;

/// Looks sessions up, each once.
pub(crate) struct Homes {
    /// The read models, where the ledger held something before.
    queries: Option<Queries>,
    known: HashMap<AdapterSessionId, SessionId>,
}

impl Homes {
    /// Where harness sessions belong in this ledger as it is now.
    ///
    /// Without its read models each harness session would be a session of its own, which is said and not refused: what is
    /// ingested is in the log either way.
    pub(crate) fn open(ledger: &LedgerArg, is_wanted: bool) -> Self {
        let is_there = ledger.may_be_there();
        let queries = if is_wanted && is_there {
            ledger.queries().inspect_err(|error| {
                let error = render::chain(error);
                message(&format!("the read models cannot tell which session a harness session is of: {error}"));
            })
        } else {
            Err(anyhow::anyhow!("not wanted"))
        };
        Self { queries: queries.ok(), known: HashMap::new() }
    }

    /// The session of a harness session.
    pub(crate) fn of(&mut self, adapter_session: &AdapterSessionId) -> anyhow::Result<SessionId> {
        if let Some(known) = self.known.get(adapter_session) {
            return Ok(known.clone());
        }
        let told = match &self.queries {
            Some(queries) => queries.session_of_adapter(adapter_session)?,
            None => None,
        };
        let session = match told {
            Some(session) => session,
            None => SessionId::new(adapter_session.as_str())?,
        };
        self.known.insert(adapter_session.clone(), session.clone());
        Ok(session)
    }
}
