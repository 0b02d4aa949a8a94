//! Three programs that nobody here wrote, each sending all the time in a way of its own, and each counting what it takes for a failure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;
use testkit::{Finished, Process, peers};

use crate::process::pinned;

/// Far beyond what it takes them to end when told to.
const END_WITHIN: Duration = Duration::from_mins(2);

/// Connections of a run of h2load: so many, so many of them each second, with so many requests.
const H2LOAD: [u32; 3] = [200, 40, 10];
/// Connections of wrk, and how long each pauses after an answer.
const WRK: [u32; 2] = [24, 50];
/// Threads of the exporter, and how long each pauses after an export.
const EXPORTER: [u32; 2] = [4, 15];

/// Whom the senders send to, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) http: SocketAddr,
    pub(super) grpc: SocketAddr,
    pub(super) key: String,
    /// A file with the body that is posted.
    pub(super) body: PathBuf,
    pub(super) core: u32,
}

/// A program that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Sender {
    H2load,
    Wrk,
    Exporter,
}

pub(super) const SENDERS: [Sender; 3] = [Sender::H2load, Sender::Wrk, Sender::Exporter];

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H2load => "h2load: HTTP/2, new connections",
            Self::Wrk => "wrk: HTTP/1.1, kept connections",
            Self::Exporter => "OpenTelemetry SDK for Python: gRPC, a kept connection",
        })
    }
}

/// What a sender says of its requests.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tally {
    pub(super) succeeded: u64,
    /// What it takes for a failure, by its own names.
    pub(super) failed: BTreeMap<String, u64>,
    /// What it printed of failures, the first lines.
    pub(super) said: Vec<String>,
}

/// More lines than these tell nothing new.
const SAID_MAX: usize = 5;

impl Tally {
    fn count(&mut self, what: &str, count: u64) {
        if count > 0 {
            *self.failed.entry(what.to_owned()).or_default() += count;
        }
    }

    fn quote<'a>(&mut self, lines: impl Iterator<Item = &'a str>) {
        let left = SAID_MAX.saturating_sub(self.said.len());
        self.said.extend(lines.take(left).map(str::to_owned));
    }

    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// All of them, at work.
pub(super) struct Senders {
    stopped: Arc<AtomicBool>,
    h2load: JoinHandle<anyhow::Result<Tally>>,
    wrk: Process,
    exporter: Process,
}

impl Senders {
    pub(super) fn start(target: &Target) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let (of_thread, of_h2load) = (Arc::clone(&stopped), target.clone());
        let h2load = std::thread::spawn(move || {
            let mut tally = Tally::default();
            while !of_thread.load(Ordering::Relaxed) {
                let run = Process::spawn("h2load", h2load(&of_h2load));
                add_h2load(&mut tally, &run.wait(END_WITHIN))?;
            }
            Ok(tally)
        });
        Self {
            stopped,
            h2load,
            wrk: Process::spawn("wrk", wrk(target)),
            exporter: Process::spawn("the exporter", exporter(target)),
        }
    }

    /// Lets each end what it has begun: what it says of all its requests.
    pub(super) fn stop(self) -> anyhow::Result<BTreeMap<Sender, Tally>> {
        self.stopped.store(true, Ordering::Relaxed);
        self.wrk.signal("INT");
        self.exporter.signal("TERM");
        let wrk = read_wrk(&self.wrk.wait(END_WITHIN))?;
        let exporter = read_exporter(&self.exporter.wait(END_WITHIN))?;
        let h2load = self.h2load.join();
        let h2load = h2load.map_err(|_| anyhow::anyhow!("h2load did not end"))??;
        Ok(BTreeMap::from([
            (Sender::H2load, h2load),
            (Sender::Wrk, wrk),
            (Sender::Exporter, exporter),
        ]))
    }
}

/// A program of the system, held to the senders' core.
fn on_core(target: &Target, program: &Command) -> Command {
    let mut command = pinned(target.core, program.get_program());
    command.args(program.get_args());
    command
}

/// h2load goes on asking for requests on a connection that was told GOAWAY, and counts each of them as failed though it sends
/// none: so all requests of a connection are sent at once (`-m`), and connections come all the time (`-r`).
fn h2load(target: &Target) -> Command {
    let [connections, rate, each] = H2LOAD;
    let mut command = on_core(target, &peers::program("h2load"));
    command
        .args(["-n", &(connections * each).to_string()])
        .args(["-c", &connections.to_string()])
        .args(["-r", &rate.to_string()])
        .args(["-m", &each.to_string()])
        .arg("-d")
        .arg(&target.body)
        .args(["-H", "content-type: application/x-protobuf"])
        .args(["-H", &format!("authorization: Bearer {}", target.key)])
        .arg(format!("http://{}/v1/traces", target.http));
    command
}

