//! Every metric of the edge: name, help, labels and buckets in one struct of handles, registered at start with all known
//! label values at zero. The request path holds handles and never looks a name up.

mod config;
mod connections;
mod keys;
mod seeing;
mod tenants;
mod tls;
mod upstreams;

use std::net::SocketAddr;
use std::sync::Arc;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use model::Signal;
use wire::count::Uncounted;

use self::config::ConfigMetrics;
pub(crate) use self::connections::Closed;
use self::connections::ConnectionMetrics;
pub(crate) use self::keys::UseMetrics;
pub(crate) use self::seeing::SpanMetrics;
pub(crate) use self::tenants::{OfTenant, TenantMetrics};
use self::tls::TlsMetrics;
pub(crate) use self::tls::{HandshakeFailure, ProxyProblem};
pub(crate) use self::upstreams::EndpointMetrics;
use self::upstreams::UpstreamMetrics;
use crate::protocol::Protocol;
use crate::refusal::Refusal;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The upstream took it.
    Accepted,
    /// The upstream answered something else than success.
    Rejected,
    /// We answered with a row of the refusal table.
    Refused,
    /// Nobody waited for the end: the client left, or one side's connection broke while the answer streamed.
    Abandoned,
}

impl Outcome {
    const ALL: [Self; 4] = [
        Self::Accepted,
        Self::Rejected,
        Self::Refused,
        Self::Abandoned,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Why the items of a body that was answered before it was over are not known.
pub(crate) const UNFINISHED: &str = "unfinished";

/// Handles of one protocol and signal.
pub(crate) struct Flow {
    pub(crate) requests: ByOutcome,
    pub(crate) received_bytes: Counter,
    pub(crate) items: ByOutcome,
    pub(crate) duration: Histogram,
}

/// A counter for each outcome.
pub(crate) struct ByOutcome([Counter; 4]);

impl ByOutcome {
    fn register(counter: impl Fn(&'static str) -> Counter) -> Self {
        Self(Outcome::ALL.map(|outcome| counter(outcome.as_str())))
    }

    pub(crate) fn of(&self, outcome: Outcome) -> &Counter {
        let [accepted, rejected, refused, abandoned] = &self.0;
        match outcome {
            Outcome::Accepted => accepted,
            Outcome::Rejected => rejected,
            Outcome::Refused => refused,
            Outcome::Abandoned => abandoned,
        }
    }
}

/// All handles.
pub(crate) struct Metrics {
    flows: Vec<Flow>,
    refusals: Vec<(&'static str, Counter)>,
    uncounted: Vec<(&'static str, Counter)>,
    pub(crate) unrouted: Counter,
    pub(crate) tenant_headers_ignored: Counter,
    pub(crate) connections: ConnectionMetrics,
    pub(crate) requests_in_flight: Gauge,
    pub(crate) keys_held: Gauge,
    pub(crate) key_fetches: Counter,
    pub(crate) key_fetch_errors: Counter,
    pub(crate) key_rows_bad: Counter,
    pub(crate) key_changes: Counter,
    pub(crate) key_reloads: Counter,
    pub(crate) key_data_age: Gauge,
    pub(crate) key_database_up: Gauge,
    pub(crate) key_snapshot_bytes: Gauge,
    pub(crate) key_snapshot_errors: Counter,
    pub(crate) config: ConfigMetrics,
    pub(crate) uses: UseMetrics,
    pub(crate) auth_budgets_exhausted: Counter,
    pub(crate) auth_addresses: Gauge,
    pub(crate) dead_keys: Gauge,
    pub(crate) upstream_connections: Counter,
    pub(crate) upstream_denied: Counter,
    pub(crate) log_lines_lost: Counter,
    pub(crate) spans: SpanMetrics,
    pub(crate) tenants: TenantMetrics,
    pub(crate) upstreams: UpstreamMetrics,
    pub(crate) tls: TlsMetrics,
}

/// Seconds; from what a null upstream takes to the longest time a sender waits.
const DURATION_BUCKETS: [f64; 12] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0,
];

impl Metrics {
    /// Registers everything with a recorder of its own; the handle renders it.
    pub(crate) fn new() -> Result<(Arc<Self>, PrometheusHandle), BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(
                Matcher::Suffix("_duration_seconds".to_owned()),
                &DURATION_BUCKETS,
            )?
            .build_recorder();
        let handle = recorder.handle();
        let recorder = Arc::new(recorder);
        let metrics = metrics::with_local_recorder(&*recorder, || Self::register(&recorder));
        Ok((Arc::new(metrics), handle))
    }

    fn register(recorder: &Arc<PrometheusRecorder>) -> Self {
        describe();
        keys::describe();
        seeing::describe();
        tenants::describe();
        let flows = Protocol::ALL
            .into_iter()
            .flat_map(|protocol| Signal::ALL.map(|signal| flow(protocol, signal)))
            .collect();
        let refusals = Refusal::LABELS
            .into_iter()
            .map(|cause| {
                (
                    cause,
                    counter!("okmon_edge_refusals_total", "cause" => cause),
                )
            })
            .collect();
        let uncounted = Uncounted::REASONS
            .into_iter()
            .chain([UNFINISHED])
            .map(|reason| {
                (
                    reason,
                    counter!("okmon_edge_uncounted_bodies_total", "reason" => reason),
                )
            })
            .collect();
        Self {
            flows,
            refusals,
            uncounted,
            unrouted: counter!("okmon_edge_unrouted_requests_total"),
            tenant_headers_ignored: counter!("okmon_edge_tenant_headers_ignored_total"),
            connections: ConnectionMetrics::register(),
            requests_in_flight: gauge!("okmon_edge_requests_in_flight"),
            keys_held: gauge!("okmon_edge_keys_held"),
            key_fetches: counter!("okmon_edge_key_fetches_total"),
            key_fetch_errors: counter!("okmon_edge_key_fetch_errors_total"),
            key_rows_bad: counter!("okmon_edge_key_rows_bad_total"),
            key_changes: counter!("okmon_edge_key_changes_total"),
            key_reloads: counter!("okmon_edge_key_reloads_total"),
            key_data_age: gauge!("okmon_edge_key_data_age_seconds"),
            key_database_up: gauge!("okmon_edge_key_database_up"),
            key_snapshot_bytes: gauge!("okmon_edge_key_snapshot_bytes"),
            key_snapshot_errors: counter!("okmon_edge_key_snapshot_errors_total"),
            config: ConfigMetrics::register(),
            uses: UseMetrics::register(),
            auth_budgets_exhausted: counter!("okmon_edge_auth_budget_exhausted_total"),
            auth_addresses: gauge!("okmon_edge_auth_addresses"),
            dead_keys: gauge!("okmon_edge_auth_dead_keys"),
            upstream_connections: counter!("okmon_edge_upstream_connections_total"),
            upstream_denied: counter!("okmon_edge_upstream_denied_total"),
            log_lines_lost: counter!("okmon_edge_log_lines_lost_total"),
            spans: SpanMetrics::register(),
            tenants: TenantMetrics::new(Arc::clone(recorder)),
            tls: TlsMetrics::new(Arc::clone(recorder)),
            upstreams: UpstreamMetrics::new(Arc::clone(recorder)),
        }
    }

    /// The handles of an upstream's endpoint. Not for the request path: whoever needs them keeps them.
    pub(crate) fn endpoint(&self, upstream: &str, address: SocketAddr) -> EndpointMetrics {
        self.upstreams.endpoint(upstream, address)
    }

    pub(crate) fn flow(&self, protocol: Protocol, signal: Signal) -> Option<&Flow> {
        self.flows
            .get(protocol as usize * Signal::ALL.len() + signal as usize)
    }

    pub(crate) fn refusal(&self, refusal: &Refusal) {
        let label = refusal.row().label;
        if let Some((_, counter)) = self.refusals.iter().find(|(cause, _)| *cause == label) {
            counter.increment(1);
        }
    }

    /// Counts a body whose items were not counted: [`Uncounted::reason`], or [`UNFINISHED`].
    pub(crate) fn uncounted(&self, reason: &'static str) {
        if let Some((_, counter)) = self.uncounted.iter().find(|(known, _)| *known == reason) {
            counter.increment(1);
        }
    }
}

fn flow(protocol: Protocol, signal: Signal) -> Flow {
    let (protocol, signal) = (protocol.as_str(), signal.as_str());
    Flow {
        requests: ByOutcome::register(
            |outcome| counter!("okmon_edge_requests_total", "protocol" => protocol, "signal" => signal, "outcome" => outcome),
        ),
        received_bytes: counter!("okmon_edge_received_bytes_total", "protocol" => protocol, "signal" => signal),
        items: ByOutcome::register(
            |outcome| counter!("okmon_edge_items_total", "protocol" => protocol, "signal" => signal, "outcome" => outcome),
        ),
        duration: histogram!("okmon_edge_request_duration_seconds", "protocol" => protocol, "signal" => signal),
    }
}

fn describe() {
    describe_counter!(
        "okmon_edge_requests_total",
        "Requests to a known route, by how they ended."
    );
    describe_counter!(
        "okmon_edge_received_bytes_total",
        "Body bytes received, as sent (compressed)."
    );
    describe_counter!(
        "okmon_edge_items_total",
        "Spans, data points, samples, log records and lines in bodies, by how their requests ended."
    );
    describe_counter!(
        "okmon_edge_uncounted_bodies_total",
        "Bodies that passed without their items being counted, by why."
    );
    describe_histogram!(
        "okmon_edge_request_duration_seconds",
        "From a request's head to the end of its answer."
    );
    describe_counter!(
        "okmon_edge_refusals_total",
        "Answers of the edge's own, by cause."
    );
    describe_counter!(
        "okmon_edge_unrouted_requests_total",
        "Requests to no known route."
    );
    describe_counter!(
        "okmon_edge_tenant_headers_ignored_total",
        "Tenant headers that disagreed with the key on a listener set to ignore them."
    );
    describe_gauge!(
        "okmon_edge_requests_in_flight",
        "Requests whose answer is not over."
    );
    describe_counter!(
        "okmon_edge_upstream_connections_total",
        "Connections opened to upstreams."
    );
    describe_counter!(
        "okmon_edge_upstream_denied_total",
        "Answers 401, 403 or 404 from an upstream: this server's configuration is wrong, not the sender."
    );
}
