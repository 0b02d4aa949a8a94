//! Programs that nobody here wrote, each sending all the time in a way of its own, and each counting what it takes for a failure. How long
//! they run, and beside which others, is for the command that starts them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;
use testkit::{Finished, peers};

use crate::process::pinned;

/// Far beyond what it takes them to end when told to.
pub(crate) const END_WITHIN: Duration = Duration::from_mins(2);

/// Threads of the exporter, and how long each pauses after an export.
const EXPORTER: [u32; 2] = [4, 15];

/// Whom the senders send to, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The URL that HTTP is sent to, without a path.
    pub(crate) http: String,
    /// The same of gRPC.
    pub(crate) grpc: String,
    /// The authorities that those trust who verify whom they send to. The others take any certificate.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) key: String,
    /// A file with the body that is posted.
    pub(crate) body: PathBuf,
    pub(crate) core: u32,
}

/// What a sender says of its requests.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Tally {
    pub(crate) succeeded: u64,
    /// What it takes for a failure, by its own names.
    pub(crate) failed: BTreeMap<String, u64>,
    /// What it printed of failures, the first lines.
    pub(crate) said: Vec<String>,
}

/// More lines than these tell nothing new.
const SAID_MAX: usize = 5;

impl Tally {
    pub(crate) fn count(&mut self, what: &str, count: u64) {
        if count > 0 {
            *self.failed.entry(what.to_owned()).or_default() += count;
        }
    }

    pub(crate) fn quote<'a>(&mut self, lines: impl Iterator<Item = &'a str>) {
        let left = SAID_MAX.saturating_sub(self.said.len());
        self.said.extend(lines.take(left).map(str::to_owned));
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// A program of the system, held to the senders' core.
pub(crate) fn on_core(target: &Target, program: &Command) -> Command {
    let mut command = pinned(target.core, program.get_program());
    command.args(program.get_args());
    command
}

/// A run of h2load with so many connections, so many of them each second, and so many requests on each. It goes on asking for
/// requests on a connection that was told GOAWAY, and counts each of them as failed though it sends none: so all requests of a
/// connection are sent at once (`-m`), and connections come all the time (`-r`).
pub(crate) fn h2load(target: &Target, [connections, rate, each]: [u32; 3]) -> Command {
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
        .arg(format!("{}/v1/traces", target.http));
    command
}

pub(crate) fn add_h2load(tally: &mut Tally, run: &Finished) -> anyhow::Result<()> {
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

/// wrk with so many connections, and a pause after each answer.
pub(crate) fn wrk(target: &Target, [connections, pause_ms]: [u32; 2], headers: &[&str]) -> Command {
    let mut command = on_core(target, &peers::program("wrk"));
    command
        .args(["-t", "1", "-c", &connections.to_string()])
        // Until it is told to stop. An answer may take as long as senders wait for one.
        .args(["-d", "24h", "-T", "10s"])
        .arg("-s")
        .arg(peers::root().join("loadtest/src/senders/wrk.lua"))
        .args(["-H", &format!("Authorization: Bearer {}", target.key)])
        .arg(format!("{}/v1/traces", target.http))
        .env("BODY", &target.body)
        .env("PAUSE_MS", pause_ms.to_string());
    for header in headers {
        command.args(["-H", header]);
    }
    command
}

pub(crate) fn read_wrk(run: &Finished) -> anyhow::Result<Tally> {
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

pub(crate) fn exporter(target: &Target) -> Command {
    let [threads, pause] = EXPORTER;
    let mut command = on_core(target, &peers::python("otel_keep_sending.py"));
    command
        .args([threads.to_string(), pause.to_string()])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &target.grpc)
        .env(
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("Authorization=Bearer%20{}", target.key),
        );
    if let Some(ca_file) = &target.ca_file {
        command.env("OTEL_EXPORTER_OTLP_CERTIFICATE", ca_file);
    }
    command
}

pub(crate) fn read_exporter(run: &Finished) -> anyhow::Result<Tally> {
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
