//! `okmon edge` as a process with ports of its own, which may be stopped, killed and started again in the same place.
#![expect(
    clippy::expect_used,
    reason = "an edge that tests cannot have fails them"
)]

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::{Finished, Process, eventually, okmon, peers};

const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(40);
/// Beyond any patience an edge has of its own.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// A child can be given no descriptors but the standard ones without unsafe code; the shell puts the socket where `sd_listen_fds(3)`
/// wants it, and is then replaced.
const HAND_OVER: &str = "exec 3<&0 </dev/null
export LISTEN_FDS=1 LISTEN_FDNAMES={{name}} LISTEN_PID=$$
exec \"$@\"";

/// One log record.
const LOG: &str =
    r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hello"}}]}]}]}"#;

/// How an edge is set up. What is not here has the edge's own defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The binary.
    pub okmon: PathBuf,
    /// The database with the keys.
    pub database_url: String,
    /// Who takes what it forwards, over HTTP/1.1.
    pub upstream: SocketAddr,
    /// Whether OTLP/gRPC is passed on as such; else it is re-framed for HTTP/1.1.
    pub grpc_upstream: bool,
    /// Lines for the section `[keys]`, such as `poll_every = "1s"`.
    pub keys: String,
    /// Sections that the file has besides, such as `[connections]`.
    pub sections: String,
    /// The file of the snapshot in the edge's folder; empty for none.
    pub snapshot: &'static str,
    /// As `RUST_LOG` would say it.
    pub log: &'static str,
    /// Lines for the section `[log]`, such as `accepted_one_in = 1`.
    pub log_lines: &'static str,
    /// What goes before the command, such as `taskset -c 0`.
    pub before: Vec<String>,
    /// For its environment.
    pub environment: Vec<(String, String)>,
}

