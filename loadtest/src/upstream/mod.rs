//! `loadtest upstream`: stands in for a backend at next to no cost. One port speaks HTTP/1.1 and HTTP/2 with prior knowledge;
//! every body is read whole, every request must name exactly one tenant. `GET /stats` and the end of the process say what came.

mod grpc;
mod http1;
mod stats;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::http1::Received;
pub(crate) use stats::Report;
use stats::Stats;

/// Large reads: at 1 MiB a body, system calls are the cost.
const READ_BYTES: usize = 256 * 1024;

/// Takes requests until SIGTERM or SIGINT. Exit status 1 when a request named no tenant, or several, or was cut short.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9700")]
    listen: SocketAddr,
    /// Answer when the head is there, then read the body, as a backend does that refuses early.
    #[arg(long)]
    early: bool,
    /// Print JSON: one line with the address, one with the counts at the end.
    #[arg(long)]
    json: bool,
}

/// Runs `loadtest upstream`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime")?;
    let report = LocalSet::new().block_on(&runtime, serve(args))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(report.flawless())
}

async fn serve(args: &Args) -> anyhow::Result<Report> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("--listen {}", args.listen))?;
    announce(listener.local_addr()?, args.json)?;
    let stats = Rc::new(Stats::default());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accept")?;
                tokio::task::spawn_local(connection(stream, stats.clone(), args.early));
            }
            _ = terminate.recv() => return Ok(stats.report()),
            _ = interrupt.recv() => return Ok(stats.report()),
        }
    }
}

fn announce(address: SocketAddr, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::json!({"listening": address}))?;
    } else {
        writeln!(out, "listening on {address}")?;
    }
    out.flush().context("standard output")
}

async fn connection(mut stream: TcpStream, stats: Rc<Stats>, early: bool) {
    // Without it latencies suffer, counts do not.
    let _ = stream.set_nodelay(true);
    let mut received = Received::new(READ_BYTES);
    let served = match received.starts_with(&mut stream, b"PRI").await {
        Ok(true) => grpc::serve(stream, received.into_bytes(), &stats, early).await,
        Ok(false) => http1::serve(stream, received, &stats, early).await,
        Err(error) => Err(error),
    };
    // A connection that ends between requests is nobody's fault; inside one, the request is counted as cut short there.
    drop(served);
}

/// What the upstream at `address` has seen.
pub(crate) fn ask(address: SocketAddr) -> anyhow::Result<Report> {
    let ask = || -> anyhow::Result<Report> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.write_all(b"GET /stats HTTP/1.1\r\nhost: upstream\r\n\r\n")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, json) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(json)?)
    };
    ask().context("statistics of the null upstream")
}
