//! The connection to the servers, with a runtime of its own: callers wait for it in threads of theirs, and nothing of it is in them.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, Info, LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, Server};
use runledger_events::LogId;
use runledger_store::StorageError;
use tokio::runtime::Runtime;

use crate::address::Address;
use crate::error::JetStreamError;
use crate::log::Options;
use crate::secure;
use crate::settings::{SERVER_OLDEST, is_new_enough, log_of, new_stream};

/// How long the first servers that are asked have to answer: while they choose a leader, a question may be lost.
const FIRST_ANSWER: Duration = Duration::from_millis(400);
/// How long servers are asked for streams by one that has none itself.
const WITHOUT: Duration = Duration::from_secs(3);
/// How long the servers have to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a server is asked whether it is there: one that is cut off says nothing, and another one is gone to after two.
const PING: Duration = Duration::from_secs(2);
/// How long is waited before something is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection to the servers of a ledger.
pub(crate) struct Engine {
    address: Address,
    runtime: Background,
    client: Client,
    context: Context,
    /// What the servers said last that we may not do.
    denied: Arc<Mutex<Vec<String>>>,
    /// What came of the last tries to connect, server by server.
    tries: Tries,
}

/// What came of the last tries to connect again, as the client keeps it.
#[derive(Debug, Clone, Default)]
struct Tries(Arc<Mutex<Vec<String>>>);

impl Tries {
    /// Keeps what went wrong with servers, and tells what was not told yet.
    fn note(&self, servers: &[Server]) {
        let failed = |server: &Server| Some(format!("{server}: {}", server.last_error.as_ref()?));
        let found: Vec<String> = servers.iter().filter_map(failed).collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for found in found.iter().filter(|found| !known.contains(found)) {
            tracing::warn!("NATS is not reached: {found}");
        }
        *known = found;
    }

    fn words(&self) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!known.is_empty()).then(|| known.join(", "))
    }
}

/// What servers said that we may not do, in small letters.
#[derive(Debug, Clone)]
pub(crate) struct Denials(Arc<Mutex<Vec<String>>>);

impl Denials {
    /// The first of these, subjects in quotes or parts of one, that they have named.
    fn named<'a>(&self, parts: &'a [String]) -> Option<&'a str> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_named = |part: &&String| {
            let part = part.to_ascii_lowercase();
            said.iter().any(|said| said.contains(&part))
        };
        // Hardly ever anything was said.
        parts.iter().filter(|_| !said.is_empty()).find(is_named).map(|part| part.trim_matches('"'))
    }

    /// Waits until they name one of these, and says which: who may not is not answered.
    pub(crate) async fn come<'a>(&self, parts: &'a [String]) -> &'a str {
        loop {
            if let Some(part) = self.named(parts) {
                return part;
            }
            tokio::time::sleep(DENIED_LOOK).await;
        }
    }
}

/// How often it is looked whether they have.
const DENIED_LOOK: Duration = Duration::from_millis(20);

/// What servers said that is kept.
const DENIED_MAX: usize = 16;

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("address", &self.address.to_string()).finish_non_exhaustive()
    }
}

/// A runtime that nobody waits for when it ends, whatever is still under way: a name that is looked up may take ten seconds.
struct Background(Option<Runtime>);

impl Background {
    fn get(&self) -> Option<&Runtime> {
        self.0.as_ref()
    }

