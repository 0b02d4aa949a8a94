//! Plays the service manager: holds the listening sockets, and starts, stops and reloads an edge that inherits them, in the order in
//! which systemd does it.

use std::fs::{File, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use crate::process::pinned;
use crate::stand::{Place, Stand, loopback};

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Standard input and output are the only descriptors that a child can be given without unsafe code; the shell puts them where
/// `sd_listen_fds(3)` wants them, and is then replaced by the edge.
const HAND_OVER: &str = "exec 3<&0 4<&1 </dev/null >&2
export LISTEN_FDS=2 LISTEN_FDNAMES=all:grpc LISTEN_PID=$$
exec \"$0\" edge --config \"$1\"";

/// Which of the two configurations an edge reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    A,
    B,
}

impl Variant {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// The sockets, and the edge that uses them while there is one.
pub(super) struct Manager<'a> {
    place: &'a Place,
    sockets: [TcpListener; 2],
    pub(super) all: SocketAddr,
    pub(super) grpc: SocketAddr,
    ops: SocketAddr,
    /// The configuration, with its variant to be filled in.
    template: String,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// How long a restart's halves took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restart {
    /// From SIGTERM to the end of the process.
    pub(super) stop: Duration,
    /// From the start of the next one until it says that it is ready.
    pub(super) start: Duration,
    /// Whether the process ended with status 0.
    pub(super) in_order: bool,
}

impl<'a> Manager<'a> {
    /// Opens the sockets; nobody accepts from them yet.
    pub(super) fn new(
        place: &'a Place,
        stand: &Stand,
        upstreams: [SocketAddr; 2],
    ) -> anyhow::Result<Self> {
        let listen = || TcpListener::bind("127.0.0.1:0").context("a socket");
        let sockets = [listen()?, listen()?];
        let (all, grpc) = (sockets[0].local_addr()?, sockets[1].local_addr()?);
        let (ops, directory) = (loopback(), stand.directory());
        let template = include_str!("edge.toml")
            .replace("{{all}}", &all.to_string())
            .replace("{{grpc}}", &grpc.to_string())
            .replace("{{ops}}", &ops.to_string())
            .replace("{{database}}", &stand.database().display().to_string())
            .replace("{{upstream_a}}", &upstreams[0].to_string())
            .replace("{{upstream_b}}", &upstreams[1].to_string());
        let manager = Self {
            place,
            sockets,
            all,
            grpc,
            ops,
            template,
            config: directory.join("restarts.toml"),
            log: directory.join("restarts.log"),
            child: None,
        };
        manager.configure(Variant::A)?;
        Ok(manager)
    }

    /// Writes the edge's configuration, in one step as a careful operator does.
    fn configure(&self, variant: Variant) -> anyhow::Result<()> {
        let (to, body_max) = match variant {
            Variant::A => ("a", "64MiB"),
            Variant::B => ("b", "32MiB"),
        };
        let text = self.template.replace("{{to}}", to);
        let text = text.replace("{{body_max}}", body_max);
        let new = self.config.with_extension("new");
        std::fs::write(&new, text).with_context(|| new.display().to_string())?;
        std::fs::rename(&new, &self.config).with_context(|| self.config.display().to_string())
    }

    /// Starts an edge and waits until it is ready.
    pub(super) fn start(&mut self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let [all, grpc] = &self.sockets;
        let hand_over = |socket: &TcpListener| -> anyhow::Result<Stdio> {
            Ok(OwnedFd::from(socket.try_clone()?).into())
        };
        let log = self.open_log()?;
        let mut command = pinned(self.place.edge_core, "sh");
        command
            .args(["-c", HAND_OVER])
            .arg(&self.place.okmon)
            .arg(&self.config)
            .env_remove("OKMON_DATABASE_URL")
            .env_remove("OKMON_LOG")
            .stdin(hand_over(all)?)
            .stdout(hand_over(grpc)?)
            .stderr(log);
        let child = command
            .spawn()
            .context("taskset (Debian package util-linux)")?;
        self.child = Some(child);
        self.until("be ready", |manager| {
            ask(manager.ops, "/readyz").map(|_| ())
        })?;
        Ok(started.elapsed())
    }

    /// Stops the edge, and starts another when it has ended, as `systemctl restart` does.
    pub(super) fn restart(&mut self) -> anyhow::Result<Restart> {
        let told = Instant::now();
        let status = self.stop()?;
        let stop = told.elapsed();
        Ok(Restart {
            stop,
            start: self.start()?,
            in_order: status.success(),
        })
    }

    /// Asks the edge to stop, and waits until it has.
    pub(super) fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        let mut child = self.child.take().context("no edge runs")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                anyhow::bail!("the edge did not stop: {}", self.last_words());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Gives the edge another configuration and waits until it is in force; how long that took.
    pub(super) fn reload(&mut self, variant: Variant) -> anyhow::Result<Duration> {
        let before = self.taken()?;
        let told = Instant::now();
        self.configure(variant)?;
        self.signal("HUP")?;
        self.until("take the configuration over", |manager| {
            let taken = manager.taken()?;
            ensure!(taken > before, "{taken} taken over");
            Ok(())
        })?;
        Ok(told.elapsed())
    }

    /// How many configurations the edge has taken over since its start.
    fn taken(&self) -> anyhow::Result<f64> {
        let name = "okmon_edge_config_loads_total{result=\"taken\"} ";
        let text = ask(self.ops, "/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(value.context("no okmon_edge_config_loads_total")?.parse()?)
    }

    /// Lines of the edges' logs that are no mere information.
    pub(super) fn complaints(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let complaints = text
            .lines()
            .filter(|line| !line.contains("\"level\":\"INFO\""));
        complaints.map(str::to_owned).collect()
    }

    fn until(
        &mut self,
        what: &str,
        reached: impl Fn(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Err(error) = reached(self) else {
                return Ok(());
            };
            let ended = self.child.as_mut().map(Child::try_wait);
            if let Some(Ok(Some(status))) = ended {
                anyhow::bail!("the edge ended ({status}): {}", self.last_words());
            }
            ensure!(
                Instant::now() < deadline,
                "the edge did not {what}: {error:#}; {}",
                self.last_words()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn signal(&self, name: &str) -> anyhow::Result<()> {
        let id = self.child.as_ref().context("no edge runs")?.id();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &id.to_string()])
            .status()
            .context("kill")?;
        ensure!(sent.success(), "the edge is gone: {}", self.last_words());
        Ok(())
    }

    fn open_log(&self) -> anyhow::Result<File> {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&self.log);
        file.with_context(|| self.log.display().to_string())
    }

    fn last_words(&self) -> String {
        last_words(&self.log)
    }
}

impl Drop for Manager<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already, and there is nobody to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last: Vec<_> = text.lines().rev().take(3).collect();
    last.into_iter().rev().collect::<Vec<_>>().join(" / ")
}

fn ask(ops: SocketAddr, path: &str) -> anyhow::Result<String> {
    let url = format!("http://{ops}{path}");
    let mut answer = ureq::get(&url).call().with_context(|| url.clone())?;
    answer.body_mut().read_to_string().context(url)
}
