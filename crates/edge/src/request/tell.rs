//! TELL: what is written down of a request that is over, beside the metrics: a line in the log and a span.
//! Decides which requests get them: those that were accepted have a line by chance, the others as far as the limits of their tenant or
//! address allow; spans come by chance.

use std::time::{Duration, SystemTime};

use tracing::{Level, enabled, info};

use super::account::Entry;
use crate::config::RequestLogSettings;
use crate::log_limits::Of;
use crate::metrics::Outcome;
use crate::spans::{Finished, Spans};

/// Tells of a request that took so long and brought so many bytes.
pub(super) fn tell(entry: &Entry, duration: Duration, received_bytes: u64) {
    let settings = &entry.worker.current().settings;
    if is_logged(entry, settings.request_log) {
        log(entry, duration, received_bytes);
    }
    if let Some(spans) = &settings.spans
        && entry.id.is_one_in(spans.one_in)
    {
        hand_over(entry, duration, received_bytes, spans);
    }
}

fn is_logged(entry: &Entry, settings: RequestLogSettings) -> bool {
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
        peer = %entry.peer,
        listener = entry.peer.listener.name,
        upstream = entry.target.as_deref().map(|target| target.upstream.name.as_str()),
        duration_ms = duration.as_secs_f64() * 1e3,
        received_bytes,
        trace.id = entry.trace.map(|parent| tracing::field::display(format!("{:032x}", parent.trace))),
        "request {}",
        entry.outcome.as_str()
    );
}

fn hand_over(entry: &Entry, duration: Duration, received_bytes: u64, spans: &Spans) {
    let target = entry.target.as_deref();
    spans.offer(Finished {
        id: entry.id,
        ended: SystemTime::now(),
        duration,
        flow: entry.flow,
        outcome: entry.outcome,
        cause: entry.cause,
        status: entry.status,
        grpc_status: entry.grpc_status,
        held: entry.whose.held.clone(),
        key_id: entry.whose.key_id,
        peer: entry.peer.clone(),
        upstream: target.map(|target| target.upstream.name.clone()),
        received_bytes,
        sender: entry.trace,
    });
}
