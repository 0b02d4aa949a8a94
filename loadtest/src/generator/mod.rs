//! `loadtest run`: what is sent, by how many, for how long. One thread, so that it can be pinned to a core; the protocols are
//! in `http1` and `grpc`, the timing in `pace`, the counting in `tally`.

mod grpc;
mod http1;
mod pace;
mod requests;
mod tally;

use std::io::Write;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::lookup_host;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::keys::{CredentialForm, Source};
use crate::payload::{Protocol, Signal};
pub(crate) use http1::answer_head;
use pace::Pace;
use requests::Requests;
use tally::Tally;
pub(crate) use tally::{Latencies, Report};

/// Generates load and checks every answer: 2xx, and for gRPC status 0. Exit status 1 when any answer was something else.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Whom to send to, plain text.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) target: String,
    /// What to speak.
    #[arg(long, value_enum)]
    pub(crate) protocol: Protocol,
    /// What OTLP carries.
    #[arg(long, value_enum, default_value = "traces")]
    pub(crate) signal: Signal,
    /// About how many bytes a body has on the wire.
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = clap::value_parser!(u32).range(1..=256 << 20))]
    pub(crate) size: u32,
    /// Connections, kept open.
    #[arg(long, default_value = "64")]
    pub(crate) connections: NonZeroUsize,
    /// Requests in flight on each connection; more than 1 needs otlp-grpc.
    #[arg(long, default_value = "1")]
    pub(crate) streams: NonZeroUsize,
    /// Open a connection anew after so many requests on it, as senders do that come and go; spread over the run.
    #[arg(long, value_name = "REQUESTS")]
    pub(crate) renew_after: Option<NonZeroU32>,
    /// How long to send for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) duration: Duration,
    /// Open loop: this many requests a second whatever the answers take, with latencies from the time each was due. Without
    /// it, closed loop: each stream sends its next request when it has its answer.
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<NonZeroU32>,
    #[command(flatten)]
    pub(crate) keys: Source,
    /// How a request carries its key.
    #[arg(long, value_enum, default_value = "bearer")]
    pub(crate) credential: CredentialForm,
    /// How long answers may take after the last request was sent, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) patience: Duration,
    /// Print one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write the first body to this file, to look at or to send by hand.
    #[arg(long, value_name = "FILE")]
    pub(crate) dump_body: Option<PathBuf>,
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "expected seconds above 0, such as 10 or 1.5".to_owned())
}

/// Runs `loadtest run`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    let report = run(args)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(report.other.is_empty() && report.accepted > 0)
}

fn run(args: &Args) -> anyhow::Result<Report> {
    ensure!(
        args.protocol == Protocol::OtlpGrpc || args.streams.get() == 1,
        "--streams {}: HTTP/1.1 has one request in flight on a connection; raise --connections",
        args.streams
    );
    let requests = Requests::new(args)?;
    if let Some(path) = &args.dump_body {
        std::fs::write(path, requests.first_body())
            .with_context(|| format!("--dump-body {}", path.display()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime")?;
    LocalSet::new().block_on(&runtime, drive(args, requests))
}

/// What all streams of a run share; they run on one thread.
struct Run {
    address: std::net::SocketAddr,
    requests: Requests,
    pace: Pace,
    tally: Tally,
}

/// How many requests a connection has before it is opened anew.
#[derive(Clone, Copy)]
struct Lifetime {
    left: u32,
    whole: Option<NonZeroU32>,
}

impl Lifetime {
    /// Of connection `n` of `count`: they start together, and shall not end together.
    fn staggered(whole: Option<NonZeroU32>, n: usize, count: NonZeroUsize) -> Self {
        let turn = u32::try_from(n + 1).unwrap_or(u32::MAX);
        let count = u32::try_from(count.get()).unwrap_or(u32::MAX);
        let left = whole.map_or(0, |whole| {
            u32::try_from(u64::from(whole.get()) * u64::from(turn) / u64::from(count))
                .unwrap_or(u32::MAX)
        });
        Self { left, whole }
    }

    /// Counts a request; whether it was the last one.
    fn is_over_after_one_more(&mut self) -> bool {
        let Some(whole) = self.whole else {
            return false;
        };
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return false;
        }
        self.left = whole.get();
        true
    }
}

async fn drive(args: &Args, requests: Requests) -> anyhow::Result<Report> {
    let address = lookup_host(&args.target)
        .await
        .with_context(|| format!("--target {}", args.target))?
        .next()
        .with_context(|| format!("--target {}: the name has no address", args.target))?;
    let reachable = || format!("--target {}: cannot connect", args.target);

    // Connections stand before the clock starts; what is measured is requests.
    let mut streams = tokio::task::JoinSet::new();
    let run = if args.protocol == Protocol::OtlpGrpc {
        let mut open = Vec::new();
        for n in 0..args.connections.get() {
            let lifetime = Lifetime::staggered(args.renew_after, n, args.connections);
            let opened = grpc::Shared::open(address, lifetime).await;
            open.push(opened.with_context(reachable)?);
        }
        let run = Run::start(args, address, requests)?;
        for connection in open {
            for _ in 0..args.streams.get() {
                streams.spawn_local(grpc::stream(run.clone(), connection.clone()));
            }
        }
        run
    } else {
        let mut open = Vec::new();
        for _ in 0..args.connections.get() {
            open.push(
                http1::Connection::open(address)
                    .await
                    .with_context(reachable)?,
            );
        }
        let run = Run::start(args, address, requests)?;
        for (n, connection) in open.into_iter().enumerate() {
            let lifetime = Lifetime::staggered(args.renew_after, n, args.connections);
            streams.spawn_local(http1::stream(run.clone(), connection, lifetime));
        }
        run
    };

    let ended = run.pace.ended_after(args.duration).await;
    let all = async { while streams.join_next().await.is_some() {} };
    let in_time = tokio::time::timeout(args.patience, all).await.is_ok();
    let elapsed = if in_time {
        run.tally.last_answer().max(ended)
    } else {
        Instant::now()
    } - run.pace.start();
    Ok(run.tally.report(elapsed, run.pace.unsent(ended)))
}

impl Run {
    fn start(
        args: &Args,
        address: std::net::SocketAddr,
        requests: Requests,
    ) -> anyhow::Result<Rc<Self>> {
        let tally = Tally::new()?;
        let pace = match args.rate {
            None => Pace::closed(args.duration),
            Some(rate) => Pace::open(rate, args.duration),
        };
        Ok(Rc::new(Self {
            address,
            requests,
            pace,
            tally,
        }))
    }
}
