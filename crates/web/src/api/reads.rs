//! What can be asked: runs, sessions, permission requests, the feed, events, and how the ledger stands.

use runledger_events::{Position, RequestStatus, RunId, RunStatus, SessionId};
use runledger_projections::{
    FeedCursor, FeedEvent, FeedFilter, FeedPage, PermissionRequest, Queries, RequestContext, RequestFilter, RunFilter,
    Session, run_at,
};
use runledger_store::{EventFilter, Read};
use schemars::JsonSchema;
use serde::Deserialize;

use super::asking::{Asking, Limit, known_elsewhere, run_of, within};
use super::lists::{Events, Feed, JobList, Lined, ListedRun, Permissions, ReadModels, Runs, Sessions, UnreadableEvent};
use crate::failure::Failure;
use crate::jobs::Job;
use crate::ledger::Opened;
use crate::objects::{RunInTree, RunView, RunWithIterations, Status, checkpoints};
use crate::pages::event::position_of;
use crate::pages::given;
use crate::pages::permissions::one;

/// Bytes of an answer, about, at the most; what is left over is on the next page.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Entries and requests that are read at once, so that no more than these are read beyond the bound.
const READ_AT_ONCE: usize = 64;

/// Nothing is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// Which runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunsAsked {
    /// Those of this status alone.
    status: Option<RunStatus>,
    /// Those of this workflow alone.
    workflow: Option<String>,
    /// Those of this session alone.
    session: Option<SessionId>,
    /// Those in whose id, session, workflow or stop reason this text occurs.
    q: Option<String>,
    /// Those that began before this position.
    before: Option<Position>,
    #[serde(default)]
    limit: Limit,
    /// Each with its sub-runs and forks behind it; the limit counts those that stand under no other.
    #[serde(default)]
    tree: bool,
}

pub(crate) fn runs(asking: &Asking<'_, RunsAsked>) -> Result<Runs, Failure> {
    let asked = &asking.asked;
    let limit = asked.limit.get()?;
    let filter = RunFilter {
        session: asked.session.clone(),
        status: asked.status,
        workflow: asked.workflow.clone(),
        text: words(asked.q.as_deref())?,
        before: asked.before,
        limit: Some(limit),
    };
    if asked.tree {
        let nodes = asking.opened.queries.run_tree(&filter)?;
        let runs = nodes.into_iter().map(|node| ListedRun::InTree(Box::new(RunInTree::from(node))));
        return Ok(Runs { runs: runs.collect(), before: None });
    }
    let runs = asking.opened.queries.runs(&filter)?;
    let before = runs.last().filter(|_| runs.len() >= limit).map(|run| run.first_position);
    let runs = runs.into_iter().map(|run| ListedRun::Alone(Box::new(RunView::new(run))));
    Ok(Runs { runs: runs.collect(), before })
}

/// As of when.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunAsked {
    /// As of this position of the log.
    at: Option<Position>,
}

pub(crate) fn run(asking: &Asking<'_, RunAsked>) -> Result<RunWithIterations, Failure> {
    let queries = &asking.opened.queries;
    let (mut run, mut iterations) = run_of(asking.opened, asking.name)?;
    if let Some(at) = asking.asked.at {
        let begins = run.first_position;
        let then = asking.opened.read(|reader| {
            within(reader, at)?;
            Ok(run_at(reader, &run.id, at)?)
        });
        (run, iterations) = then?.ok_or_else(|| {
            let error = format!("run {} had not begun at position {at}", run.id);
            Failure::not_found(error, format!("it begins at position {begins}"))
        })?;
    }
    Ok(RunWithIterations::new(queries, run, iterations, asking.asked.at.is_some())?)
}

/// Which sessions.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionsAsked {
    /// Those whose last event is before this position.
    before: Option<Position>,
    #[serde(default)]
    limit: Limit,
}

pub(crate) fn sessions(asking: &Asking<'_, SessionsAsked>) -> Result<Sessions, Failure> {
    let limit = asking.asked.limit.get()?;
    let sessions = asking.opened.queries.latest_sessions(asking.asked.before, limit)?;
    let before = sessions.last().filter(|_| sessions.len() >= limit).map(|session| session.last_position);
    Ok(Sessions { sessions, before })
}

pub(crate) fn session(asking: &Asking<'_, Nothing>) -> Result<Session, Failure> {
    let unknown = || Failure::not_found(format!("there is no session {}", asking.name), "/api/v1/sessions lists them");
    let id = SessionId::new(asking.name).map_err(|_| unknown())?;
    asking.opened.queries.session(&id)?.ok_or_else(unknown)
}

