//! NATS servers on loopback, in a temporary folder: each a process of its own, ended by its id, and with the test's.

use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// How long a server may take until it answers.
const READY: Duration = Duration::from_secs(20);

/// The program `nats-server`: named by `RUNLEDGER_NATS_SERVER`, else on the PATH.
///
/// Where there is none it is said that the test is skipped, unless `RUNLEDGER_REQUIRE_NATS` is set: then that is a failure.
pub fn nats_server() -> Option<PathBuf> {
    let named = std::env::var_os("RUNLEDGER_NATS_SERVER").filter(|name| !name.is_empty()).map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("nats-server")).find(|program| program.is_file())
    };
    let found = named.or_else(on_path);
    if found.is_none() {
        assert!(
            std::env::var_os("RUNLEDGER_REQUIRE_NATS").is_none(),
            "there is no nats-server: RUNLEDGER_NATS_SERVER names one"
        );
        // Not by `eprintln!`, whose words the test runner keeps to itself when a test passes.
        let words = "skipped: there is no nats-server on the PATH, and RUNLEDGER_NATS_SERVER names none";
        let _ = writeln!(std::io::stderr(), "{words}");
    }
    found
}

/// Who may append, and who may also delete.
const USERS: &str = r#"
authorization { users: [
    { user: runner, password: runner, permissions: { publish: { deny: ["$JS.API.STREAM.MSG.DELETE.>"] } } }
    { user: admin, password: admin }
] }
"#;

/// How servers are set up.
#[derive(Default)]
struct Setup {
    /// Every message is on the disk before it is acknowledged.
    is_synced: bool,
    /// The domain of its streams.
    domain: Option<&'static str>,
    /// It passes everything on to others, and keeps nothing.
    is_leaf: bool,
    /// It has certificates in its folder.
    is_secure: bool,
    /// What else its configuration says.
    more: String,
}

/// One to several servers that keep streams together.
#[derive(Debug)]
pub struct NatsServers {
    program: PathBuf,
    folder: TempDir,
    nodes: Mutex<Vec<Node>>,
    /// Where each has a network of its own.
    network: Option<Network>,
}

#[derive(Debug)]
struct Node {
    host: String,
    port: u16,
    http: u16,
    route: u16,
    /// The shell that ends the server with this process, and the server's own id.
    running: Option<(Child, u32)>,
}

impl NatsServers {
    /// Starts so many servers; with `is_synced` every message is on the disk before it is acknowledged.
    pub fn start(count: usize, is_synced: bool) -> Option<Self> {
        Some(Self::start_in(nats_server()?, count, &Setup { is_synced, ..Setup::default() }, None))
    }

    /// The same, where `runner` (password `runner`) may not delete messages, and `admin` (`admin`) may.
    pub fn start_guarded(count: usize) -> Option<Self> {
        Some(Self::start_in(nats_server()?, count, &Setup { more: USERS.to_owned(), ..Setup::default() }, None))
    }

    /// Starts a server that is spoken to by TLS alone, and asks who connects for a certificate of the same signer.
    pub fn start_secure() -> Option<Self> {
        let program = nats_server()?;
        let more = "tls { cert_file: \"FOLDER/server.pem\", key_file: \"FOLDER/server-key.pem\", \
                    ca_file: \"FOLDER/ca.pem\", verify: true }\n";
        Some(Self::start_in(program, 1, &Setup { more: more.to_owned(), is_secure: true, ..Setup::default() }, None))
    }

    /// Starts a server that leaf nodes can join, whose streams are in the domain `hub`.
    pub fn start_hub() -> Option<Self> {
        let more = "leafnodes { listen: \"HOST:ROUTE\" }\n".to_owned();
        Some(Self::start_in(nats_server()?, 1, &Setup { more, domain: Some("hub"), ..Setup::default() }, None))
    }

    /// Starts a leaf node of such a server, which keeps no streams itself.
    pub fn start_leaf(&self) -> Self {
        let hub = self.nodes().first().map(|node| format!("{}:{}", node.host, node.route)).unwrap();
        let more = format!("leafnodes {{ reconnect: 1s, remotes: [{{ url: \"nats-leaf://{hub}\" }}] }}\n");
        Self::start_in(self.program.clone(), 1, &Setup { more, is_leaf: true, ..Setup::default() }, None)
    }

    /// The same, each in a network namespace of its own, so that one can be cut off: that takes root and `ip` (iproute2).
    ///
    /// Where that is missing it is said that the test is skipped, unless `RUNLEDGER_REQUIRE_NAMESPACES` is set.
    pub fn start_apart(count: usize, is_synced: bool) -> Option<Self> {
        let program = nats_server()?;
        let network = Network::make(count);
        if network.is_none() {
            assert!(std::env::var_os("RUNLEDGER_REQUIRE_NAMESPACES").is_none(), "no network namespaces can be made");
            let _ = writeln!(std::io::stderr(), "skipped: network namespaces take root and `ip`");
        }
        network.map(|network| Self::start_in(program, count, &Setup { is_synced, ..Setup::default() }, Some(network)))
    }

