//! The server: what it is told, how it begins, what it answers where, and how it ends.

use std::future::IntoFuture;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use runledger_events::Position;
use runledger_store::{EventLog, LogReader, OpenError};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::guard::{Guard, Token, watch as guard};
use crate::jobs::Jobs;
use crate::keeper::{Housekeeping, Keeper};
use crate::ledger::{Ledger, Opened};
use crate::listener::Limited;
use crate::metrics::Counts;
use crate::objects::Aside;
use crate::objects::Status;
use crate::stream::{Hub, Reading};
use crate::{actions, api, assets, metrics, pages};

/// The port, unless another one is named.
const PORT: u16 = 4848;
/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 512;
/// How long nothing may be answered on a connection; who follows is told something every 15 seconds.
const IDLE_MAX: Duration = Duration::from_secs(40);
/// How long answers may take when the server ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a server is told.
pub struct Options {
    ledger: PathBuf,
    address: SocketAddr,
    names: Vec<String>,
    token: Option<Token>,
    is_read_only: bool,
    housekeeping: Option<Housekeeping>,
    aside: Option<Beside>,
    log: Option<Arc<dyn EventLog>>,
}

impl Options {
    /// A server of the ledger at this path, on this machine alone.
    pub fn new(ledger: impl Into<PathBuf>) -> Self {
        Self {
            ledger: ledger.into(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            names: Vec::new(),
            token: None,
            is_read_only: false,
            housekeeping: None,
            aside: None,
            log: None,
        }
    }

    /// Appends to this log, of which the ledger's file is the copy.
    #[must_use]
    pub fn log(mut self, log: Arc<dyn EventLog>) -> Self {
        self.log = Some(log);
        self
    }

    /// Listens on this port; 0 for any that is free.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    /// Listens on this address of the machine, for others too.
    #[must_use]
    pub fn listen(mut self, address: IpAddr) -> Self {
        self.address.set_ip(address);
        self
    }

    /// Answers under this name too.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Lets in who has this token, instead of one that is made up.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Opens no write half at all.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.is_read_only = true;
        self
    }

    /// Tells this of what stands beside the ledger's files, where its status is asked for.
    #[must_use]
    pub fn aside(mut self, look: impl Fn() -> Aside + Send + Sync + 'static) -> Self {
        self.aside = Some(Box::new(look));
        self
    }

    /// Does this with the log every few seconds.
    #[must_use]
    pub fn housekeeping(mut self, keep: impl Fn(&dyn EventLog) + Send + 'static) -> Self {
        self.housekeeping = Some(Box::new(keep));
        self
    }
}

/// Looks at what stands beside the ledger's files.
pub(crate) type Beside = Box<dyn Fn() -> Aside + Send + Sync>;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ledger cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}; --port names another one, 0 any that is free")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// There are no random bytes for a token.
    #[error("no token can be made: {0}")]
    Random(getrandom::Error),
    /// Threads cannot be started, or the listener broke.
    #[error("the server cannot go on: {0}")]
    System(#[from] std::io::Error),
}

/// What every answer may use.
pub(crate) struct App {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) guard: Guard,
    /// The events as they come.
    pub(crate) hub: Arc<Hub>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) counts: Counts,
    pub(crate) aside: Option<Beside>,
    /// How far the read models are.
    pub(crate) applied: watch::Receiver<Position>,
    /// True when the server ends.
    pub(crate) ends: watch::Receiver<bool>,
}

impl App {
    /// How the ledger stands, as `status` tells it.
    pub(crate) fn status(&self, opened: &Opened) -> Result<Status, Failure> {
        let (models, parked) = (opened.queries.status()?, opened.queries.parked()?);
        let aside = self.aside.as_ref().map(|aside| aside()).unwrap_or_default();
        opened.read(|reader| Ok(Status::look(self.ledger.path(), reader, models, parked, aside)?))
    }
}

/// A server that has its address, and answers nobody yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    token: Token,
    options: Options,
}

impl Server {
    /// Takes the address, and looks that the ledger is there.
    ///
    /// # Errors
    /// [`ServeError`]; nothing listens.
    pub fn bind(mut options: Options) -> Result<Self, ServeError> {
        options.ledger = LogReader::open(&options.ledger)?.path().to_owned();
        let listen = |source| ServeError::Listen { address: options.address, source };
        let listener = TcpListener::bind(options.address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let token = match options.token.take() {
            Some(token) => token,
            None => Token::random().map_err(ServeError::Random)?,
        };
        Ok(Self { listener, address, token, options })
    }

    /// The address to open, with the token.
    pub fn url(&self) -> String {
        // Every address of the machine is none to open; this one is among them.
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        format!("http://{}/?token={}", SocketAddr::new(ip, self.address.port()), self.token.secret())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `end`, which may wait, returns.
    ///
    /// # Errors
    /// [`ServeError::System`]; what acted by then stands in the ledger.
    pub fn serve_until(self, end: impl FnOnce() + Send + 'static) -> Result<(), ServeError> {
        let Self { listener, address, token, options } = self;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(32)
            .thread_name("runledger-web")
            .enable_all()
            .build()?;
        let ledger = Arc::new(Ledger::new(options.ledger, options.is_read_only, options.log));
        let (keeper, applied) = Keeper::start(ledger.clone(), options.housekeeping)?;
        let (tell_end, ends) = watch::channel(false);
        let hub = Arc::new(Hub::new());
        let reading = Reading::start(ledger.clone(), hub.clone())?;
        let guard = Guard::new(token, address, &options.names);
        let counts = Counts::default();
        let jobs = Arc::default();
        let app = Arc::new(App { ledger, guard, hub, jobs, counts, aside: options.aside, applied, ends });
        let result = runtime.block_on(async move {
            let listener = Limited::new(tokio::net::TcpListener::from_std(listener)?, CONNECTIONS_MAX, IDLE_MAX);
            let mut ended = app.ends.clone();
            let farewell = async move {
                if let Err(error) = tokio::task::spawn_blocking(end).await {
                    tracing::error!(%error, "what waits for the end broke");
                }
                tell_end.send_replace(true);
            };
            let serving = axum::serve(listener, routes(app)).with_graceful_shutdown(farewell);
            tokio::select! {
                result = serving.into_future() => result,
                // Who is slow to go does not keep the server.
                () = async { _ = ended.wait_for(|ends| *ends).await; tokio::time::sleep(FAREWELL).await } => Ok(()),
            }
        });
        runtime.shutdown_timeout(FAREWELL);
        drop((reading, keeper));
        Ok(result?)
    }
}

fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(pages::runs::serve))
        .route("/runs/{id}", get(pages::run::serve))
        .route("/runs/{id}/fork", post(actions::fork))
        .route("/runs/{id}/cancel", post(actions::cancel))
        .route("/permissions", get(pages::permissions::serve))
        .route("/permissions/{position}", get(pages::permissions::serve_one).post(actions::decide))
        .route("/events/{position}", get(pages::event::serve))
        .route("/health", get(pages::health::serve))
        .route("/health/verify", post(actions::verify))
        .route("/health/rebuild", post(actions::rebuild))
        .route("/live", get(pages::live::serve))
        .merge(api::routes())
        .route("/metrics", get(metrics::serve))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/assets/{name}", get(assets::serve))
        .fallback(|uri: axum::http::Uri| async move {
            let next = match uri.path().starts_with("/api/") {
                true => "/api/v1/openapi.json lists what there is",
                false => "the list of runs is at /",
            };
            Failure::not_found(format!("there is no page {}", uri.path()), next)
        })
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}
