//! Metrics of upstreams and their endpoints. An endpoint has labels of its own as long as there are not too many: addresses come
//! and go where machines do, and nothing is forgotten before the process ends.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusRecorder;

/// Endpoints with labels of their own, of all upstreams.
const LABELLED_MAX: usize = 256;
/// The label of the others.
const OTHER: &str = "other";

/// Handles of what concerns all upstreams, and where those of endpoints come from.
pub(crate) struct UpstreamMetrics {
    recorder: Arc<PrometheusRecorder>,
    labelled: Mutex<HashSet<(String, SocketAddr)>>,
    /// Requests sent once more, to another endpoint or on a new connection.
    pub(crate) replays: Counter,
    /// Requests that could not be, because too much of their body was gone.
    pub(crate) replays_impossible: Counter,
    /// Requests refused because of `requests_max`.
    pub(crate) full: Counter,
}

/// Handles of one endpoint.
pub(crate) struct EndpointMetrics {
    pub(crate) up: Gauge,
    pub(crate) requests: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) failures: Counter,
    pub(crate) ejections: Counter,
}

impl UpstreamMetrics {
    pub(super) fn new(recorder: Arc<PrometheusRecorder>) -> Self {
        describe();
        Self {
            recorder,
            labelled: Mutex::default(),
            replays: counter!("okmon_edge_upstream_replays_total"),
            replays_impossible: counter!("okmon_edge_upstream_replays_impossible_total"),
            full: counter!("okmon_edge_upstream_full_total"),
        }
    }

    /// The handles of an endpoint.
    pub(super) fn endpoint(&self, upstream: &str, address: SocketAddr) -> EndpointMetrics {
        let mut labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        let who = (upstream.to_owned(), address);
        let own = labelled.contains(&who) || labelled.len() < LABELLED_MAX;
        let endpoint = if own {
            labelled.insert(who);
            address.to_string()
        } else {
            OTHER.to_owned()
        };
        let upstream = upstream.to_owned();
        metrics::with_local_recorder(&*self.recorder, || EndpointMetrics {
            up: gauge!("okmon_edge_endpoint_up", "upstream" => upstream.clone(), "endpoint" => endpoint.clone()),
            requests: counter!("okmon_edge_endpoint_requests_total", "upstream" => upstream.clone(), "endpoint" => endpoint.clone()),
            in_flight: gauge!("okmon_edge_endpoint_requests_in_flight", "upstream" => upstream.clone(), "endpoint" => endpoint.clone()),
            failures: counter!("okmon_edge_endpoint_failures_total", "upstream" => upstream.clone(), "endpoint" => endpoint.clone()),
            ejections: counter!("okmon_edge_endpoint_ejections_total", "upstream" => upstream, "endpoint" => endpoint),
        })
    }
}

impl EndpointMetrics {
    /// Handles that nobody reads.
    #[cfg(test)]
    pub(crate) fn noop() -> Self {
        Self {
            up: Gauge::noop(),
            requests: Counter::noop(),
            in_flight: Gauge::noop(),
            failures: Counter::noop(),
            ejections: Counter::noop(),
        }
    }
}

fn describe() {
    describe_counter!(
        "okmon_edge_upstream_replays_total",
        "Requests that were sent once more, to another endpoint or on a new connection."
    );
    describe_counter!(
        "okmon_edge_upstream_replays_impossible_total",
        "Requests that failed at an endpoint and could not be sent once more: too much of the body was gone, or there was no other."
    );
    describe_counter!(
        "okmon_edge_upstream_full_total",
        "Requests that were refused because of an upstream's requests_max."
    );
    describe_gauge!(
        "okmon_edge_endpoint_up",
        "Whether an endpoint gets requests; 0 while it is ejected, or gone."
    );
    describe_counter!(
        "okmon_edge_endpoint_requests_total",
        "Requests sent to an endpoint, those sent once more included."
    );
    describe_gauge!(
        "okmon_edge_endpoint_requests_in_flight",
        "Requests that an endpoint has now."
    );
    describe_counter!(
        "okmon_edge_endpoint_failures_total",
        "Requests that an endpoint failed: no connection, a broken one, silence, or 502, 503 and 504 without Retry-After."
    );
    describe_counter!(
        "okmon_edge_endpoint_ejections_total",
        "Times that an endpoint was ejected."
    );
}
