//! What the commands that break things start from: a real PostgreSQL, edges that may be killed, the null upstream behind them, and
//! load that goes on meanwhile. What is broken, and what is promised then, is each command's own.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use model::ApiKey;
use testkit::control::migrate;
use testkit::edge::{Edge, Settings};
use testkit::key_rows::digest_hex;
use testkit::postgres::Postgres;
use tokio::time::Instant;

use crate::generator;
use crate::keys::{self, KeyPair};
use crate::process::{Group, pinned};

/// Which binary is tested, and on which cores.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Setup {
    /// The edge's binary.
    #[arg(long, value_name = "FILE", default_value = "target/release/okmon")]
    pub(crate) okmon: PathBuf,
    /// The core that edges are held to.
    #[arg(long, default_value = "0")]
    edge_core: u32,
    /// The core that generator and upstream are held to.
    #[arg(long, default_value = "1")]
    load_core: u32,
}

impl Setup {
    /// The core of whoever sends.
    pub(crate) const fn load_core(&self) -> u32 {
        self.load_core
    }
}

/// A database server, an upstream, and a directory for files.
pub(crate) struct Site {
    pub(crate) setup: Setup,
    pub(crate) postgres: Postgres,
    pub(crate) upstream: SocketAddr,
    _upstream: Group,
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new(setup: &Setup) -> anyhow::Result<Self> {
        Self::with_upstream(setup, &[])
    }

    /// As [`Site::new`], with these flags for the null upstream.
    pub(crate) fn with_upstream(setup: &Setup, flags: &[&str]) -> anyhow::Result<Self> {
        let okmon = setup.okmon.display();
        ensure!(
            setup.okmon.is_file(),
            "--okmon {okmon} does not exist; cargo build --release -p okmon makes it"
        );
        let directory = tempfile::tempdir().context("temporary directory")?;
        let upstream = SocketAddr::from(([127, 0, 0, 1], testkit::peers::free_port()));
        let mut command = pinned(setup.load_core, std::env::current_exe()?);
        command.args(["upstream", "--listen", &upstream.to_string()]);
        command.args(flags);
        let mut group = Group::start(command, directory.path().join("upstream.log"))?;
        group.await_port(upstream).context("null upstream")?;
        Ok(Self {
            setup: setup.clone(),
            postgres: Postgres::start(),
            upstream,
            _upstream: group,
            directory,
        })
    }

    /// A database with tables and nothing in them: its URL.
    pub(crate) fn database(&self) -> String {
        self.database_of(&self.postgres)
    }

    /// As [`Site::database`], on another server.
    pub(crate) fn database_of(&self, postgres: &Postgres) -> String {
        let url = postgres.database();
        migrate(&self.setup.okmon, &url);
        url
    }

    /// Puts keys and their tenants into the database at `url` as somebody would who has many: with COPY.
    pub(crate) fn copy_keys(&self, url: &str, keys: &[KeyPair]) -> anyhow::Result<()> {
        let (mut tenants, mut rows) = (String::new(), String::new());
        let mut last = "";
        for pair in keys {
            let key: ApiKey = pair.key.parse()?;
            // Keys of one tenant follow one another.
            if pair.tenant != last {
                last = &pair.tenant;
                writeln!(tenants, "{last}\t{last}\tload@example.com")?;
            }
            let digest = digest_hex(&key);
            writeln!(rows, "{}\t{}\t\\\\x{digest}", key.id(), pair.tenant)?;
        }
        let tenants = self.file("tenants.tsv", &tenants)?;
        let rows = self.file("keys.tsv", &rows)?;
        let mut psql = self.postgres.psql(url);
        let copy = |what: &str, from: &Path| format!("\\copy {what} from '{}'", from.display());
        psql.args(["-c", &copy("tenants (id, name, email)", &tenants)]);
        psql.args(["-c", &copy("api_keys (key_id, tenant_id, digest)", &rows)]);
        let done = psql.output().context("psql")?;
        let errors = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "copying keys: {errors}");
        Ok(())
    }

    /// An edge that is held to its core, not yet started. `keys` are lines for the section `[keys]`.
    pub(crate) fn edge(&self, url: &str, keys: &str) -> Edge {
        Edge::new(self.edge_settings(url, keys))
    }

    /// What [`Site::edge`] is set up by, to be changed.
    pub(crate) fn edge_settings(&self, url: &str, keys: &str) -> Settings {
        let core = self.setup.edge_core.to_string();
        Settings {
            okmon: self.setup.okmon.clone(),
            keys: keys.to_owned(),
            log: "warn",
            before: ["taskset", "-c", &core].map(str::to_owned).into(),
            ..Settings::new(url, self.upstream)
        }
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// A file of keys for [`Site::load`].
    pub(crate) fn keys_file(&self, name: &str, pairs: &[KeyPair]) -> anyhow::Result<PathBuf> {
        let mut text = Vec::new();
        keys::write(pairs, &mut text)?;
        self.file(name, &String::from_utf8(text)?)
    }

    /// One run of the generator.
    pub(crate) fn run(&self, load: &Load) -> anyhow::Result<generator::Report> {
        run(load, self.setup.load_core)
    }

    /// Starts load that goes on until it is stopped.
    pub(crate) fn load(&self, load: Load) -> Continuous {
        Continuous::start(load, self.setup.load_core)
    }
}

