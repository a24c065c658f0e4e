//! Decisions that hold for every run of a workflow: listed, and taken back.

use runledger_events::{
    EventId, Metadata, PERMISSION_WITHDRAW, Position, StandingGrant, StandingGrants, StreamName, StreamVersion,
};
use runledger_store::{AppendError, ExpectedVersion, Read, ReadError};

use super::Commands;
use crate::relay::decision_event::{DecisionEvent, new_event_id};
use crate::relay::error::RelayLogError;

/// The decisions that hold for every run of one workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowGrants {
    /// The workflow; none for runs without one.
    pub workflow_name: Option<String>,
    /// Those that stand, the latest last.
    pub grants: StandingGrants,
}

/// Why a decision was not taken back. Nothing was appended, unless the log failed.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// No decision that stands is there.
    #[error("no decision that holds for a workflow stands at position {position}; `runledger rules` lists them")]
    Unknown {
        /// The position.
        position: Position,
    },
    /// The log failed.
    #[error(transparent)]
    Log(#[from] RelayLogError),
}

impl From<ReadError> for RulesError {
    fn from(error: ReadError) -> Self {
        Self::Log(error.into())
    }
}

impl Commands {
    /// The decisions that hold for every run of this workflow; of runs without one where it has no name.
    ///
    /// # Errors
    /// [`RelayLogError`] when the log cannot be read.
    pub fn standing_grants(&self, workflow_name: Option<&str>) -> Result<StandingGrants, RelayLogError> {
        let stream = StreamName::rules(workflow_name)?;
        let events = self.reader.read_stream(&stream, StreamVersion::EMPTY, Read::Facts)?;
        Ok(StandingGrants::fold(&events))
    }

    /// The same of every workflow that has any, by name.
    ///
    /// # Errors
    /// As [`Commands::standing_grants`].
    pub fn all_standing_grants(&self) -> Result<Vec<WorkflowGrants>, RelayLogError> {
        let mut all = Vec::new();
        for stream in self.reader.stream_names(&StreamName::rules(None)?)? {
            let workflow_name = stream.rules_workflow().map(str::to_owned);
            let grants = self.standing_grants(workflow_name.as_deref())?;
            if grants.iter().next().is_some() {
                all.push(WorkflowGrants { workflow_name, grants });
            }
        }
        Ok(all)
    }

    /// Takes the decision at a position back: from now on it holds for no run. Gives its workflow and what it said.
    ///
    /// # Errors
    /// [`RulesError::Unknown`] when no decision that stands is there; nothing was appended.
    pub fn withdraw_grant(
        &self,
        position: Position,
        by: Option<&str>,
    ) -> Result<(Option<String>, StandingGrant), RulesError> {
        loop {
            let unknown = || RulesError::Unknown { position };
            let before = Position(position.0.saturating_sub(1));
            let found = self.reader.read(&Default::default(), before, position, 1, Read::Facts)?.events;
            let stream = found.first().map(|event| &event.stream).filter(|stream| stream.is_rules());
            let stream = stream.ok_or_else(unknown)?;
            let events = self.reader.read_stream(stream, StreamVersion::EMPTY, Read::Facts)?;
            let grants = StandingGrants::fold(&events);
            let standing = grants.iter().find(|standing| standing.position == position).ok_or_else(unknown)?;
            let version = events.last().map(|event| event.stream_version).unwrap_or_default();
            let decided: &EventId = &standing.grant.decision_id;
            let id = new_event_id()?;
            let event = DecisionEvent {
                intent: Some(PERMISSION_WITHDRAW),
                by,
                ..DecisionEvent::new(&id, self.clock.now(), decided, "user")
            };
            let metadata = Metadata { causation_id: Some(decided.clone()), ..Metadata::default() };
            let event = event.into_event(metadata)?;
            // Under the version that it was read at: of two that take it back, one does.
            match self.log.append(stream, ExpectedVersion::Exact(version), vec![event]) {
                Ok(_) => return Ok((stream.rules_workflow().map(str::to_owned), standing.clone())),
                Err(AppendError::WrongExpectedVersion(_)) => {}
                Err(error) => return Err(RelayLogError::from(error).into()),
            }
        }
    }
}
