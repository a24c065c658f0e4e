//! Where the ledger is, and how commands open it.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use runledger_events::RunId;
use runledger_events::words::duration;
use runledger_projections::{Iteration, ParkedStream, Projections, Queries, Run, RunMatch};
use runledger_store::{EventLog, LogReader, SqliteLog, is_address};
use runledger_store_jetstream::{Address, AddressError, JetStreamError, JetStreamLog, LateLog, Options, StreamState};

use crate::exit_code::{CouldNotStart, No, Usage};
use crate::output::message;
use crate::render;
use crate::spools::Spools;

/// How long a command waits for the servers to let it in, for one of them to lead, and for a copy that stands still, before it reads
/// what is there.
const CONNECT: Duration = Duration::from_secs(3);
const CATCH_UP: Duration = Duration::from_secs(5);
/// How often what hooks have spooled is looked for, while a command runs that writes to servers.
const TAKE_IN: Duration = Duration::from_millis(100);
const TAKE_IN_MAX: Duration = Duration::from_secs(10);
const TAKER_PATIENCE: Duration = Duration::from_secs(1);

/// The ledger that the command line, the environment or the default names.
pub(crate) struct LedgerArg {
    named: Option<PathBuf>,
    /// Its log on NATS, once it was opened: it keeps the copy current as long as the command runs.
    nats: OnceCell<Arc<JetStreamLog>>,
    /// The same where the servers could not be reached: the copy is read, and they are tried again.
    late: OnceCell<Arc<LateLog>>,
}

/// What keeps a ledger.
#[derive(Debug, Clone)]
pub(crate) enum Engine {
    /// SQLite, in this file.
    File(PathBuf),
    /// Servers of NATS; the copy is in the folder.
    Nats { address: Address, folder: PathBuf },
}

impl Engine {
    /// The file that it is read from.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Nats { folder, .. } => JetStreamLog::copy_in(folder),
        }
    }
}

/// How a log on NATS is opened.
pub(crate) fn nats_options(create: bool, connect: Duration) -> Options {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let file = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (user, password) = (variable("NATS_USER"), variable("NATS_PASSWORD"));
    let (ca, certificate, key) = (file("NATS_CA"), file("NATS_CERT"), file("NATS_KEY"));
    Options { create, connect, user, password, ca, certificate, key, ..Options::default() }
}