/// What a generator is told.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) target: String,
    pub(crate) protocol: &'static str,
    pub(crate) keys: PathBuf,
    /// Closed loop without it.
    pub(crate) rate: Option<u32>,
    pub(crate) connections: u32,
    pub(crate) duration: Duration,
}

fn run(load: &Load, core: u32) -> anyhow::Result<generator::Report> {
    let mut command = generator(core)?;
    command
        .args(["--target", &load.target])
        .args(["--protocol", load.protocol, "--keys"])
        .arg(&load.keys)
        .args(["--connections", &load.connections.to_string()])
        .args(["--duration", &load.duration.as_secs_f64().to_string()]);
    if let Some(rate) = load.rate {
        command.args(["--rate", &rate.to_string()]);
    }
    generate(command)
}

/// `loadtest run --json` on `core`, its arguments still to come.
pub(crate) fn generator(core: u32) -> anyhow::Result<Command> {
    let mut command = pinned(core, std::env::current_exe()?);
    command.args(["run", "--json"]).stdin(Stdio::null());
    Ok(command)
}

/// Runs what [`generator`] began.
pub(crate) fn generate(mut command: Command) -> anyhow::Result<generator::Report> {
    let output = command
        .output()
        .context("taskset (Debian package util-linux)")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// A run of a continuous load.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) started: Instant,
    pub(crate) report: generator::Report,
}

/// Load in runs that follow one another, each with a report of its own.
pub(crate) struct Continuous {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    windows: Mutex<Vec<Window>>,
}

impl Continuous {
    fn start(load: Load, core: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !of_thread.stopped.load(Ordering::Relaxed) {
                let started = Instant::now();
                let report = run(&load, core)?;
                let window = Window { started, report };
                of_thread.windows().push(window);
            }
            Ok(())
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// How many runs are complete.
    pub(crate) fn complete(&self) -> usize {
        self.shared.windows().len()
    }

    /// Waits for the end of the run that goes on: all runs.
    pub(crate) fn stop(mut self) -> anyhow::Result<Vec<Window>> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            ended.map_err(|_| anyhow::anyhow!("the load ended by a panic"))??;
        }
        Ok(std::mem::take(&mut self.shared.windows()))
    }
}

impl Shared {
    fn windows(&self) -> std::sync::MutexGuard<'_, Vec<Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Continuous {
    fn drop(&mut self) {
        // A command that failed does not wait for the run to end; the process's end ends the thread.
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

/// Requests accepted, and those that were not, by what they got instead.
pub(crate) fn sum<'a>(
    reports: impl IntoIterator<Item = &'a generator::Report>,
) -> (u64, std::collections::BTreeMap<String, u64>) {
    let mut accepted = 0;
    let mut other = std::collections::BTreeMap::new();
    for report in reports {
        accepted += report.accepted;
        for (what, count) in &report.other {
            *other.entry(what.clone()).or_default() += count;
        }
    }
    (accepted, other)
}