/// Which entries of the feed, of any run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeedAsked {
    /// Those of this ledger session alone.
    session: Option<SessionId>,
    /// Those of this workflow run alone: its id, or the beginning of it.
    run: Option<String>,
    /// Those in which each of these words occurs, or begins one that does.
    q: Option<String>,
    /// Those of this kind, or of this family of kinds: `tool` takes `tool.pre`, `tool.post`, …
    kind: Option<String>,
    /// Those right before this place, as an answer told it.
    before: Option<String>,
    /// Those behind this place, as an answer told it; `0.0.0.0` for the first ones.
    after: Option<String>,
    #[serde(default)]
    limit: Limit,
}

/// Which entries of the feed of one run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunFeedAsked {
    /// Those in which each of these words occurs, or begins one that does.
    q: Option<String>,
    /// Those of this kind, or of this family of kinds: `tool` takes `tool.pre`, `tool.post`, …
    kind: Option<String>,
    /// Those right before this place, as an answer told it.
    before: Option<String>,
    /// Those behind this place, as an answer told it; `0.0.0.0` for the first ones.
    after: Option<String>,
    #[serde(default)]
    limit: Limit,
}

pub(crate) fn feed(asking: &Asking<'_, FeedAsked>) -> Result<Feed, Failure> {
    let asked = &asking.asked;
    let run = run_id(asking.opened, asked.run.as_deref())?;
    let filter = FeedFilter {
        session: asked.session.clone(),
        run,
        search: words(asked.q.as_deref())?,
        kind: words(asked.kind.as_deref())?,
        ..FeedFilter::default()
    };
    let page = page(asked.before.as_deref(), asked.after.as_deref())?;
    entries(&asking.opened.queries, &filter, page, asked.limit)
}

pub(crate) fn run_feed(asking: &Asking<'_, RunFeedAsked>) -> Result<Feed, Failure> {
    let asked = &asking.asked;
    let (run, _) = run_of(asking.opened, asking.name)?;
    let filter = FeedFilter {
        session: Some(run.session_id),
        run: Some(run.id),
        search: words(asked.q.as_deref())?,
        kind: words(asked.kind.as_deref())?,
        ..FeedFilter::default()
    };
    let page = page(asked.before.as_deref(), asked.after.as_deref())?;
    entries(&asking.opened.queries, &filter, page, asked.limit)
}

fn words(text: Option<&str>) -> Result<Option<String>, Failure> {
    given(text.unwrap_or_default())
}

fn run_id(opened: &Opened, name: Option<&str>) -> Result<Option<RunId>, Failure> {
    name.map(|name| run_of(opened, name).map(|(run, _)| run.id)).transpose()
}

fn page(before: Option<&str>, after: Option<&str>) -> Result<FeedPage, Failure> {
    let place = |text: &str| -> Result<FeedCursor, Failure> {
        let next = "take it from an answer, as it stands there";
        text.parse().map_err(|_| Failure::bad_request(format!("{text} is no place in the feed"), next))
    };
    match (before, after) {
        (Some(_), Some(_)) => {
            Err(Failure::bad_request("both `before` and `after` are given", "give one of them, for one page"))
        }
        (Some(before), None) => Ok(FeedPage::Before(place(before)?)),
        (None, Some(after)) => Ok(FeedPage::After(place(after)?)),
        (None, None) => Ok(FeedPage::Last),
    }
}

/// A page of the feed, read in parts, so that its bound is kept whatever entries hold.
fn entries(queries: &Queries, filter: &FeedFilter, mut page: FeedPage, limit: Limit) -> Result<Feed, Failure> {
    let limit = limit.get()?;
    let is_backward = matches!(page, FeedPage::Before(_) | FeedPage::Last);
    let asked = match &page {
        FeedPage::Before(cursor) | FeedPage::After(cursor) => Some(cursor.clone()),
        FeedPage::First | FeedPage::Last => None,
    };
    let (mut entries, mut bytes): (Vec<FeedEvent>, usize) = (Vec::new(), 0);
    while entries.len() < limit && bytes < ANSWER_BYTES_MAX {
        let at_once = READ_AT_ONCE.min(limit - entries.len());
        let mut part = queries.feed(filter, &page, at_once)?;
        let is_last = part.len() < at_once;
        if is_backward {
            // The newest first, until they are all there.
            part.reverse();
        }
        let Some(end) = part.last().map(FeedEvent::cursor) else {
            break;
        };
        page = if is_backward { FeedPage::Before(end) } else { FeedPage::After(end) };
        bytes += part.iter().map(|entry| entry.data.get().len() + entry.title.len()).sum::<usize>();
        entries.extend(part);
        if is_last {
            break;
        }
    }
    if is_backward {
        entries.reverse();
    }
    let place =
        |entry: Option<&FeedEvent>| entry.map(FeedEvent::cursor).or(asked.clone()).map(|place| place.to_string());
    let (before, after) = (place(entries.first()), place(entries.last()));
    Ok(Feed { entries, before, after })
}

