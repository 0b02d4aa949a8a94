//! The programs that send while certificates are exchanged: on connections of which each is new, and on some that stay open.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use testkit::{Finished, Process};

use super::curl::{self, Shown};
use crate::senders::{END_WITHIN, Tally, Target};
use crate::senders::{add_h2load, exporter, h2load, read_exporter, read_wrk, wrk};

/// Connections of a run of h2load: so many, so many of them each second, with so many requests.
const H2LOAD: [u32; 3] = [80, 20, 2];
/// Connections of the wrk that opens one for each request, and how long each pauses after an answer.
const WRK_NEW: [u32; 2] = [4, 100];
/// The same of the wrk that keeps them.
const WRK_KEPT: [u32; 2] = [24, 200];
/// What a curl for one request waits before the next one: starting it costs more than the request.
const CURL_PAUSE: Duration = Duration::from_millis(50);

/// A program that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Sender {
    H2load,
    WrkNew,
    CurlFiles,
    CurlFolder,
    CurlResuming,
    WrkKept,
    CurlHttp1,
    CurlHttp2,
    Exporter,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H2load => "h2load: HTTP/2, new connections",
            Self::WrkNew => "wrk: HTTP/1.1, a new connection for each request, by a ticket",
            Self::CurlFiles => "curl: HTTP/2, started for each request, verifies",
            Self::CurlFolder => "the same, on the listener with the folder",
            Self::CurlResuming => "curl: HTTP/1.1, a new connection for each request, by a ticket",
            Self::WrkKept => "wrk: HTTP/1.1, kept connections",
            Self::CurlHttp1 => "curl: HTTP/1.1, a kept connection",
            Self::CurlHttp2 => "curl: HTTP/2, a kept connection",
            Self::Exporter => "OpenTelemetry SDK for Python: gRPC, kept connections",
        })
    }
}

/// A program that runs until it is told to end by a signal, and how what it says then is read.
struct Lasting {
    sender: Sender,
    process: Process,
    signal: &'static str,
    read: fn(&Finished) -> anyhow::Result<Tally>,
}

/// One that is started again and again.
struct Repeated {
    sender: Sender,
    thread: JoinHandle<anyhow::Result<Tally>>,
}

/// All of them, at work.
pub(super) struct Senders {
    stopped: Arc<AtomicBool>,
    repeated: Vec<Repeated>,
    lasting: Vec<Lasting>,
    /// What is shown by the listener that names its files, and by the one that has a folder.
    pub(super) shown: [Shown; 2],
}

impl Senders {
    pub(super) fn start(target: &Target) -> Self {
        let mut senders = Self {
            stopped: Arc::default(),
            repeated: Vec::new(),
            lasting: Vec::new(),
            shown: <[Shown; 2]>::default(),
        };
        let of_h2load = target.clone();
        senders.repeat(Sender::H2load, Duration::ZERO, move |tally| {
            let run = Process::spawn("h2load", h2load(&of_h2load, H2LOAD));
            add_h2load(tally, &run.wait(END_WITHIN))
        });
        let [files, folder] = senders.shown.clone();
        for (sender, url, shown) in [
            (Sender::CurlFiles, &target.http, files),
            (Sender::CurlFolder, &target.grpc, folder),
        ] {
            let (target, url) = (target.clone(), url.clone());
            senders.repeat(sender, CURL_PAUSE, move |tally| {
                let run = Process::spawn("curl", curl::once(&target, &url));
                curl::add_once(tally, &shown, &run.wait(END_WITHIN))
            });
        }
        senders.last(Sender::WrkNew, "INT", read_wrk, {
            wrk(target, WRK_NEW, &["Connection: close"])
        });
        senders.last(Sender::WrkKept, "INT", read_wrk, {
            wrk(target, WRK_KEPT, &[])
        });
        for (sender, options, read) in [
            (
                Sender::CurlResuming,
                &["--http1.1", "-H", "Connection: close"][..],
                curl::read_closing as fn(&Finished) -> anyhow::Result<Tally>,
            ),
            (Sender::CurlHttp1, &["--http1.1"], curl::read_kept),
            (Sender::CurlHttp2, &["--http2"], curl::read_kept),
        ] {
            let command = curl::on_and_on(target, &target.http, options);
            senders.last(sender, "TERM", read, command);
        }
        senders.last(Sender::Exporter, "TERM", read_exporter, exporter(target));
        senders
    }

    fn repeat(
        &mut self,
        sender: Sender,
        pause: Duration,
        run: impl Fn(&mut Tally) -> anyhow::Result<()> + Send + 'static,
    ) {
        let stopped = Arc::clone(&self.stopped);
        let thread = std::thread::spawn(move || {
            let mut tally = Tally::default();
            while !stopped.load(Ordering::Relaxed) {
                run(&mut tally)?;
                std::thread::sleep(pause);
            }
            Ok(tally)
        });
        self.repeated.push(Repeated { sender, thread });
    }

    fn last(
        &mut self,
        sender: Sender,
        signal: &'static str,
        read: fn(&Finished) -> anyhow::Result<Tally>,
        command: std::process::Command,
    ) {
        self.lasting.push(Lasting {
            sender,
            process: Process::spawn(&sender.to_string(), command),
            signal,
            read,
        });
    }

    /// Lets each end what it has begun: what it says of all its requests.
    pub(super) fn stop(self) -> anyhow::Result<BTreeMap<Sender, Tally>> {
        self.stopped.store(true, Ordering::Relaxed);
        let mut tallies = BTreeMap::new();
        for lasting in self.lasting {
            lasting.process.signal(lasting.signal);
            let ended = lasting.process.wait(END_WITHIN);
            tallies.insert(lasting.sender, (lasting.read)(&ended)?);
        }
        for Repeated { sender, thread } in self.repeated {
            let ended = thread.join();
            let tally = ended.map_err(|_| anyhow::anyhow!("{sender}: did not end"))??;
            tallies.insert(sender, tally);
        }
        Ok(tallies)
    }
}