    fn start_in(program: PathBuf, count: usize, setup: &Setup, network: Option<Network>) -> Self {
        let node = |index| {
            let host = network.as_ref().map_or_else(|| "127.0.0.1".to_owned(), |network| network.host(index));
            Node { host, port: free_port(), http: free_port(), route: free_port(), running: None }
        };
        let nodes: Vec<Node> = (0..count).map(node).collect();
        let servers = Self { program, folder: tempfile::tempdir().unwrap(), nodes: Mutex::new(nodes), network };
        if setup.is_secure {
            write_certificates(servers.folder());
        }
        for index in 0..count {
            std::fs::write(servers.config(index), servers.config_text(index, setup)).unwrap();
            servers.begin(index);
        }
        for index in 0..count {
            servers.wait_until_ready(index);
        }
        servers
    }

    /// Cuts a server off from all others and from its clients, where each has a network of its own.
    pub fn cut_off(&self, index: usize) {
        self.network.iter().for_each(|network| network.set(index, "down"));
    }

    /// Heals that.
    pub fn heal(&self, index: usize) {
        self.network.iter().for_each(|network| network.set(index, "up"));
    }

    /// `nats://127.0.0.1:PORT,127.0.0.1:PORT…`
    pub fn url(&self) -> String {
        let ports: Vec<String> = self.nodes().iter().map(|node| format!("{}:{}", node.host, node.port)).collect();
        format!("nats://{}", ports.join(","))
    }

    /// `nats://127.0.0.1:PORT` of one of them.
    pub fn url_of(&self, index: usize) -> String {
        let nodes = self.nodes();
        format!("nats://{}:{}", nodes[index].host, nodes[index].port)
    }

    /// The port of one of them.
    pub fn port(&self, index: usize) -> u16 {
        self.nodes()[index].port
    }

    /// The port of one's interface for monitoring.
    pub fn http_port(&self, index: usize) -> u16 {
        self.nodes()[index].http
    }

