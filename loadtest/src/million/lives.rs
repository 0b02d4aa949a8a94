//! The moments in the life of an edge where the number of keys might tell: its first start, a change that makes it write its snapshot
//! anew, a reload, and a start from the snapshot.

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use serde::Serialize;
use testkit::control::id_of;
use testkit::edge::Edge;
use tokio::time::Instant;

use crate::keys::KeyPair;
use crate::process::{cpu_time_of, memory_bytes_of};
use crate::site::Site;

/// What has not happened by then will not happen.
const LOST_AFTER: Duration = Duration::from_mins(5);

/// An edge's start with all keys from the database.
#[derive(Debug, Serialize)]
pub(super) struct First {
    pub(super) ready_after: Duration,
    pub(super) cpu: Duration,
    pub(super) memory_bytes: u64,
    pub(super) peak_bytes: u64,
    /// From being ready until the snapshot was there.
    pub(super) snapshot_after: Duration,
    pub(super) snapshot_bytes: u64,
    pub(super) snapshot_cpu: Duration,
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = found() {
            return Ok(found);
        }
        ensure!(
            started.elapsed() < LOST_AFTER,
            "no {what} after {LOST_AFTER:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ready(edge: &mut Edge) -> anyhow::Result<()> {
    edge.spawn();
    wait_for("readiness", || {
        matches!(edge.ops("/readyz"), Ok((200, _))).then_some(())
    })
}

fn cpu(edge: &Edge) -> Duration {
    let since_start = cpu_time_of(edge.id());
    Duration::from_nanos(since_start.nanos())
}

pub(super) fn first(edge: &mut Edge) -> anyhow::Result<First> {
    let started = Instant::now();
    ready(edge)?;
    let ready_after = started.elapsed();
    let (at_ready, was_ready) = (cpu(edge), Instant::now());
    let (_, peak_bytes) = memory_bytes_of(edge.id());
    let snapshot_bytes = wait_for("snapshot", || {
        std::fs::metadata(edge.snapshot()).ok().map(|it| it.len())
    })?;
    let snapshot_after = was_ready.elapsed();
    Ok(First {
        ready_after,
        cpu: at_ready,
        memory_bytes: memory_bytes_of(edge.id()).0,
        peak_bytes,
        snapshot_after,
        snapshot_bytes,
        snapshot_cpu: cpu(edge).saturating_sub(at_ready),
    })
}

/// A key revoked among so many.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    pub(super) refused_after: Duration,
    /// Until a snapshot written later was there.
    pub(super) snapshot_after: Duration,
    pub(super) cpu: Duration,
    pub(super) memory_bytes: u64,
    pub(super) peak_bytes: u64,
}

pub(super) fn change(
    site: &Site,
    url: &str,
    keys: &[KeyPair],
    edge: &Edge,
) -> anyhow::Result<Change> {
    let key = &keys.last().context("no key")?.key;
    let (before, since, started) = (cpu(edge), SystemTime::now(), Instant::now());
    let revoke = "update api_keys set revoked_at = now() where key_id";
    site.postgres
        .sql(url, &format!("{revoke} = '{}'", id_of(key)));
    wait_for("refusal", || (edge.post(key) == Ok(401)).then_some(()))?;
    let refused_after = started.elapsed();
    wait_for("new snapshot", || {
        let written = std::fs::metadata(edge.snapshot()).and_then(|it| it.modified());
        (written.ok()? > since).then_some(())
    })?;
    let snapshot_after = started.elapsed();
    let (memory_bytes, peak_bytes) = memory_bytes_of(edge.id());
    Ok(Change {
        refused_after,
        snapshot_after,
        cpu: cpu(edge).saturating_sub(before),
        memory_bytes,
        peak_bytes,
    })
}

/// All keys read again by an edge that has them.
#[derive(Debug, Serialize)]
pub(super) struct Reload {
    pub(super) cpu: Duration,
    pub(super) peak_bytes: u64,
}

pub(super) fn reload(site: &Site, url: &str) -> anyhow::Result<Reload> {
    let mut edge = site.edge(url, "reload_every = \"20s\"");
    ready(&mut edge)?;
    let reloads = |edge: &Edge| edge.metric("okmon_edge_key_reloads_total");
    wait_for("snapshot", || edge.snapshot().exists().then_some(()))?;
    let (before, so_far) = (cpu(&edge), reloads(&edge));
    // Asked more often, its metrics would cost more than the reload.
    wait_for("reload", || {
        std::thread::sleep(Duration::from_millis(500));
        (reloads(&edge) > so_far).then_some(())
    })?;
    Ok(Reload {
        cpu: cpu(&edge).saturating_sub(before),
        peak_bytes: memory_bytes_of(edge.id()).1,
    })
}

/// A start while the database is away.
#[derive(Debug, Serialize)]
pub(super) struct Restored {
    pub(super) accepted_after: Duration,
    pub(super) cpu: Duration,
    pub(super) memory_bytes: u64,
}

pub(super) fn restored(edge: &mut Edge, keys: &[KeyPair]) -> anyhow::Result<Restored> {
    edge.stop();
    let key = &keys.first().context("no key")?.key;
    let started = Instant::now();
    edge.spawn();
    wait_for("accepted request", || {
        (edge.post(key) == Ok(200)).then_some(())
    })?;
    Ok(Restored {
        accepted_after: started.elapsed(),
        cpu: cpu(edge),
        memory_bytes: memory_bytes_of(edge.id()).0,
    })
}
