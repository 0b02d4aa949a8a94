//! TELL: what is written down of a request that is over, beside the metrics: a line in the log. Decides which requests get
//! one; those that were accepted do by chance, the others as far as the limits of their tenant or address allow.

use std::time::Duration;

use tracing::{Level, enabled, info};

use super::account::Entry;
use crate::log_limits::Of;
use crate::metrics::Outcome;

/// Tells of a request that took so long and brought so many bytes.
pub(super) fn tell(entry: &Entry, duration: Duration, received_bytes: u64) {
    if is_logged(entry) {
        log(entry, duration, received_bytes);
    }
}

fn is_logged(entry: &Entry) -> bool {
    let settings = &entry.worker.current().settings.request_log;
    if entry.outcome == Outcome::Accepted {
        return entry.id.is_one_in(settings.accepted_one_in) || enabled!(Level::DEBUG);
    }
    if !enabled!(Level::INFO) {
        return false;
    }
    let of = match &entry.whose.held {
        Some(held) => Of::Tenant(&held.grant.tenant),
        None => Of::Address(entry.peer.address.ip()),
    };
    let cause = entry.cause.unwrap_or(entry.outcome.as_str());
    let limits = &entry.worker.log_limits;
    limits.allow(of, cause, settings.failures_per_minute) || enabled!(Level::DEBUG)
}

fn log(entry: &Entry, duration: Duration, received_bytes: u64) {
    let held = entry.whose.held.as_deref();
    info!(
        request.id = %entry.id,
        outcome = entry.outcome.as_str(),
        cause = entry.cause,
        status = entry.status,
        grpc.status = entry.grpc_status,
        protocol = entry.flow.map(|(protocol, _)| protocol.as_str()),
        signal = entry.flow.map(|(_, signal)| signal.as_str()),
        tenant = held.map(|held| tracing::field::display(&held.grant.tenant)),
        key.id = entry.whose.key_id.map(tracing::field::display),
        peer = %entry.peer.address,
        listener = entry.peer.listener.name,
        upstream = entry.target.as_deref().map(|target| target.upstream.name.as_str()),
        duration_ms = duration.as_secs_f64() * 1e3,
        received_bytes,
        trace.id = entry.trace.map(|parent| tracing::field::display(format!("{:032x}", parent.trace))),
        "request {}",
        entry.outcome.as_str()
    );
}
