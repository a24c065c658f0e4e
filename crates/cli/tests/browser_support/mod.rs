//! A real browser for tests: chromium without a window, driven by a chromedriver of its own. Both end with the value.
//!
//! They are looked for in `PATH`. Without them a test says that it was skipped; with `RUNLEDGER_REQUIRE_BROWSER` that is a
//! failure.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test uses a part, and may fail loudly")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::{Running, is_running, wait_until};
use crate::web_support::ask;

/// How long something may take to show on a page before a test gives up; far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the browser may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(5);

/// The browser, with one page.
pub(crate) struct Browser {
    runtime: Runtime,
    client: Option<Client>,
    /// Where its driver listens, and the path of its session there.
    driver: String,
    session: String,
    driver_process: Option<Running>,
    /// Its profile and its home.
    folder: TempDir,
}

/// A program in PATH.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

impl Browser {
    /// Starts it; none where there is no browser on this machine, and none is asked for.
    pub(crate) fn start() -> Option<Self> {
        let found = (find("chromium"), find("chromedriver"));
        let (Some(chromium), Some(chromedriver)) = found else {
            let wanted = std::env::var_os("RUNLEDGER_REQUIRE_BROWSER").is_some_and(|value| value != "0");
            assert!(!wanted, "chromium or chromedriver is not in PATH: {found:?}");
            // Not by `eprintln!`, whose words the test runner keeps to itself when a test passes.
            _ = writeln!(std::io::stderr(), "skipped: chromium or chromedriver is not in PATH");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("driver");
        let mut command = Command::new(chromedriver);
        command.arg("--port=0").env("HOME", folder.path()).stdin(std::process::Stdio::null());
        command.stdout(std::fs::File::create(&out).unwrap());
        let running = Running::start_without_stdout(&mut command);
        let mut port = None;
        wait_until("chromedriver's port", || {
            let said = std::fs::read_to_string(&out).unwrap();
            port = said.split_once("successfully on port ").and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok());
            port.is_some()
        });
        let port: u16 = port.unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut browser = Self {
            runtime,
            client: None,
            driver: format!("127.0.0.1:{port}"),
            session: String::new(),
            driver_process: Some(running),
            folder,
        };
        browser.begin(&chromium);
        Some(browser)
    }

