//! The report of one database: what was taken over, and how it compares; or why it was refused.

use std::path::Path;

use runledger_import::{Comparison, ImportError, OldDatabase, TakenOver};
use serde::Serialize;

use super::compare::Compared;
use crate::output::Output;
use crate::render;

/// One database, as `--json` has it. Of a refused one only `file` and `error` are known.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    file: String,
    error: Option<String>,
    schema_version: Option<i64>,
    /// The ledger session that has its events.
    session_id: Option<String>,
    /// The id that the database gives it: another one where the ledger had another session of that id.
    stored_session_id: Option<String>,
    events: Option<u64>,
    appended: Option<u64>,
    duplicates: Option<u64>,
    runs: Option<Comparison>,
    sessions: Option<Comparison>,
    adapter_sessions: Option<Comparison>,
    tokens: Option<Comparison>,
    feed: Option<Comparison>,
}

impl Report {
    pub(crate) fn taken(old: &OldDatabase, taken: &TakenOver, compared: Compared) -> Self {
        Self {
            file: old.file.display().to_string(),
            error: None,
            schema_version: Some(old.schema_version),
            session_id: Some(taken.session_id.to_string()),
            stored_session_id: Some(old.session.id.clone()),
            events: Some(taken.events),
            appended: Some(taken.appended),
            duplicates: Some(taken.duplicates),
            runs: Some(compared.runs),
            sessions: Some(compared.sessions),
            adapter_sessions: Some(compared.adapter_sessions),
            tokens: Some(compared.tokens),
            feed: Some(compared.feed),
        }
    }

    pub(crate) fn refused(file: &Path, error: &ImportError) -> Self {
        Self {
            file: file.display().to_string(),
            error: Some(error.to_string()),
            schema_version: None,
            session_id: None,
            stored_session_id: None,
            events: None,
            appended: None,
            duplicates: None,
            runs: None,
            sessions: None,
            adapter_sessions: None,
            tokens: None,
            feed: None,
        }
    }

    /// Prints it: as an object, or for a person. A refused database was told on standard error.
    pub(crate) fn tell(&self, output: &mut Output) -> anyhow::Result<()> {
        if output.is_json() {
            return output.json(self);
        }
        let (Some(version), Some(session)) = (self.schema_version, &self.session_id) else {
            return Ok(());
        };
        output.line(&format!("{}: session {}", render::plain(&self.file), render::plain(session)))?;
        let count = |count: Option<u64>| render::count(count.unwrap_or_default());
        output.line(&format!(
            "  schema version {version}, {} events: {} appended, {} there already",
            count(self.events),
            count(self.appended),
            count(self.duplicates)
        ))?;
        for (what, comparison) in self.comparisons() {
            let reasons = comparison.reasons.iter();
            let reasons: Vec<String> = reasons
                .map(|(reason, times)| format!("{} × {}", render::count(*times), render::plain(reason)))
                .collect();
            let equal = render::count(comparison.equal);
            let different = render::count(comparison.different);
            match reasons.is_empty() {
                true => output.line(&format!("  {what}: {equal} equal"))?,
                false => {
                    output.line(&format!("  {what}: {equal} equal, {different} different ({})", reasons.join("; ")))?
                }
            }
        }
        Ok(())
    }

    /// The comparisons that have something to say.
    fn comparisons(&self) -> impl Iterator<Item = (&'static str, &Comparison)> {
        let all = [
            ("workflow runs", &self.runs),
            ("session", &self.sessions),
            ("harness sessions", &self.adapter_sessions),
            ("their tokens", &self.tokens),
            ("feed", &self.feed),
        ];
        let known = all.into_iter().filter_map(|(what, comparison)| Some((what, comparison.as_ref()?)));
        known.filter(|(_, comparison)| comparison.equal + comparison.different > 0)
    }
}