impl LedgerArg {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self { named: path.filter(|path| !path.as_os_str().is_empty()), nats: OnceCell::new(), late: OnceCell::new() }
    }

    /// What keeps it.
    pub(crate) fn engine(&self) -> anyhow::Result<Engine> {
        let homeless = || Usage("neither HOME nor XDG_STATE_HOME is set: name the ledger with --db".to_owned());
        let state = || user_folder("XDG_STATE_HOME", ".local/state").ok_or_else(homeless);
        match &self.named {
            None => Ok(Engine::File(state()?.join("runledger/ledger.db"))),
            Some(named) => match named.to_str().filter(|text| is_address(text)) {
                Some(text) => {
                    let address: Address = text.parse().map_err(|error: AddressError| Usage(error.to_string()))?;
                    let folder = state()?.join("runledger/nats").join(address.folder_name());
                    Ok(Engine::Nats { address, folder })
                }
                None => Ok(Engine::File(named.clone())),
            },
        }
    }

    /// The file that it is read from.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        Ok(self.engine()?.path())
    }

    /// What names it for another process: its path, or its address.
    pub(crate) fn place(&self) -> anyhow::Result<PathBuf> {
        Ok(match self.engine()? {
            Engine::File(path) => path,
            Engine::Nats { address, .. } => address.to_string().into(),
        })
    }

    /// What the command line or the environment names.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.named.as_deref()
    }

    /// Whether there may be something to look at before anything is written.
    pub(crate) fn may_be_there(&self) -> bool {
        match self.engine() {
            Ok(Engine::File(path)) => path.exists(),
            Ok(Engine::Nats { .. }) => true,
            Err(_) => false,
        }
    }

    /// The file of a ledger that SQLite keeps; `why_not` says what is to be done with one on NATS instead.
    pub(crate) fn file(&self, why_not: &str) -> anyhow::Result<PathBuf> {
        match self.engine()? {
            Engine::File(path) => Ok(path),
            Engine::Nats { address, .. } => Err(CouldNotStart(format!("{address}: {why_not}")).into()),
        }
    }

    /// The log, for writing; made where it is missing. What hooks have spooled is in it.
    pub(crate) fn open_for_writing(&self) -> anyhow::Result<Arc<dyn EventLog>> {
        match self.engine()? {
            Engine::File(path) => {
                let log = SqliteLog::open(path)?;
                Spools::of(log.path()).take_in_all(&log);
                Ok(Arc::new(log))
            }
            Engine::Nats { address, folder } => {
                let log = self.open_on_nats(&address, &folder, true)?;
                Spools::of(log.path()).take_in_all(&*log);
                take_in_while_open(&log)?;
                Ok(log)
            }
        }
    }

    /// The log, for writing as soon as its servers can be reached, where servers of NATS keep it and it was opened for reading.
    pub(crate) fn log_on_nats(&self) -> anyhow::Result<Option<Arc<dyn EventLog>>> {
        match (self.engine()?, self.late.get()) {
            (Engine::File(_), _) => Ok(None),
            (Engine::Nats { .. }, Some(late)) => Ok(Some(late.clone())),
            (Engine::Nats { .. }, None) => self.open_for_writing().map(Some),
        }
    }

    /// How the servers stand that keep it; none where it is in a file.
    pub(crate) fn stream_state(&self) -> anyhow::Result<Option<Result<StreamState, String>>> {
        let Engine::Nats { address, folder } = self.engine()? else {
            return Ok(None);
        };
        let state = self.open_on_nats(&address, &folder, false).map_err(|error| error.to_string());
        Ok(Some(state.and_then(|log| log.state().map_err(|error| error.to_string()))))
    }

    /// The log on NATS, where it is there and was opened.
    pub(crate) fn nats(&self) -> Option<&JetStreamLog> {
        self.nats.get().map(|log| &**log)
    }

    fn open_on_nats(
        &self,
        address: &Address,
        folder: &Path,
        create: bool,
    ) -> Result<Arc<JetStreamLog>, JetStreamError> {
        if let Some(log) = self.nats.get() {
            return Ok(log.clone());
        }
        let is_copied = JetStreamLog::copy_in(folder).exists();
        // Where there is a copy there was a log, and a new one in its place would split the story in two.
        let mut options = nats_options(create && !is_copied, CONNECT);
        if !create && is_copied {
            options.open = CATCH_UP;
        }
        let log = JetStreamLog::open(address, folder, &options).map(Arc::new).map_err(|error| match error {
            JetStreamError::Missing { address } if is_copied => {
                JetStreamError::MissingBesideCopy { address, copy: JetStreamLog::copy_in(folder) }
            }
            error => error,
        })?;
        Ok(self.nats.get_or_init(|| log).clone())
    }

    /// The log, for reading; it has to be there. What hooks have spooled is in it.
    pub(crate) fn open_for_reading(&self) -> anyhow::Result<LogReader> {
        Ok(LogReader::open(self.path_to_read()?)?)
    }

    /// The read models, for rebuilding and verifying; the ledger has to be there.
    pub(crate) fn projections(&self) -> anyhow::Result<Projections> {
        Ok(Projections::open(self.path_to_read()?)?)
    }

    /// The file that it is read from, when what hooks have spooled was taken in as far as it can be, and a copy is as current as it can
    /// be.
    fn path_to_read(&self) -> anyhow::Result<PathBuf> {
        match self.engine()? {
            Engine::File(path) => {
                let path = std::path::absolute(path)?;
                Spools::of(&path).take_in_before_reading();
                Ok(path)
            }
            Engine::Nats { address, folder } => {
                let path = JetStreamLog::copy_in(&folder);
                if self.late.get().is_some() {
                    return Ok(path);
                }
                let is_new = self.nats.get().is_none();
                match self.open_on_nats(&address, &folder, false) {
                    // What waits is taken in only where somebody would take it.
                    Ok(log) => match log.catch_up(CATCH_UP) {
                        Ok(_) => {
                            Spools::of(&path).take_in_all(&*log);
                        }
                        Err(error) if is_new => tell_as_of(&error, &folder),
                        Err(_) => {}
                    },
                    // Who is cut off reads what was copied, and so does who does not trust whoever answers.
                    Err(error @ (JetStreamError::Unreachable { .. } | JetStreamError::Insecure { .. }))
                        if path.exists() =>
                    {
                        tell_as_of(&error, &folder);
                        let late = LateLog::open(&address, &folder, &nats_options(false, CONNECT), &error)?;
                        self.late.get_or_init(|| Arc::new(late));
                    }
                    Err(error) => return Err(error.into()),
                }
                Ok(path)
            }
        }
    }

    /// The read models, brought to the log's head, without a word on what they leave out.
    pub(crate) fn queries_quietly(&self) -> anyhow::Result<Queries> {
        let mut projections = self.projections()?;
        projections.catch_up().context("bringing the read models up to date")?;
        self.clear_copy(&mut projections);
        Ok(Queries::open(self.path()?)?)
    }

    /// What another machine had erased goes from this one's files as soon as somebody reads here.
    fn clear_copy(&self, projections: &mut Projections) {
        if let Some(Err(error)) = self.nats().map(|log| clear_log(projections, log)) {
            let error = render::chain(&error);
            message(&render::plain(&format!("texts that were erased may still be in this machine's copy: {error}")));
        }
    }

    /// The read models, brought to the log's head; says what they leave out.
    pub(crate) fn queries(&self) -> anyhow::Result<Queries> {
        let queries = self.queries_quietly()?;
        let parked = queries.parked()?;
        if let Some(first) = parked.first() {
            let ParkedStream { stream, position, .. } = first;
            message(&render::plain(&format!(
                "something is missing here: {stream} cannot be read from position {position} on; see `runledger status`"
            )));
        }
        Ok(queries)
    }
}

