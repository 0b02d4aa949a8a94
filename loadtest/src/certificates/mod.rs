//! `loadtest certificates`: the certificate of an edge is exchanged again and again while programs open TLS connections all the time, and
//! others keep theirs. Decides how files are exchanged; `findings` says what must not happen meanwhile.

mod curl;
mod findings;
mod senders;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::certificates::{Authority, Issued};
use tokio::time::Instant;

use self::curl::Shown;
use self::findings::{Findings, Swap};
use self::senders::Senders;
use crate::document::{self, Lapse, Publication};
use crate::payload::{Protocol, Signal};
use crate::process::pinned;
use crate::senders::Target;
use crate::stand::{Edge, Place, Stand, loopback};

/// How long senders send by themselves before the first exchange, and after the last one.
const AROUND: Duration = Duration::from_secs(3);
/// From the new certificate's first sight to the next exchange.
const BETWEEN: Duration = Duration::from_millis(500);
/// The edge reads a file that it finds as it was a second ago: it sees each half of one that is written so slowly.
const HALF: Duration = Duration::from_millis(2500);
/// What was not shown by then is not shown.
const SHOWN_WITHIN: Duration = Duration::from_secs(20);
const BODY_BYTES: usize = 1024;
const NAME: &str = "localhost";

/// Exchanges the certificate of an edge that serves. Exit status 1 when any sender saw any failure.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// How many times another certificate of the same authority is put in place: by renaming, and one in ten times, the second first,
    /// by writing over the files, slowly and by halves.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    swaps: u32,
    #[command(flatten)]
    publication: Publication,
}

/// Runs `loadtest certificates`.
pub(crate) fn command(args: &Args) -> anyhow::Result<bool> {
    let machine = document::machine();
    let stand = Stand::new(&args.place)?;
    let authority = Authority::new("servers");
    let folder = stand.directory().join("certificates");
    let first = authority.issue(&[NAME]);
    first.write(&folder, "edge");
    let ca_file = stand.directory().join("ca.pem");
    fs::write(&ca_file, authority.pem())?;
    let body = stand.directory().join("body");
    let bodies = Protocol::OtlpHttp.bodies(Signal::Traces, BODY_BYTES, 1);
    fs::write(&body, bodies.first().context("no body")?)?;

    let (edge, found) = start(args, &stand, &folder)?;
    let target = Target {
        http: format!("https://{NAME}:{}", edge.address.port()),
        grpc: format!("https://{NAME}:{}", found.port()),
        ca_file: Some(ca_file),
        key: stand.good.key.clone(),
        body,
        core: args.place.load_core,
    };
    let started = Instant::now();
    let senders = Senders::start(&target);
    std::thread::sleep(AROUND);
    until_shown(&senders.shown, first.serial).context("no sender came through")?;
    let before = edge.counters()?;
    let mut swaps = Vec::new();
    for n in 1..=args.swaps {
        let issued = authority.issue(&[NAME]);
        swaps.push(swap(&issued, &folder, n % 10 == 2, &senders.shown)?);
        std::thread::sleep(BETWEEN);
        if n % 10 == 0 {
            eprintln!("{n} of {}", args.swaps);
        }
    }
    std::thread::sleep(AROUND);
    // Before the senders end: one that is told to in the middle of a handshake breaks it off.
    let after = edge.counters()?;
    let shown = senders.shown.clone();
    let tallies = senders.stop()?;
    let lapses = |by_halves| {
        let swaps = swaps.iter().filter(|swap| swap.by_halves == by_halves);
        Lapse::of(
            &swaps
                .filter_map(|swap| swap.shown_after)
                .collect::<Vec<_>>(),
        )
    };
    let findings = Findings {
        machine,
        seconds: started.elapsed().as_secs_f64(),
        renamed: lapses(false),
        by_halves: lapses(true),
        tallies,
        seen: shown.each_ref().map(Shown::seen),
        handshakes: findings::Handshakes::between(&before, &after),
        swaps,
    };
    let publication = &args.publication;
    publication.publish("certificates", &findings, &findings)?;
    Ok(findings.goals().all_met())
}

/// Starts an edge with the pair in `folder`; the other listener's address is the one that finds it there by itself.
fn start(
    args: &Args,
    stand: &Stand,
    folder: &Path,
) -> anyhow::Result<(Edge, std::net::SocketAddr)> {
    let (files, found, ops) = (loopback(), loopback(), loopback());
    let config = include_str!("edge.toml")
        .replace("{{files}}", &files.to_string())
        .replace("{{found}}", &found.to_string())
        .replace("{{folder}}", &folder.display().to_string())
        .replace("{{ops}}", &ops.to_string())
        .replace("{{database}}", &stand.database().display().to_string())
        .replace("{{upstream}}", &stand.upstream().to_string());
    let file = stand.directory().join("certificates.toml");
    fs::write(&file, config).with_context(|| file.display().to_string())?;
    let command = pinned(args.place.edge_core, &args.place.okmon);
    let edge = Edge::begin(command, &file, files, ops).context("edge")?;
    Ok((edge, found))
}

/// Puts a pair in the place of the one before, and waits until both listeners show it.
fn swap(
    issued: &Issued,
    folder: &Path,
    by_halves: bool,
    shown: &[Shown; 2],
) -> anyhow::Result<Swap> {
    if by_halves {
        write_by_halves(&folder.join("edge.key"), &issued.key)?;
        // Nor does the key fit the certificate for a while.
        std::thread::sleep(HALF);
        write_by_halves(&folder.join("edge.crt"), &issued.chain)?;
    } else {
        issued.write(folder, "edge");
    }
    let whole = Instant::now();
    let seen = until_shown(shown, issued.serial);
    if let Err(error) = &seen {
        eprintln!("{error:#}");
    }
    Ok(Swap {
        serial: issued.serial,
        by_halves,
        shown_after: seen.ok().map(|()| whole.elapsed()),
    })
}

/// Writes over a file as somebody does who knows nothing of renaming, so slowly that half of it is looked at.
fn write_by_halves(file: &PathBuf, text: &str) -> anyhow::Result<()> {
    let (first, second) = text.split_at(text.len() / 2);
    let context = || file.display().to_string();
    let mut file = File::create(file).with_context(context)?;
    file.write_all(first.as_bytes()).with_context(context)?;
    std::thread::sleep(HALF);
    file.write_all(second.as_bytes()).with_context(context)
}

fn until_shown(shown: &[Shown; 2], serial: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + SHOWN_WITHIN;
    while shown.iter().any(|shown| shown.last() != Some(serial)) {
        let last = shown.each_ref().map(Shown::last);
        ensure!(
            Instant::now() < deadline,
            "certificate {serial} is not shown after {SHOWN_WITHIN:?}, but {last:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