fn add_h2load(tally: &mut Tally, run: &Finished) -> anyhow::Result<()> {
    let counts = run
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("requests: "))
        .with_context(|| format!("h2load says nothing of its requests: {run:?}"))?;
    let mut counted = BTreeMap::new();
    for part in counts.split(", ") {
        let (count, what) = part.split_once(' ').context("h2load counts otherwise")?;
        counted.insert(what, count.parse::<u64>()?);
    }
    let of = |what: &str| {
        counted
            .get(what)
            .copied()
            .context("h2load counts otherwise")
    };
    let (total, succeeded) = (of("total")?, of("succeeded")?);
    tally.succeeded += succeeded;
    let (errored, timeout) = (of("errored")?, of("timeout")?);
    tally.count("errored", errored);
    tally.count("timeout", timeout);
    let left = total.saturating_sub(succeeded + errored + timeout);
    tally.count("failed otherwise", left);
    if succeeded < total {
        let codes = run.stdout.lines();
        tally.quote(codes.filter(|line| line.starts_with("status codes: ")));
        tally.quote(run.stderr.lines());
    }
    Ok(())
}

fn wrk(target: &Target) -> Command {
    let [connections, pause] = WRK;
    let mut command = on_core(target, &peers::program("wrk"));
    command
        .args(["-t", "1", "-c", &connections.to_string()])
        // Until it is told to stop. An answer may take as long as senders wait for one.
        .args(["-d", "24h", "-T", "10s"])
        .arg("-s")
        .arg(peers::root().join("loadtest/src/restarts/wrk.lua"))
        .args(["-H", &format!("Authorization: Bearer {}", target.key)])
        .arg(format!("http://{}/v1/traces", target.http))
        .env("BODY", &target.body)
        .env("PAUSE_MS", pause.to_string());
    command
}

fn read_wrk(run: &Finished) -> anyhow::Result<Tally> {
    let counted = json_line(run)?;
    let of = |what: &str| {
        counted
            .get(what)
            .and_then(Value::as_u64)
            .context("wrk counts otherwise")
    };
    let mut tally = Tally::default();
    for what in ["connect", "read", "write", "status", "timeout"] {
        tally.count(what, of(what)?);
    }
    // Answers that are errors are among the answers.
    tally.succeeded = of("answers")?.saturating_sub(of("status")?);
    Ok(tally)
}

fn exporter(target: &Target) -> Command {
    let [threads, pause] = EXPORTER;
    let mut command = on_core(target, &peers::python("otel_keep_sending.py"));
    command
        .args([threads.to_string(), pause.to_string()])
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", target.grpc),
        )
        .env(
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("Authorization=Bearer%20{}", target.key),
        );
    command
}

fn read_exporter(run: &Finished) -> anyhow::Result<Tally> {
    let counted = json_line(run)?;
    let of = |what: &str| {
        counted
            .get(what)
            .and_then(Value::as_u64)
            .context("no count")
    };
    let mut tally = Tally {
        succeeded: of("succeeded")?,
        ..Tally::default()
    };
    tally.count("failed", of("failed")?);
    let complaints = counted
        .get("complaints")
        .and_then(Value::as_object)
        .context("no complaints")?;
    for (what, count) in complaints {
        tally.count(what, count.as_u64().context("no count")?);
    }
    tally.quote(run.stderr.lines());
    Ok(tally)
}

/// The last line that a program printed, which is JSON.
fn json_line(run: &Finished) -> anyhow::Result<Value> {
    ensure!(run.status.success(), "a sender failed: {run:?}");
    let last = run.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("a sender printed something else: {run:?}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn printed(stdout: &str) -> Finished {
        Finished {
            status: ExitStatus::from_raw(0),
            stdout: stdout.to_owned(),
            stderr: String::new(),
        }
    }

    #[test]
    fn every_request_of_h2load_that_did_not_succeed_is_a_failure() {
        let mut tally = Tally::default();
        let line = "requests: 100 total, 98 started, 100 done, 90 succeeded, 10 failed, 4 errored, 1 timeout";
        add_h2load(&mut tally, &printed(&format!("finished in 1s\n{line}\n"))).unwrap();
        assert_eq!((tally.succeeded, tally.failures()), (90, 10));
        assert_eq!(tally.failed["failed otherwise"], 5);
        assert!(add_h2load(&mut tally, &printed("")).is_err());
    }

    #[test]
    fn errors_of_wrk_are_failures_and_its_other_answers_are_not() {
        let line =
            r#"{"answers": 50, "connect": 1, "read": 2, "write": 0, "status": 5, "timeout": 0}"#;
        let tally = read_wrk(&printed(&format!("  50 requests in 1s\n{line}\n"))).unwrap();
        assert_eq!((tally.succeeded, tally.failures()), (45, 8));
    }

    #[test]
    fn a_try_that_the_exporter_repeats_is_a_failure() {
        let line = r#"{"succeeded": 9, "failed": 0, "complaints": {"UNAVAILABLE": 2}}"#;
        let tally = read_exporter(&printed(line)).unwrap();
        assert_eq!((tally.succeeded, tally.failures()), (9, 2));
    }
}