impl Settings {
    /// The usual: the binary of the tests, a snapshot, the log at `info`.
    pub fn new(database_url: &str, upstream: SocketAddr) -> Self {
        Self {
            okmon: okmon().get_program().into(),
            database_url: database_url.to_owned(),
            upstream,
            grpc_upstream: false,
            keys: String::new(),
            sections: String::new(),
            snapshot: "keys.snapshot",
            log: "info",
            log_lines: "",
            before: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// An edge: its place, and the process while there is one. Dropping it kills the process.
#[derive(Debug)]
pub struct Edge {
    settings: Settings,
    folder: TempDir,
    port: u16,
    ops_port: u16,
    /// A socket that outlives the process, by name.
    inherited: Option<(String, TcpListener)>,
    process: Option<Process>,
    earlier_output: String,
}

impl Edge {
    /// Chooses ports and writes the configuration. Nothing runs yet.
    ///
    /// # Panics
    /// When there is no place to write to.
    pub fn new(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let edge = Self {
            settings,
            folder,
            port: peers::free_port(),
            ops_port: peers::free_port(),
            inherited: None,
            process: None,
            earlier_output: String::new(),
        };
        edge.configure();
        edge
    }

    fn configure(&self) {
        let Settings {
            database_url,
            upstream,
            grpc_upstream,
            keys,
            sections,
            snapshot,
            log,
            log_lines,
            ..
        } = &self.settings;
        let file = match *snapshot {
            "" => String::new(),
            name => self.folder.path().join(name).display().to_string(),
        };
        let mut config = format!(
            "[listeners.all]\naddress = \"127.0.0.1:{}\"\n\n\
             [ops]\naddress = \"127.0.0.1:{}\"\n\n[log]\nlevel = \"{log}\"\n{log_lines}\n\n\
             [database]\nurl = \"{database_url}\"\n\n\
             [keys]\nsnapshot_file = \"{file}\"\n{keys}\n\n\
             # Everybody here has the same address: one who guesses must not use up the others' budget.\n\
             [auth_failures]\naddresses_max = 0\n\n[strangers]\naddresses_max = 0\n\n\
             [runtime]\nworkers = 1\n\n\
             [upstreams.next]\nurl = \"http://{upstream}\"\n\n",
            self.port, self.ops_port
        );
        let grpc = if *grpc_upstream {
            write!(
                config,
                "[upstreams.grpc]\nurl = \"http://{upstream}\"\nspeaks = \"grpc\"\n\n"
            )
            .expect("memory");
            "grpc"
        } else {
            "next"
        };
        for (protocol, to) in [("otlp_http", "next"), ("otlp_grpc", grpc)] {
            let routes = format!("traces = \"{to}\"\nmetrics = \"{to}\"\nlogs = \"{to}\"\n\n");
            write!(config, "[routes.{protocol}]\n{routes}").expect("memory");
        }
        config.push_str(sections);
        std::fs::write(self.config_file(), config).expect("a place to write to");
    }

    /// Has every process from now on inherit this socket, as systemd's socket activation does it.
    pub fn inherits(&mut self, name: &str, socket: TcpListener) {
        self.inherited = Some((name.to_owned(), socket));
    }

    /// Has `systemd-socket-activate(1)` start every process from now on, when somebody connects to the port.
    pub fn activated_by_systemd(&mut self) {
        let listen = format!("--listen=127.0.0.1:{}", self.port);
        let program = peers::program("systemd-socket-activate");
        let program = program.get_program().display().to_string();
        self.settings.before = vec![program, listen, "--fdname=all".to_owned()];
    }

    /// The configuration file's text.
    ///
    /// # Panics
    /// When there is none.
    pub fn config(&self) -> String {
        std::fs::read_to_string(self.config_file()).expect("a configuration")
    }

    /// Puts another configuration in the place of the one there is, if there is one, in one step.
    ///
    /// # Panics
    /// When there is no place to write to.
    pub fn rewrite(&self, change: impl FnOnce(&str) -> String) {
        let before = std::fs::read_to_string(self.config_file()).unwrap_or_default();
        let new = self.folder.path().join("new.toml");
        std::fs::write(&new, change(&before)).expect("a place to write to");
        std::fs::rename(new, self.config_file()).expect("a place to write to");
    }

    /// Takes the configuration file away.
    ///
    /// # Panics
    /// When there is none.
    pub fn remove_config(&self) {
        std::fs::remove_file(self.config_file()).expect("a configuration");
    }

    fn config_file(&self) -> PathBuf {
        self.folder.path().join("edge.toml")
    }

    /// Sends the process a signal, named as `kill` names it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("an edge that runs");
        process.signal(name);
    }

    /// Starts the process and returns at once.
    ///
    /// # Panics
    /// When it runs already, or cannot be started.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the edge runs already");
        let program = self.settings.okmon.display().to_string();
        let mut before = self.settings.before.clone();
        let mut stdin = Stdio::null();
        if let Some((name, socket)) = &self.inherited {
            stdin = OwnedFd::from(socket.try_clone().expect("a socket")).into();
            let script = HAND_OVER.replace("{{name}}", name);
            before.extend(["sh", "-c", &script, "sh"].map(str::to_owned));
        }
        let mut words = before.iter().chain([&program]);
        let mut command = Command::new(words.next().expect("a program"));
        command
            .args(words)
            .args(["edge", "--config"])
            .arg(self.config_file())
            .envs(self.settings.environment.iter().map(|(k, v)| (k, v)))
            .env_remove("OKMON_DATABASE_URL")
            .env_remove("OKMON_LOG");
        self.process = Some(Process::spawn_with_input("okmon edge", command, stdin));
    }

    /// Starts the process and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_until(START_MAX, "be ready", |edge| match edge.ops("/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("/readyz: {other:?}")),
        });
    }

    /// Starts the process and waits until a request with `key` is accepted; how long that took. Requests with keys that nobody has
    /// come as early.
    ///
    /// # Panics
    /// When it takes more than half a minute, or any of these keys is refused for good before.
    pub fn start_until_accepted(&mut self, key: &str) -> Duration {
        let started = Instant::now();
        self.spawn();
        let stranger = crate::key_rows::fresh_key();
        self.wait_until(START_MAX, "accept a request", |edge| {
            let answers = [key, stranger.reveal()].map(|key| edge.post(key));
            for answer in &answers {
                assert!(
                    matches!(answer, Err(_) | Ok(200 | 503)),
                    "answered from the start on: {answers:?}; {}",
                    edge.last_output()
                );
            }
            match &answers {
                [Ok(200), _] => Ok(()),
                _ => Err(format!("{answers:?}")),
            }
        });
        started.elapsed()
    }

    /// Waits until `probe` answers `Ok`.
    ///
    /// # Panics
    /// When the process ends before, or `deadline` passes.
    pub fn wait_until<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        probe: impl Fn(&Self) -> Result<T, String>,
    ) -> T {
        eventually(deadline, &format!("the edge to {what}"), || {
            let found = probe(self).map_err(|state| format!("{state}; {}", self.last_output()));
            assert!(self.is_running(), "the edge ended: {}", self.output());
            found
        })
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Panics
    /// When it does not run, or does not stop.
    pub fn stop(&mut self) -> Finished {
        self.signal("TERM");
        self.ended()
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    pub fn ended(&mut self) -> Finished {
        let process = self.process.take().expect("an edge that runs");
        let finished = process.wait(STOP_MAX);
        self.earlier_output.push_str(&finished.stdout);
        self.earlier_output.push_str(&finished.stderr);
        finished
    }

    /// Kills it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let process = self.process.take().expect("an edge that runs");
        process.signal("KILL");
        let finished = process.wait(STOP_MAX);
        self.earlier_output.push_str(&finished.stdout);
        self.earlier_output.push_str(&finished.stderr);
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// The process's id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("an edge that runs").id()
    }

    /// Where senders go, `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where senders go, as a URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The file of its snapshot.
    pub fn snapshot(&self) -> PathBuf {
        self.folder.path().join(self.settings.snapshot)
    }

    /// Everything it has printed, in all its lives.
    pub fn output(&self) -> String {
        let mut output = self.earlier_output.clone();
        if let Some(process) = &self.process {
            output.push_str(&process.stdout());
            output.push_str(&process.stderr());
        }
        output
    }

    fn last_output(&self) -> String {
        let output = self.output();
        let last: Vec<_> = output.lines().rev().take(5).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Posts a log record with `key`: the status, or why there is none.
    pub fn post(&self, key: &str) -> Result<u16, String> {
        post(&agent(), &self.url(), key)
    }

    /// Makes an empty gRPC call with `key`: gRPC's status.
    ///
    /// # Panics
    /// When there is no `curl`, or no answer.
    pub fn grpc(&self, key: &str) -> u32 {
        // An empty message, uncompressed.
        let message = self.folder.path().join("empty-message");
        std::fs::write(&message, [0; 5]).expect("a place to write to");
        let path = "opentelemetry.proto.collector.logs.v1.LogsService/Export";
        let what = "curl to read an answer";
        eventually(ANSWER_MAX, what, || {
            let mut curl = peers::program("curl");
            curl.args([
                "-sS",
                "--http2-prior-knowledge",
                "-D",
                "-",
                "-o",
                "/dev/null",
            ])
            .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
            .args(["-H", &format!("authorization: Bearer {key}")])
            .arg("--data-binary")
            .arg(format!("@{}", message.display()))
            .arg(format!("{}/{path}", self.url()));
            let finished = Process::spawn("curl", curl).wait(ANSWER_MAX);
            // Debian's curl does not read an answer that came before it had sent its body, as refusals do.
            let status = finished
                .stdout
                .lines()
                .find_map(|line| line.strip_prefix("grpc-status: "));
            status
                .and_then(|status| status.trim().parse().ok())
                .ok_or_else(|| format!("{finished:?}"))
        })
    }

    /// A page of its port for operators.
    pub fn ops_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ops_port)
    }

    /// Asks its port for operators: status and body.
    pub fn ops(&self, path: &str) -> Result<(u16, String), String> {
        let url = self.ops_url(path);
        let answer = agent().get(&url).call();
        let mut answer = answer.map_err(|error| format!("GET {url}: {error}"))?;
        let body = answer.body_mut().read_to_string();
        Ok((answer.status().as_u16(), body.map_err(|e| e.to_string())?))
    }

    /// The sum of a metric over all its labels.
    ///
    /// # Panics
    /// When it is not there.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.ops("/metrics").expect("an edge that runs");
        let values: Vec<f64> = text
            .lines()
            .filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                rest.starts_with([' ', '{'])
                    .then(|| rest.rsplit_once(' ')?.1.parse().ok())?
            })
            .collect();
        assert!(!values.is_empty(), "no {name} in {text}");
        values.iter().sum()
    }
}

/// A client that keeps connections and takes any status for an answer.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER_MAX))
        .build()
        .into()
}

/// Posts a log record with `key` to the edge at `url`: the status, or why there is none.
pub fn post(agent: &ureq::Agent, url: &str, key: &str) -> Result<u16, String> {
    let mut answer = agent
        .post(format!("{url}/v1/logs"))
        .header("Authorization", format!("Bearer {key}"))
        .content_type("application/json")
        .send(LOG)
        .map_err(|error| error.to_string())?;
    // Read to its end, the connection can be used again.
    let _ = answer.body_mut().read_to_vec();
    Ok(answer.status().as_u16())
}