    fn wait<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.0.as_ref()?.spawn(async move {
            // Who does not wait any more is told nothing.
            let _ = tell.send(future.await);
        });
        told.recv().ok()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Engine {
    /// Connects to a server that can keep a ledger.
    pub(crate) fn connect(address: &Address, options: &Options) -> Result<Self, JetStreamError> {
        let system = |source| JetStreamError::System { address: address.to_string(), source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("runledger-nats")
            .enable_all()
            .build()
            .map_err(system)?;
        let runtime = Background(Some(runtime));
        let name = concat!("runledger ", env!("CARGO_PKG_VERSION"));
        let denied = Arc::new(Mutex::new(Vec::new()));
        let noted = denied.clone();
        let tries = Tries::default();
        let tried = tries.clone();
        let servers = address.servers().to_vec();
        // One that says nothing leaves another one its time.
        let for_each = if servers.len() > 1 { options.connect / 2 } else { options.connect };
        let mut connecting = ConnectOptions::new()
            .name(name)
            .connection_timeout(for_each)
            .request_timeout(Some(ANSWER))
            .ping_interval(PING)
            .event_callback(move |event| {
                note_denied(&noted, &event);
                async move { tell(&event) }
            })
            // Which server is next is left to the client; this is where it says what came of the last tries.
            .reconnect_to_server_callback(move |servers, _| {
                tried.note(&servers);
                async { None }
            });
        connecting = secure::identify(connecting, address, options)?;
        let patience = options.connect;
        let connected = runtime.wait(async move { tokio::time::timeout(patience, connecting.connect(servers)).await });
        let unreachable = |detail: String| JetStreamError::Unreachable { address: address.to_string(), detail };
        let client = match connected {
            Some(Ok(Ok(client))) => client,
            Some(Ok(Err(error))) => {
                if let Some((detail, next)) = secure::refusal(&error) {
                    return Err(JetStreamError::Insecure { address: address.to_string(), detail, next });
                }
                let detail = error.to_string();
                return Err(match error.kind() {
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                        JetStreamError::NotLetIn { address: address.to_string(), detail }
                    }
                    _ => unreachable(detail),
                });
            }
            Some(Err(_)) => return Err(unreachable(format!("nobody answered in {} ms", patience.as_millis()))),
            None => return Err(unreachable("the connection broke".to_owned())),
        };
        let found = client.server_info().version;
        if !is_new_enough(&found) {
            return Err(JetStreamError::TooOld { address: address.to_string(), found, oldest: SERVER_OLDEST });
        }
        // It starts tasks of its own.
        let entered = runtime.get().map(Runtime::enter);
        let mut context = match address.domain() {
            Some(domain) => jetstream::with_domain(client.clone(), domain),
            None => jetstream::new(client.clone()),
        };
        context.set_timeout(ANSWER);
        drop(entered);
        Ok(Self { address: address.clone(), runtime, client, context, denied, tries })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// What failed, and why the servers are not reached where they are not.
    pub(crate) fn failed(&self, detail: String) -> StorageError {
        let is_away = self.client.connection_state() != State::Connected;
        let why = self.tries.words().filter(|_| is_away).map(|why| format!("; {why}")).unwrap_or_default();
        StorageError::Engine { address: self.address.to_string(), detail: detail + &why }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// What the servers say from now on that we may not do.
    pub(crate) fn denials(&self) -> Denials {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Denials(self.denied.clone())
    }

    /// Whether the stream has a message at a sequence.
    pub(crate) fn has_message(&self, sequence: u64) -> Result<bool, String> {
        let (context, name) = (self.context.clone(), self.address.name().to_owned());
        let found = self.wait(async move {
            let stream = Self::stream(context, name).await?;
            match stream.get_raw_message(sequence).await {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
                Err(error) => Err(error.to_string()),
            }
        });
        found.unwrap_or_else(|| Err("the connection broke".to_owned()))
    }

    /// The sequence of the last message of a subject; 0 where it has none.
    pub(crate) fn last_of(&self, subject: &str) -> Result<u64, String> {
        let (context, name, subject) = (self.context.clone(), self.address.name().to_owned(), subject.to_owned());
        let found = self.wait(async move {
            let stream = Self::stream(context, name).await?;
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(last) => Ok(last.sequence),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
                Err(error) => Err(error.to_string()),
            }
        });
        found.unwrap_or_else(|| Err("the connection broke".to_owned()))
    }

    /// Bytes of a message, at the most.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.client.server_info().max_payload
    }

    /// Does something asynchronous on threads of its own, and waits for it; `None` where it broke.
    pub(crate) fn wait<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.runtime.wait(future)
    }

    /// The runtime, for who waits on a thread of their own.
    pub(crate) fn runtime(&self) -> Option<&Runtime> {
        self.runtime.get()
    }

