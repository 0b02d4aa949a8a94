//! An edge on a SQLite database, and the null upstream behind it: all that the commands need that break nothing but the edge itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::certificates::Authority;
use testkit::peers::free_port;
use tokio::time::Instant;

use crate::keys::{self, KeyPair};
use crate::process::{Group, pinned};
use crate::seed;

/// Which binary is tested, and on which cores.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Place {
    /// The edge's binary.
    #[arg(long, value_name = "FILE", default_value = "target/release/okmon")]
    pub(crate) okmon: PathBuf,
    /// The core that edges are held to.
    #[arg(long, default_value = "0")]
    pub(crate) edge_core: u32,
    /// The core that everybody else is held to.
    #[arg(long, default_value = "1")]
    pub(crate) load_core: u32,
}

/// Where edges can be started: a database with two tenants in it, and an upstream.
pub(crate) struct Stand {
    /// The key of a tenant that means well.
    pub(crate) good: KeyPair,
    /// The key of another one.
    pub(crate) other: KeyPair,
    directory: tempfile::TempDir,
    upstream: Upstream,
}

/// A null upstream.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    _group: Group,
}

impl Upstream {
    fn start(place: &Place, log: PathBuf) -> anyhow::Result<Self> {
        let address = loopback();
        let mut command = pinned(place.load_core, std::env::current_exe()?);
        command.args(["upstream", "--listen", &address.to_string()]);
        let mut group = Group::start(command, log)?;
        group.await_port(address).context("null upstream")?;
        Ok(Self {
            address,
            _group: group,
        })
    }
}

/// A running edge.
pub(crate) struct Edge {
    pub(crate) group: Group,
    pub(crate) address: SocketAddr,
    ops: SocketAddr,
}

impl Stand {
    pub(crate) fn new(place: &Place) -> anyhow::Result<Self> {
        let okmon = place.okmon.display();
        ensure!(
            place.okmon.is_file(),
            "--okmon {okmon} does not exist; cargo build --release -p okmon makes it"
        );
        let directory = tempfile::tempdir().context("temporary directory")?;
        let mut keys = keys::generate(2)?;
        let database = directory.path().join("edge.sqlite");
        let url = format!("sqlite://{}", database.display());
        let script = directory.path().join("edge.sql");
        seed::sqlite(&place.okmon, &url, &database, &script, &keys)?;
        let (other, good) = keys.pop().zip(keys.pop()).context("no keys")?;
        let upstream = Upstream::start(place, directory.path().join("upstream.log"))?;
        Ok(Self {
            good,
            other,
            directory,
            upstream,
        })
    }

    /// Where the null upstream listens.
    pub(crate) const fn upstream(&self) -> SocketAddr {
        self.upstream.address
    }

    /// One more, which counts for itself.
    pub(crate) fn another_upstream(&self, place: &Place) -> anyhow::Result<Upstream> {
        Upstream::start(place, self.directory.path().join("upstream-2.log"))
    }

    /// A place for files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The database that the keys are in.
    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("edge.sqlite")
    }

    /// Starts an edge by `command`, its arguments still to come, and waits until it is ready.
    pub(crate) fn edge(&self, name: &str, command: Command) -> anyhow::Result<Edge> {
        self.start(name, "", command)
            .with_context(|| name.to_owned())
    }

    /// The same, over TLS.
    pub(crate) fn edge_over_tls(&self, name: &str, command: Command) -> anyhow::Result<Edge> {
        let authority = Authority::new("servers");
        let pair = authority
            .issue(&["localhost"])
            .write(self.directory(), name);
        let section = format!(
            "[listeners.all.tls]\ncertificates = [{{ cert_file = \"{}\", key_file = \"{}\" }}]\n",
            pair.certificate.display(),
            pair.key.display()
        );
        self.start(name, &section, command)
            .with_context(|| name.to_owned())
    }

    fn start(&self, name: &str, section: &str, command: Command) -> anyhow::Result<Edge> {
        let (address, ops) = (loopback(), loopback());
        let directory = self.directory.path();
        let config = include_str!("stand.toml")
            .replace("{{port}}", &address.port().to_string())
            .replace("{{ops}}", &ops.port().to_string())
            .replace("{{database}}", &self.database().display().to_string())
            .replace("{{upstream}}", &self.upstream.address.to_string())
            + section;
        let file = directory.join(format!("{name}.toml"));
        std::fs::write(&file, config).with_context(|| file.display().to_string())?;
        Edge::begin(command, &file, address, ops)
    }
}

/// An address that was free a moment ago.
pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

impl Edge {
    /// Starts an edge by `command`, its arguments still to come, with the configuration in `file`, and waits until it is ready. What it
    /// prints is in a file beside that.
    pub(crate) fn begin(
        mut command: Command,
        file: &Path,
        address: SocketAddr,
        ops: SocketAddr,
    ) -> anyhow::Result<Self> {
        command
            .args(["edge", "--config"])
            .arg(file)
            .env_remove("OKMON_DATABASE_URL")
            .env_remove("OKMON_LOG");
        let mut group = Group::start(command, file.with_extension("log"))?;
        group.await_port(address)?;
        let edge = Self {
            group,
            address,
            ops,
        };
        // Its keys may not be read yet when it begins to listen.
        let deadline = Instant::now() + Duration::from_secs(30);
        while edge.ask("/readyz").is_err() {
            ensure!(Instant::now() < deadline, "not ready after 30 s");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(edge)
    }

    fn ask(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{}{path}", self.ops);
        let mut answer = ureq::get(&url).call().with_context(|| url.clone())?;
        answer.body_mut().read_to_string().context(url)
    }

    /// All metrics, by name and labels.
    pub(crate) fn metrics(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let text = self.ask("/metrics")?;
        let metrics = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let value = value.parse().ok()?;
            (!name.starts_with('#')).then(|| (name.to_owned(), value))
        });
        Ok(metrics.collect())
    }

    /// All counters, by name and labels.
    pub(crate) fn counters(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let mut metrics = self.metrics()?;
        metrics.retain(|name, _| {
            name.split('{')
                .next()
                .is_some_and(|name| name.ends_with("_total"))
        });
        Ok(metrics)
    }
}