/// Refuses an address where a command can do with a file alone; `instead` says what is done.
pub(crate) fn refuse_address(path: &Path, instead: &str) -> Result<(), Usage> {
    match path.to_str().is_some_and(is_address) {
        true => Err(Usage(format!("{}: this is an address, and a file is meant; {instead}", path.display()))),
        false => Ok(()),
    }
}

/// Clears the log's files here of what was erased, unless that was done, and notes that it is.
pub(crate) fn clear_log(projections: &mut Projections, log: &dyn EventLog) -> anyhow::Result<()> {
    let last = projections.reader().last_redaction()?;
    if let Some(last) = last
        && !projections.log_is_cleared()?
        && log.settle()?
    {
        projections.note_log_cleared(last)?;
    }
    Ok(())
}

/// Says how old what is read is.
fn tell_as_of(why: &dyn std::fmt::Display, folder: &Path) {
    let age = JetStreamLog::heard_in(folder).and_then(|heard| heard.elapsed().ok());
    let ms = age.and_then(|age| i64::try_from(age.as_millis()).ok());
    let age = ms.map_or_else(|| "of when is not known".to_owned(), |ms| format!("of {} ago", duration(ms)));
    let head = LogReader::open(JetStreamLog::copy_in(folder)).and_then(|copy| Ok(copy.head()?));
    let head = head.map_or_else(|_| String::new(), |head| format!(" as of position {}", head.position));
    message(&render::plain(&format!("{why}; this machine's copy is read{head}, {age}")));
}

/// Takes in what hooks spool, as long as somebody else holds the log.
fn take_in_while_open(log: &Arc<JetStreamLog>) -> std::io::Result<()> {
    let spools = Spools::of(log.path());
    let log = Arc::downgrade(log);
    let take = move || {
        let mut pause = TAKE_IN;
        while let Some(log) = log.upgrade() {
            // Who is told on the terminal is told once; what cannot be taken in now is tried again ever more seldom.
            let is_taken =
                spools.is_empty() || spools.take_in(&*log, TAKER_PATIENCE, None).is_ok_and(|taken| !taken.is_left);
            drop(log);
            pause = if is_taken { TAKE_IN } else { (pause * 2).min(TAKE_IN_MAX) };
            std::thread::sleep(pause);
        }
    };
    std::thread::Builder::new().name("runledger-spools".to_owned()).spawn(take).map(drop)
}

/// The folder that a variable of the XDG specification names, else the one of that name at home.
pub(crate) fn user_folder(variable: &str, at_home: &str) -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path(variable).filter(|folder| folder.is_absolute()).or_else(|| path("HOME").map(|home| home.join(at_home)))
}

/// The one run that a prefix fits, with its iterations.
pub(crate) fn one_run(queries: &Queries, prefix: &str) -> anyhow::Result<(Run, Vec<Iteration>)> {
    if prefix.is_empty() {
        // It begins every id: what a script has left empty names no run.
        return Err(Usage("the run's id is empty; `runledger runs` lists them".to_owned()).into());
    }
    match queries.run(prefix)? {
        RunMatch::One(run, iterations) => Ok((*run, iterations)),
        RunMatch::None => Err(No(format!("there is no run {prefix}; `runledger runs` lists them")).into()),
        RunMatch::Several(ids) => {
            let shown: Vec<&str> = ids.iter().take(5).map(RunId::as_str).collect();
            let more = if ids.len() > shown.len() { ", …" } else { "" };
            Err(Usage(format!("{prefix} fits {} runs: {}{more}", ids.len(), shown.join(", "))).into())
        }
    }
}
