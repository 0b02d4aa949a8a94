//! The three programs that send while an edge restarts and reloads, at work.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde::Serialize;
use testkit::Process;

use crate::senders::{END_WITHIN, Tally, Target};
use crate::senders::{add_h2load, exporter, h2load, read_exporter, read_wrk, wrk};

/// Connections of a run of h2load: so many, so many of them each second, with so many requests.
const H2LOAD: [u32; 3] = [200, 40, 10];
/// Connections of wrk, and how long each pauses after an answer.
const WRK: [u32; 2] = [24, 50];

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
                let run = Process::spawn("h2load", h2load(&of_h2load, H2LOAD));
                add_h2load(&mut tally, &run.wait(END_WITHIN))?;
            }
            Ok(tally)
        });
        Self {
            stopped,
            h2load,
            wrk: Process::spawn("wrk", wrk(target, WRK, &[])),
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