    /// The folder of all their files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.nodes().len()
    }

    /// The server's process.
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.nodes()[index].running.as_ref().map(|(_, pid)| *pid)
    }

    /// Ends a server as `kill -9` does.
    pub fn kill(&self, index: usize) {
        let running = self.nodes()[index].running.take();
        if let Some((mut shell, pid)) = running {
            signal("KILL", pid);
            let _ = shell.wait();
        }
    }

    /// Keeps a server from running, as if it were cut off, until [`NatsServers::go_on`].
    pub fn stop(&self, index: usize) {
        self.pid(index).into_iter().for_each(|pid| signal("STOP", pid));
    }

    /// Lets a server go on that was stopped.
    pub fn go_on(&self, index: usize) {
        self.pid(index).into_iter().for_each(|pid| signal("CONT", pid));
    }

    /// Starts a server again that was killed, and waits until it answers.
    pub fn restart(&self, index: usize) {
        self.begin(index);
        self.wait_until_ready(index);
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, Vec<Node>> {
        self.nodes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn config(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("node-{index}.conf"))
    }

    fn config_text(&self, index: usize, setup: &Setup) -> String {
        let nodes = self.nodes();
        let Node { host, port, http, route, .. } = &nodes[index];
        let store = self.folder.path().join(format!("node-{index}"));
        let sync = if setup.is_synced { "sync_interval: always" } else { "" };
        let domain = setup.domain.map(|domain| format!("domain: {domain}")).unwrap_or_default();
        let streams = format!("jetstream {{ store_dir: \"{}\", {sync} {domain} }}\n", store.display());
        let streams = if setup.is_leaf { "" } else { &streams };
        let folder = self.folder.path().display().to_string();
        let more = setup.more.replace("HOST", host).replace("ROUTE", &route.to_string()).replace("FOLDER", &folder);
        let routes: Vec<String> = nodes.iter().map(|node| format!("nats://{}:{}", node.host, node.route)).collect();
        let cluster = match nodes.len() {
            1 => String::new(),
            _ => format!(
                "cluster {{ name: tests, listen: \"{host}:{route}\", no_advertise: true, routes: [{}] }}\n",
                routes.join(", ")
            ),
        };
        format!(
            "server_name: node-{index}\nlisten: \"{host}:{port}\"\nhttp: \"{host}:{http}\"\nmax_payload: 64MB\n\
             {streams}{cluster}{more}"
        )
    }

    fn begin(&self, index: usize) {
        let log = self.folder.path().join(format!("node-{index}.log"));
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        // The shell's input ends with this process, however that ends, and the server with it.
        let mut command = self.network.as_ref().map_or_else(|| Command::new("sh"), |network| network.shell(index));
        let mut shell = command
            .args(["-c", "\"$0\" -c \"$1\" < /dev/null & echo $!; read -r _; kill -9 $! 2> /dev/null"])
            .arg(&self.program)
            .arg(self.config(index))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let told = shell.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(told), &mut line).unwrap();
        self.nodes()[index].running = Some((shell, line.trim().parse().unwrap()));
    }

    fn wait_until_ready(&self, index: usize) {
        let (host, port) = {
            let nodes = self.nodes();
            (nodes[index].host.clone(), nodes[index].http)
        };
        let began = Instant::now();
        while !is_healthy(&host, port) {
            let log = self.folder.path().join(format!("node-{index}.log"));
            assert!(began.elapsed() < READY, "no answer: {}", std::fs::read_to_string(log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for NatsServers {
    fn drop(&mut self) {
        for index in 0..self.count() {
            self.kill(index);
        }
    }
}

/// Writes certificates of one signer: `ca.pem`, `server.pem` of 127.0.0.1 alone, `client.pem`, and the keys of both, `server-key.pem`
/// and `client-key.pem`.
pub fn write_certificates(folder: &Path) {
    let signing = KeyPair::generate().unwrap();
    let mut signer = CertificateParams::new(Vec::new()).unwrap();
    signer.distinguished_name.push(DnType::CommonName, "signer");
    signer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(folder.join("ca.pem"), signer.self_signed(&signing).unwrap().pem()).unwrap();
    let issuer = Issuer::new(signer, signing);
    for (name, whose) in [("server", "127.0.0.1"), ("client", "runner")] {
        let key = KeyPair::generate().unwrap();
        let mut signed = CertificateParams::new([whose.to_owned()]).unwrap();
        signed.distinguished_name.push(DnType::CommonName, whose);
        let certificate = signed.signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }
}

/// A bridge, and a network namespace on it for each server. It goes with this value.
#[derive(Debug)]
struct Network {
    name: String,
    subnet: String,
    count: usize,
}

impl Network {
    fn make(count: usize) -> Option<Self> {
        let number = std::process::id();
        let name = format!("rl{}", number % 100_000);
        let network = Self { name: name.clone(), subnet: format!("10.213.{}", number % 250), count };
        let mut is_made = ip(&["link", "add", &name, "type", "bridge"])
            && ip(&["addr", "add", &format!("{}.1/24", network.subnet), "dev", &name])
            && ip(&["link", "set", &name, "up"]);
        for index in 0..count {
            let (space, link) = (network.space(index), network.link(index));
            is_made = is_made
                && ip(&["netns", "add", &space])
                && ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &space])
                && ip(&["link", "set", &link, "master", &name, "up"])
                && ip(&["-n", &space, "addr", "add", &format!("{}/24", network.host(index)), "dev", "eth0"])
                && ip(&["-n", &space, "link", "set", "eth0", "up"])
                && ip(&["-n", &space, "link", "set", "lo", "up"]);
        }
        is_made.then_some(network)
    }

    fn host(&self, index: usize) -> String {
        format!("{}.{}", self.subnet, index + 10)
    }

    fn space(&self, index: usize) -> String {
        format!("{}-{index}", self.name)
    }

    fn link(&self, index: usize) -> String {
        format!("{}v{index}", self.name)
    }

    fn shell(&self, index: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(index), "sh"]);
        command
    }

    fn set(&self, index: usize, state: &str) {
        assert!(ip(&["link", "set", &self.link(index), state]), "{} {state}", self.link(index));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for index in 0..self.count {
            ip(&["netns", "del", &self.space(index)]);
        }
        ip(&["link", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn signal(name: &str, pid: u32) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).stderr(Stdio::null()).status();
}

/// A port below those that the system gives to connections: one of theirs could be taken before the server has it, or while it is down.
fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let place = std::process::id() % 500 * 40 + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + place % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Whether a server says that it can keep streams.
fn is_healthy(host: &str, port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((host, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /healthz?js-enabled-only=true HTTP/1.0\r\n\r\n")?;
        std::io::read_to_string(stream)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"))
}

/// One server that all tests of this process share, where there is the program.
pub fn shared_nats() -> Option<&'static NatsServers> {
    static SHARED: OnceLock<Option<NatsServers>> = OnceLock::new();
    SHARED.get_or_init(|| NatsServers::start(1, false)).as_ref()
}

/// An address of a ledger that nobody else has, on these servers.
pub fn new_address(servers: &NatsServers, replicas: usize) -> String {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{}/ledger-{}-{number}?replicas={replicas}", servers.url(), std::process::id())
}

/// What stands between a client and a server on loopback, and cuts every connection whenever it is told to.
#[derive(Debug)]
pub struct Cutter {
    port: u16,
    connections: std::sync::Arc<Mutex<Vec<TcpStream>>>,
}

impl Cutter {
    /// Listens, and passes everything on to this port.
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let connections: std::sync::Arc<Mutex<Vec<TcpStream>>> = std::sync::Arc::default();
        let kept = connections.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                pass(&client, &server);
                pass(&server, &client);
                kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend([client, server]);
            }
        });
        Self { port: own, connections }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts all that is connected now.
    pub fn cut(&self) {
        let mut connections = self.connections.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for connection in connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn pass(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}
