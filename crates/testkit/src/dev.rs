//! `okmon dev` as a user starts it, on ports of its own, gone with the test.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use model::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Process, Received, eventually, peers};

/// The promise is ten seconds once built; tests share the machine with others.
const START_MAX: Duration = Duration::from_secs(30);

/// From a sender's success until the sink shows it: the same process, hence soon.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// The flags that choose a port.
const PORTS: [&str; 6] = [
    "--otlp-grpc-port",
    "--otlp-http-port",
    "--api-port",
    "--ops-port",
    "--control-port",
    "--sink-port",
];

/// A running `okmon dev --ephemeral`.
#[derive(Debug)]
pub struct Dev {
    /// What it printed when it was ready.
    pub ready: Ready,
    process: Process,
    _folder: TempDir,
}

/// The line that `okmon dev --json` prints once all ports answer. Addresses are URLs without a path.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// The tenant it made.
    pub tenant: String,
    /// That tenant's key.
    pub key: String,
    /// OTLP/gRPC.
    pub otlp_grpc: String,
    /// OTLP/HTTP.
    pub otlp_http: String,
    /// Every HTTP route.
    pub api: String,
    /// Metrics and probes of the edge.
    pub ops: String,
    /// The control API.
    pub control: String,
    /// What stands in for the backends, and shows what arrived.
    pub sink: String,
    /// For the control API.
    pub operator_token: String,
}

impl Dev {
    /// Starts it on free ports and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start; the text has all that it printed.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts it with further arguments.
    ///
    /// # Panics
    /// As [`Dev::start`].
    pub fn start_with(arguments: &[&str]) -> Self {
        let all: Vec<_> = ["--ephemeral"].iter().chain(arguments).collect();
        Self::start_command(&all)
    }

    /// Starts it on a data directory, which it leaves as it is.
    ///
    /// # Panics
    /// As [`Dev::start`].
    pub fn start_in(directory: &Path) -> Self {
        Self::start_command(&[OsStr::new("--data-dir"), directory.as_os_str()])
    }

    fn start_command(arguments: &[impl AsRef<OsStr>]) -> Self {
        // Killed, it leaves its temporary directory behind: in this one.
        let folder = match tempfile::tempdir() {
            Ok(folder) => folder,
            Err(error) => panic!("no temporary directory: {error}"),
        };
        let mut command = okmon();
        command
            .args(["dev", "--json"])
            .args(PORTS.iter().flat_map(|port| [port, "0"]))
            .args(arguments)
            .env("TMPDIR", folder.path());
        let mut process = Process::spawn("okmon dev", command);
        let ready = process.wait_until(START_MAX, "be ready", |process| {
            let stdout = process.stdout();
            let line = stdout.lines().find(|line| line.starts_with('{'))?;
            match serde_json::from_str(line) {
                Ok(ready) => Some(ready),
                Err(error) => panic!("okmon dev: {error} in {line}"),
            }
        });
        Self {
            ready,
            process,
            _folder: folder,
        }
    }

    /// Creates a tenant through the control API, and returns its first key.
    ///
    /// # Panics
    /// When the control API refuses.
    pub fn create_tenant(&self, id: &str) -> String {
        let url = format!("{}/api/v1/tenants", self.ready.control);
        let tenant = json!({"id": id, "name": id, "email": "operator@example.com"});
        let answer: Result<Value, _> = ureq::post(&url)
            .header(
                "Authorization",
                format!("Bearer {}", self.ready.operator_token),
            )
            .send_json(tenant)
            .and_then(|mut answer| answer.body_mut().read_json());
        match answer.map(|created| {
            created
                .pointer("/key/key")
                .and_then(Value::as_str)
                .map(str::to_owned)
        }) {
            Ok(Some(key)) => key,
            other => panic!(
                "POST {url}: {other:?}; okmon dev: {}",
                self.process.stderr()
            ),
        }
    }

    /// What the sink shows for the tenant now, newest first.
    ///
    /// # Panics
    /// When the sink does not answer.
    pub fn received(&self, signal: Signal) -> Vec<Received> {
        self.received_by(&self.ready.tenant, signal)
    }

    /// What the sink shows for any tenant now, newest first.
    ///
    /// # Panics
    /// When the sink does not answer.
    pub fn received_by(&self, tenant: &str, signal: Signal) -> Vec<Received> {
        let url = format!("{}/api/tenants/{tenant}/{signal}", self.ready.sink);
        let answer = ureq::get(&url)
            .call()
            .and_then(|mut answer| answer.body_mut().read_json());
        match answer {
            Ok(received) => received,
            Err(error) => panic!("GET {url}: {error}; okmon dev: {}", self.process.stderr()),
        }
    }

    /// Waits until the sink shows at least `items` items of the tenant, and returns their requests, newest first,
    /// each checked by [`Received::belongs_only_to`].
    ///
    /// # Panics
    /// When they do not arrive within ten seconds, or a check fails.
    pub fn wait_for(&self, signal: Signal, items: usize) -> Vec<Received> {
        let what = format!("{items} items of {signal} at the sink");
        let found = eventually(ARRIVAL_MAX, &what, || {
            let received = self.received(signal);
            let count: usize = received.iter().map(|request| request.item_count).sum();
            if count >= items {
                Ok(received)
            } else {
                Err(format!("{count} items, {}", self.process.stderr()))
            }
        });
        for request in &found {
            request.belongs_only_to(&self.ready.tenant, &self.ready.key);
        }
        found
    }

    /// # Panics
    /// When the sink has seen anything of any tenant.
    #[track_caller]
    pub fn sink_is_empty(&self) {
        let url = format!("{}/api/tenants", self.ready.sink);
        let tenants = ureq::get(&url)
            .call()
            .and_then(|mut answer| answer.body_mut().read_to_string());
        assert_eq!(tenants.ok().as_deref(), Some("[]"), "want an empty sink");
    }

    /// A key with the right form and checksum that nobody was given.
    ///
    /// # Panics
    /// When the system has no random bytes.
    pub fn unknown_key() -> String {
        model::ApiKey::generate().map_or_else(
            |error| panic!("no random bytes: {error}"),
            |key| key.reveal().to_owned(),
        )
    }
}

/// The binary: `OKMON_BIN`, or the one beside this test, built if it is missing. It is not rebuilt when it is old:
/// `cargo test --workspace` and `scripts/test.sh` do that.
///
/// # Panics
/// When it cannot be built.
pub fn okmon() -> Command {
    static BUILD: Once = Once::new();
    if let Some(path) = std::env::var_os("OKMON_BIN") {
        return Command::new(path);
    }
    let Ok(this) = std::env::current_exe() else {
        panic!("this test does not know its own path: set OKMON_BIN");
    };
    // target/debug/deps/it-0123456789abcdef, or a binary of ours in target/debug
    let folder = this.parent().unwrap_or(&this);
    let folder = match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    let path = folder.join("okmon");
    if !path.exists() {
        BUILD.call_once(|| {
            // By its name: rustup then tells the compiler's version on, whatever a dependency's folder asks for.
            let mut build = Command::new("cargo");
            build
                .args(["build", "-p", "okmon"])
                .current_dir(peers::root());
            Process::spawn("cargo build -p okmon", build)
                .wait(Duration::from_mins(20))
                .succeeded();
        });
    }
    Command::new(path)
}
