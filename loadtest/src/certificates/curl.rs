//! What curl is asked to do over TLS, and what it says: once for each connection with the certificate that it was shown, or
//! for as long as it runs.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde::Serialize;
use testkit::{Finished, peers};

use crate::senders::{Tally, Target, on_core};

/// Requests a second of one that runs on.
const RATE: &str = "20/s";
/// One line for each transfer; standard error is not buffered, so that nothing is lost when it is told to end.
const LINE: &str = "%{stderr}%{http_code} %{num_connects} %{exitcode} %{errormsg}\n";

/// The serial numbers that curl was shown on one listener, each connection after the one before.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown(Arc<Mutex<Vec<u64>>>);

/// What is left of them in the end.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Seen {
    pub(super) connections: usize,
    pub(super) serials: BTreeSet<u64>,
    /// Connections that were shown an older one than the connection before.
    pub(super) older: u64,
}

impl Shown {
    pub(super) fn last(&self) -> Option<u64> {
        let serials = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        serials.last().copied()
    }

    fn add(&self, serial: u64) {
        let mut serials = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        serials.push(serial);
    }

    pub(super) fn seen(&self) -> Seen {
        let serials = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let older = serials.iter().zip(serials.iter().skip(1));
        Seen {
            connections: serials.len(),
            serials: serials.iter().copied().collect(),
            older: older.map(|(before, after)| u64::from(after < before)).sum(),
        }
    }
}

/// One request to `url` on a connection of its own.
pub(super) fn once(target: &Target, url: &str) -> Command {
    let mut command = post(target);
    command
        .args(["-w", &format!("{LINE}%{{certs}}")])
        .arg(format!("{url}/v1/traces"));
    command
}

/// Adds what [`once`] says. The certificate counts even if what came after it failed.
pub(super) fn add_once(tally: &mut Tally, shown: &Shown, run: &Finished) -> anyhow::Result<()> {
    let first = run.stderr.lines().next().unwrap_or_default();
    add_line(tally, first).with_context(|| format!("curl says nothing of its request: {run:?}"))?;
    let serial = run
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("Serial Number:"));
    match serial {
        Some(serial) => shown.add(u64::from_str_radix(serial, 16).context(serial.to_owned())?),
        None => tally.count("no certificate", 1),
    }
    Ok(())
}

/// Requests to `url` one after the other until it is told to end, in the version of HTTP that `options` ask for.
pub(super) fn on_and_on(target: &Target, url: &str, options: &[&str]) -> Command {
    let mut command = post(target);
    command
        .args(["-w", LINE, "--rate", RATE])
        .args(options)
        // More than a day's.
        .arg(format!("{url}/v1/traces?[1-9999999]"));
    command
}

/// What [`on_and_on`] said of connections that stay open: any that it had to open anew was broken.
pub(super) fn read_kept(run: &Finished) -> anyhow::Result<Tally> {
    let (mut tally, connects) = read(run)?;
    tally.count("connection that was broken", connects.saturating_sub(1));
    Ok(tally)
}

/// The same, with a connection for each request.
pub(super) fn read_closing(run: &Finished) -> anyhow::Result<Tally> {
    let (mut tally, connects) = read(run)?;
    tally.count("request without a new connection", {
        (tally.succeeded + tally.failures()).saturating_sub(connects)
    });
    Ok(tally)
}

fn read(run: &Finished) -> anyhow::Result<(Tally, u64)> {
    let (mut tally, mut connects) = (Tally::default(), 0);
    for line in run.stderr.lines() {
        connects += add_line(&mut tally, line).with_context(|| format!("curl said: {line}"))?;
    }
    Ok((tally, connects))
}

/// Adds what one [`LINE`] says, and returns how many connections were opened for it.
fn add_line(tally: &mut Tally, line: &str) -> anyhow::Result<u64> {
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().context("a word too few");
    let (status, connects, exit) = (word()?, word()?.parse()?, word()?);
    match (status, exit) {
        ("200", "0") => tally.succeeded += 1,
        (_, "0") => tally.count(&format!("HTTP {status}"), 1),
        _ => {
            tally.count(&format!("curl {exit} (HTTP {status})"), 1);
            tally.quote(words);
        }
    }
    Ok(connects)
}

fn post(target: &Target) -> Command {
    let mut command = on_core(target, &peers::program("curl"));
    command
        .args(["--silent", "--ipv4", "--output", "/dev/null"])
        .args(["--max-time", "20", "--data-binary"])
        .arg(format!("@{}", target.body.display()))
        .args(["-H", "content-type: application/x-protobuf"])
        .args(["-H", &format!("authorization: Bearer {}", target.key)]);
    if let Some(ca_file) = &target.ca_file {
        command.arg("--cacert").arg(ca_file);
    }
    command
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn printed(stderr: &str) -> Finished {
        Finished {
            status: ExitStatus::from_raw(0),
            stdout: String::new(),
            stderr: stderr.to_owned(),
        }
    }

    #[test]
    fn a_connection_that_is_opened_anew_is_a_broken_one() {
        let kept = read_kept(&printed("200 1 0 \n200 0 0 \n200 1 0 \n")).unwrap();
        assert_eq!((kept.succeeded, kept.failures()), (3, 1));
        let closing = read_closing(&printed("200 1 0 \n200 0 0 \n200 1 0 \n")).unwrap();
        assert_eq!((closing.succeeded, closing.failures()), (3, 1));
    }

    #[test]
    fn what_curl_does_not_call_a_success_is_a_failure() {
        let lines = "200 1 0 \n503 0 0 \n000 1 35 TLS connect error: x\n200 0 18 y\n";
        let tally = read_kept(&printed(lines)).unwrap();
        assert_eq!(tally.succeeded, 1);
        assert_eq!(tally.failed["HTTP 503"], 1);
        assert_eq!(
            (
                tally.failed["curl 35 (HTTP 000)"],
                tally.failed["curl 18 (HTTP 200)"]
            ),
            (1, 1)
        );
        assert_eq!(tally.said, ["TLS connect error: x", "y"]);
        assert!(read_kept(&printed("what?\n")).is_err());
    }

    #[test]
    fn the_first_certificate_of_a_chain_is_the_one_shown_and_an_older_one_is_noticed() {
        let (mut tally, shown) = (Tally::default(), Shown::default());
        for serial in ["0a", "0b", "0a"] {
            let run = format!("200 1 0 \nSerial Number:{serial}\nSerial Number:7f\n");
            add_once(&mut tally, &shown, &printed(&run)).unwrap();
        }
        let seen = shown.seen();
        assert_eq!((seen.connections, seen.older), (3, 1));
        assert_eq!(seen.serials, BTreeSet::from([10, 11]));
        add_once(&mut tally, &shown, &printed("000 1 7 refused\n")).unwrap();
        assert_eq!((tally.failures(), shown.last()), (2, Some(10)));
    }
}
