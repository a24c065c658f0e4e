//! Queries of permission requests: which wait, which fit a name, and the whole context of one.

use runledger_events::{Position, RequestStatus, RunId, SessionId, TimestampMs};
use rusqlite::types::Value;

use crate::error::ProjectionError;
use crate::queries::Queries;
use crate::views::permission_requests::{NAME, PermissionRequest, RequestContext, select};

/// Which permission requests.
#[derive(Debug, Clone, Default)]
pub struct RequestFilter {
    /// Those of this status alone. Pending are those alone that this log is to answer.
    pub status: Option<RequestStatus>,
    /// Those of this ledger session alone.
    pub session: Option<SessionId>,
    /// Those of this workflow run alone.
    pub run: Option<RunId>,
    /// Those at an earlier position.
    pub before: Option<Position>,
    /// Those that could be answered until this moment at the latest.
    pub due_by: Option<TimestampMs>,
    /// At most so many, the newest first.
    pub limit: Option<usize>,
}

impl Queries {
    /// Permission requests, the newest first.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn permission_requests(&self, filter: &RequestFilter) -> Result<Vec<PermissionRequest>, ProjectionError> {
        let (clause, parameters) = clause(filter, self.log_id().as_str());
        select::select(&*self.connection()?, &clause, rusqlite::params_from_iter(parameters))
            .map_err(|source| self.failed(NAME, &source))
    }

    /// How many requests wait for an answer from this log.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn count_pending(&self) -> Result<u64, ProjectionError> {
        let sql = format!("SELECT count(*) FROM {NAME} WHERE status = ?1 AND log_id = ?2");
        let parameters = (RequestStatus::Pending.as_str(), self.log_id().as_str());
        self.connection()?.query_row(&sql, parameters, |row| row.get(0)).map_err(|source| self.failed(NAME, &source))
    }

    /// The requests that a name fits, the newest first: a position (of what asks, of what is asked about, or of what
    /// decided), else the harness's name of the call, an event's id, or a request's id.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn requests_named(&self, text: &str) -> Result<Vec<PermissionRequest>, ProjectionError> {
        let connection = self.connection()?;
        let failed = |source: rusqlite::Error| self.failed(NAME, &source);
        if let Ok(position) = text.parse::<i64>() {
            let found = select::named(&connection, true, &position).map_err(failed)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let mut found = select::named(&connection, false, &text).map_err(failed)?;
        // The whole name of a question that was put is its alone, whatever else was asked about the same call.
        if found.iter().any(|request| is_question(request, text)) {
            found.retain(|request| is_question(request, text));
        }
        Ok(found)
    }

    /// The request at this position ([`PermissionRequest::position`]), with what was asked and decided before it in its
    /// run.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn context(&self, position: Position) -> Result<Option<RequestContext>, ProjectionError> {
        select::context(&*self.connection()?, position).map_err(|source| self.failed(NAME, &source))
    }
}

fn is_question(request: &PermissionRequest, name: &str) -> bool {
    request.log_id.is_some() && request.request_id.as_str() == name
}

fn clause(filter: &RequestFilter, log_id: &str) -> (String, Vec<Value>) {
    let mut conditions = Vec::new();
    let mut parameters = Vec::new();
    let mut equals = |column: &str, value: String| {
        parameters.push(Value::Text(value));
        conditions.push(format!("{column} = ?{}", parameters.len()));
    };
    if let Some(status) = filter.status {
        equals("status", status.to_string());
        if status == RequestStatus::Pending {
            equals("log_id", log_id.to_owned());
        }
    }
    if let Some(session) = &filter.session {
        equals("session_id", session.to_string());
    }
    if let Some(run) = &filter.run {
        equals("run_id", run.to_string());
    }
    if let Some(before) = filter.before {
        parameters.push(Value::Integer(i64::try_from(before.0).unwrap_or(i64::MAX)));
        conditions.push(format!("position < ?{}", parameters.len()));
    }
    if let Some(due_by) = filter.due_by {
        parameters.push(Value::Integer(due_by.0));
        conditions.push(format!("due_at <= ?{}", parameters.len()));
    }
    let mut clause = String::new();
    if !conditions.is_empty() {
        clause = format!("WHERE {} ", conditions.join(" AND "));
    }
    clause.push_str("ORDER BY position DESC");
    if let Some(limit) = filter.limit {
        parameters.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        clause.push_str(&format!(" LIMIT ?{}", parameters.len()));
    }
    (clause, parameters)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;
    use crate::projection::Projection;
    use crate::views::permission_requests::PermissionRequests;

    /// How SQLite goes about a query, a step a line.
    fn plan(sql: &str) -> Vec<String> {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let projection: &dyn Projection = &PermissionRequests;
        connection.execute_batch(&projection.create_tables(1)).unwrap();
        connection.execute_batch(&projection.create_views(1)).unwrap();
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<Result<_, _>>();
        steps.unwrap()
    }

    fn assert_indexed(sql: &str, indexes: &[&str]) {
        let steps = plan(sql);
        for step in steps.iter().filter(|step| step.contains(NAME)) {
            assert!(step.starts_with("SEARCH") && step.contains("INDEX"), "{sql}\n{steps:#?}");
        }
        for index in indexes {
            assert!(steps.iter().any(|step| step.contains(index)), "{index} is not used: {steps:#?}");
        }
    }

    #[test]
    fn each_question_is_one_query_that_goes_by_indexes() {
        assert_indexed(&select::context_sql(), &["_by_position (position=?)", "_by_run (run_id=? AND position<?)"]);
        assert_indexed(&select::named_sql(true), &["_by_position", "_by_event_position", "_by_decision"]);
        assert_indexed(&select::named_sql(false), &["_by_request", "_by_call", "_by_event"]);
        let run = RunId::new("r").unwrap();
        let session = SessionId::new("s").unwrap();
        let status = Some(RequestStatus::Pending);
        let asks = [
            (RequestFilter { status, ..RequestFilter::default() }, "_by_status (status=?)"),
            (RequestFilter { status, limit: Some(5), ..RequestFilter::default() }, "_by_status (status=?)"),
            (
                RequestFilter { status, before: Some(Position(9)), ..RequestFilter::default() },
                "_by_status (status=? AND position<?)",
            ),
            (
                RequestFilter { status, due_by: Some(TimestampMs(9)), ..RequestFilter::default() },
                "_by_status (status=?)",
            ),
            (RequestFilter { run: Some(run), ..RequestFilter::default() }, "_by_run (run_id=?)"),
            (RequestFilter { session: Some(session), ..RequestFilter::default() }, "_by_session (session_id=?)"),
        ];
        for (filter, index) in asks {
            let sql = format!("SELECT * FROM {NAME} {}", clause(&filter, "log").0);
            assert_indexed(&sql, &[index]);
            assert!(!plan(&sql).iter().any(|step| step.contains("TEMP B-TREE")), "{:#?}", plan(&sql));
        }
    }
}