    fn begin(&mut self, chromium: &Path) {
        let profile = format!("--user-data-dir={}", self.profile().display());
        let mut arguments = vec![
            "--headless=new",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-extensions",
            "--no-first-run",
            "--window-size=1280,900",
            // A site of somebody else whose name leads here.
            "--host-resolver-rules=MAP evil.example 127.0.0.1",
            &profile,
        ];
        if rustix::process::geteuid().is_root() {
            arguments.push("--no-sandbox");
        }
        let capabilities = json!({
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let driver = format!("http://{}", self.driver);
        let client =
            self.runtime.block_on(ClientBuilder::new(HttpConnector::new()).capabilities(capabilities).connect(&driver));
        let client = client.unwrap();
        let session = self.runtime.block_on(client.session_id()).unwrap().unwrap();
        self.session = format!("/session/{session}");
        self.client = Some(client);
    }

    fn profile(&self) -> PathBuf {
        self.folder.path().join("profile")
    }

    /// The browser's own process, which is named by a link in the profile.
    fn pid(&self) -> Option<i32> {
        let link = std::fs::read_link(self.profile().join("SingletonLock")).ok()?;
        link.to_str()?.rsplit_once('-')?.1.parse().ok()
    }

    fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    /// Opens an address; what is there is there when this returns.
    pub(crate) fn open(&self, url: &str) {
        self.runtime.block_on(self.client().goto(url)).unwrap();
    }

    pub(crate) fn reload(&self) {
        self.runtime.block_on(self.client().refresh()).unwrap();
    }

    pub(crate) fn address(&self) -> String {
        self.runtime.block_on(self.client().current_url()).unwrap().to_string()
    }

    /// What a script of the test gives.
    pub(crate) fn script(&self, script: &str) -> Value {
        self.runtime.block_on(self.client().execute(script, Vec::new())).unwrap_or_else(|e| panic!("{e}: {script}"))
    }

    /// Waits until something holds on the page, in words of JavaScript; says what is there where it never does.
    pub(crate) fn wait_for(&self, what: &str) {
        let script = format!("return !!({what});");
        let began = Instant::now();
        while self.script(&script) != json!(true) {
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what} on\n{}\n{:?}", self.seen(), self.console());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a text on the page, and shows what is there otherwise.
    pub(crate) fn wait_for_text(&self, selector: &str, text: &str) {
        let found = format!("[...document.querySelectorAll({})].map((e) => e.innerText)", json!(selector));
        self.wait_for(&format!("{found}.some((t) => t.includes({}))", json!(text)));
    }

    /// The texts of all that a selector fits.
    pub(crate) fn texts(&self, selector: &str) -> Vec<String> {
        let script =
            format!("return [...document.querySelectorAll({})].map((e) => e.innerText.trim())", json!(selector));
        self.script(&script).as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    fn seen(&self) -> String {
        let text = self.script("return location.href + '\\n' + document.body.innerText");
        text.as_str().unwrap_or_default().chars().take(1500).collect()
    }

    /// Does something to an element as soon as it is there and takes it: a page that is drawn anew has others.
    fn with(&self, selector: &str, act: impl AsyncFn(Element) -> Result<(), CmdError>) {
        wait_until(selector, || {
            self.runtime.block_on(async {
                let found = self.client().find(Locator::Css(selector)).await;
                match found {
                    Ok(element) => act(element).await.is_ok(),
                    Err(_) => false,
                }
            })
        });
    }

    pub(crate) fn click(&self, selector: &str) {
        self.with(selector, async |element| element.click().await);
    }

    pub(crate) fn write(&self, selector: &str, text: &str) {
        self.with(selector, async |element| element.send_keys(text).await);
    }

    pub(crate) fn select(&self, selector: &str, value: &str) {
        self.with(selector, async |element| element.select_by_value(value).await);
    }

    /// Presses a key where the focus is.
    pub(crate) fn press(&self, key: char) {
        let text = key.to_string();
        self.runtime.block_on(async { self.client().active_element().await?.send_keys(&text).await }).unwrap();
    }

    /// A command of the browser's own protocol.
    pub(crate) fn chromium(&self, command: &str, parameters: &Value) {
        self.tell("goog/cdp/execute", &json!({"cmd": command, "params": parameters}));
    }

    /// What stands in the console since this was asked last: errors, and what the policy of the page refused.
    pub(crate) fn console(&self) -> Vec<Value> {
        self.tell("se/log", &json!({"type": "browser"})).as_array().unwrap().clone()
    }

    /// A command of the driver that the protocol's standard has not.
    fn tell(&self, command: &str, body: &Value) -> Value {
        let path = format!("{}/{command}", self.session);
        let answer = ask(&self.driver, "POST", &path, &[("Content-Type", "application/json")], &body.to_string());
        assert_eq!(answer.status, 200, "{command}: {answer:?}");
        serde_json::from_str::<Value>(&answer.body).unwrap()["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let pid = self.pid();
        if let Some(client) = self.client.take() {
            _ = self.runtime.block_on(async { tokio::time::timeout(FAREWELL, client.close()).await });
        }
        // The driver is ended with its value. What it did not end of its own is ended by its number, unless that is another's
        // by now.
        self.driver_process = None;
        let profile = self.profile().display().to_string();
        if let Some(pid) = pid.filter(|pid| is_running(&pid.to_string()))
            && std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|words| String::from_utf8_lossy(&words).contains(&profile))
            && let Some(pid) = Pid::from_raw(pid)
        {
            _ = kill_process(pid, Signal::KILL);
        }
    }
}