    /// Opens the ledger's stream, which is made where it is missing and may be made; gives the log that it keeps.
    pub(crate) fn open_stream(&self, create: bool, deadline: Instant) -> Result<LogId, JetStreamError> {
        let address = || self.address.to_string();
        // A leaf node has no streams of its own; nor has every server of a cluster, but others answer for it at once.
        let is_without = !self.client.server_info().jetstream;
        let deadline = if is_without { deadline.min(Instant::now() + WITHOUT) } else { deadline };
        let mut made = None;
        let mut patience = FIRST_ANSWER;
        loop {
            let mut context = self.context.clone();
            // Where the way is long, the next try gives it more time.
            let left = deadline.saturating_duration_since(Instant::now());
            context.set_timeout(patience.min(left.max(PAUSE)));
            patience = (patience * 2).min(ANSWER);
            let name = self.address.name().to_owned();
            let found = self.wait(async move { context.get_stream(name).await });
            let detail = match found {
                Some(Ok(stream)) => return self.check(&stream),
                Some(Err(error)) => match error.kind() {
                    GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        if !create {
                            return Err(JetStreamError::Missing { address: address() });
                        }
                        let log_id = made.get_or_insert_with(|| uuid::Uuid::now_v7().to_string());
                        let log_id = LogId::new(log_id.clone()).map_err(|error| JetStreamError::NotMade {
                            address: address(),
                            detail: error.to_string(),
                        })?;
                        self.make(&log_id, left)?
                    }
                    GetStreamErrorKind::JetStream(said) if is_without_jetstream(said.error_code()) => {
                        return Err(JetStreamError::NoJetStream { address: address(), detail: said.to_string() });
                    }
                    _ => error.to_string(),
                },
                None => "the connection broke".to_owned(),
            };
            if Instant::now() >= deadline {
                return Err(match is_without && self.address.domain().is_none() {
                    true => {
                        let detail =
                            format!("{detail}; behind a leaf node the address says whose they are, `?domain=NAME`");
                        JetStreamError::NoJetStream { address: address(), detail }
                    }
                    false => JetStreamError::Unreachable { address: address(), detail },
                });
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn check(&self, stream: &Stream) -> Result<LogId, JetStreamError> {
        let config = &stream.cached_info().config;
        log_of(config, &self.address)
            .map_err(|problems| JetStreamError::Settings { address: self.address.to_string(), problems })
    }

    /// Makes the stream; what is not answered, or was made by another one meanwhile, is looked at again.
    fn make(&self, log_id: &LogId, left: Duration) -> Result<String, JetStreamError> {
        let (mut context, config): (Context, Config) = (self.context.clone(), new_stream(&self.address, log_id));
        context.set_timeout(left.clamp(PAUSE, ANSWER));
        let made = self.wait(async move { context.create_stream(config).await.map(drop) });
        match made {
            Some(Ok(())) => Ok("the stream was just made".to_owned()),
            Some(Err(error)) => match error.kind() {
                CreateStreamErrorKind::JetStream(said) if said.error_code() != ErrorCode::STREAM_NAME_EXIST => {
                    Err(JetStreamError::NotMade { address: self.address.to_string(), detail: said.to_string() })
                }
                _ => Ok(error.to_string()),
            },
            None => Ok("the connection broke".to_owned()),
        }
    }

    /// The sequence of the last message, as the leader has it.
    pub(crate) fn last_sequence(&self) -> Result<u64, String> {
        self.last_sequence_within(ANSWER)
    }

    /// The same, where the leader has so long to answer.
    pub(crate) fn last_sequence_within(&self, patience: Duration) -> Result<u64, String> {
        self.ask_info(false, patience).map(|info| info.state.last_sequence)
    }

    /// How the stream stands, as the leader has it.
    pub(crate) fn info(&self) -> Result<Info, String> {
        self.ask_info(false, ANSWER)
    }

    /// The same, with which messages were deleted.
    pub(crate) fn info_with_deleted(&self) -> Result<Info, String> {
        self.ask_info(true, ANSWER)
    }

    fn ask_info(&self, with_deleted: bool, patience: Duration) -> Result<Info, String> {
        let (mut context, name) = (self.context.clone(), self.address.name().to_owned());
        context.set_timeout(patience.min(ANSWER));
        let info = self.wait(async move {
            let stream = context.get_stream_no_info(name).await.map_err(|error| error.to_string())?;
            if with_deleted {
                let asked = stream.info_builder().with_deleted(true).fetch().await;
                return asked.map(|asked| asked.info).map_err(|error| error.to_string());
            }
            stream.get_info().await.map_err(|error| error.to_string())
        });
        let info = info.unwrap_or_else(|| Err("the connection broke".to_owned()))?;
        // One that is left alone of several answers of what it has, which may be old.
        let has_leader = info.cluster.as_ref().is_some_and(|cluster| cluster.leader.is_some());
        match has_leader || info.config.num_replicas == 1 {
            true => Ok(info),
            false => Err("no server leads the stream: too few of them are there".to_owned()),
        }
    }

    /// The stream, for a consumer.
    pub(crate) async fn stream(context: Context, name: String) -> Result<Stream<()>, String> {
        context.get_stream_no_info(name).await.map_err(|error| error.to_string())
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }
}

fn is_without_jetstream(code: ErrorCode) -> bool {
    [ErrorCode::JETSTREAM_NOT_ENABLED, ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT].contains(&code)
}

/// Keeps what the servers say that we may not do, in small letters.
fn note_denied(denied: &Mutex<Vec<String>>, event: &Event) {
    let said = event.to_string().to_ascii_lowercase();
    if said.contains("permissions violation") {
        let mut denied = denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() < DENIED_MAX && !denied.contains(&said) {
            denied.push(said);
        }
    }
}

fn tell(event: &Event) {
    match event {
        // Whoever asked is told.
        event if event.to_string().to_ascii_lowercase().contains("permissions violation") => {
            tracing::debug!(%event, "NATS");
        }
        // What came of a try to connect is told with its reason.
        Event::Connected | Event::Closed | Event::ClientError(_) => tracing::debug!(%event, "NATS"),
        event => tracing::warn!(%event, "NATS"),
    }
}