/// Which permission requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PermissionsAsked {
    /// Those of this status alone; without it those that wait.
    status: Option<RequestStatus>,
    /// Those of every status, and what rules decided.
    #[serde(default)]
    all: bool,
    /// Those of this ledger session alone.
    session: Option<SessionId>,
    /// Those of this workflow run alone: its id, or the beginning of it.
    run: Option<String>,
    /// Those before this position.
    before: Option<Position>,
    #[serde(default)]
    limit: Limit,
}

pub(crate) fn permissions(asking: &Asking<'_, PermissionsAsked>) -> Result<Permissions, Failure> {
    let asked = &asking.asked;
    if asked.all && asked.status.is_some() {
        return Err(Failure::bad_request("both `all` and `status` are given", "give one of them"));
    }
    let limit = asked.limit.get()?;
    let mut filter = RequestFilter {
        status: if asked.all { None } else { asked.status.or(Some(RequestStatus::Pending)) },
        session: asked.session.clone(),
        run: run_id(asking.opened, asked.run.as_deref())?,
        before: asked.before,
        ..RequestFilter::default()
    };
    let (mut requests, mut bytes): (Vec<PermissionRequest>, usize) = (Vec::new(), 0);
    // In parts, so that the bound is kept whatever a tool's input holds.
    while requests.len() < limit && bytes < ANSWER_BYTES_MAX {
        let at_once = READ_AT_ONCE.min(limit - requests.len());
        filter.limit = Some(at_once);
        let part = asking.opened.queries.permission_requests(&filter)?;
        let is_last = part.len() < at_once;
        filter.before = part.last().map(|request| request.position);
        bytes +=
            part.iter().filter_map(|request| request.tool_input.as_ref()).map(|input| input.get().len()).sum::<usize>();
        requests.extend(part);
        if is_last {
            return Ok(Permissions { requests, before: None });
        }
    }
    Ok(Permissions { requests, before: filter.before })
}

pub(crate) fn permission(asking: &Asking<'_, Nothing>) -> Result<RequestContext, Failure> {
    one(asking.opened, asking.name)
        .map_err(|failure| known_elsewhere(failure, "/api/v1/permissions?all=true lists them"))
}

/// Which events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsAsked {
    /// Those after this position; 0 for all.
    pub(crate) after: Option<Position>,
    /// Those of this ledger session alone.
    pub(crate) session: Option<SessionId>,
    /// Those of this workflow run alone, its harness's included: its id, or the beginning of it.
    pub(crate) run: Option<String>,
    /// So many on a page; a page of large events has fewer. Nothing to a stream.
    #[serde(default)]
    limit: Limit,
}

impl EventsAsked {
    /// The filter that it says.
    pub(crate) fn filter(&self, opened: &Opened) -> Result<EventFilter, Failure> {
        let run = run_id(opened, self.run.as_deref())?;
        Ok(EventFilter { session: self.session.clone(), run, ..EventFilter::default() })
    }
}

pub(crate) fn events(asking: &Asking<'_, EventsAsked>) -> Result<Events, Failure> {
    let limit = asking.asked.limit.get()?;
    let filter = asking.asked.filter(asking.opened)?;
    let after = asking.asked.after.unwrap_or(Position::START);
    asking.opened.read(|reader| {
        let head = within(reader, after)?;
        let batch = reader.read_readable(&filter, after, head, limit, Read::All)?;
        Ok(Events {
            unreadable: batch.unreadable.iter().map(UnreadableEvent::from).collect(),
            events: batch.events.into_iter().map(Lined::of_many).collect(),
            scanned_to: batch.scanned_to,
            head,
        })
    })
}

pub(crate) fn event(asking: &Asking<'_, Nothing>) -> Result<Lined, Failure> {
    let position = position_of(asking.name)?;
    asking.opened.read(|reader| crate::pages::event::one_event(reader, position)).map(Lined::whole)
}

pub(crate) fn status(asking: &Asking<'_, Nothing>) -> Result<Status, Failure> {
    asking.app.status(asking.opened)
}

pub(crate) fn read_models(asking: &Asking<'_, Nothing>) -> Result<ReadModels, Failure> {
    let queries = &asking.opened.queries;
    let (models, parked) = (queries.status()?, queries.parked()?);
    let head = asking.opened.read(|reader| Ok(reader.head()?.position))?;
    Ok(ReadModels { head, projections: checkpoints(models, head), parked })
}

pub(crate) fn jobs(asking: &Asking<'_, Nothing>) -> Result<JobList, Failure> {
    Ok(JobList { jobs: asking.app.jobs.all() })
}

pub(crate) fn job(asking: &Asking<'_, Nothing>) -> Result<Job, Failure> {
    let found = asking.name.parse().ok().and_then(|id| asking.app.jobs.one(id));
    found.ok_or_else(|| Failure::not_found(format!("there is no job {}", asking.name), "/api/v1/jobs lists them"))
}
