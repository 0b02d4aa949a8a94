//! Metrics of what comes before HTTP on senders' connections: proxies' headers, and TLS.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusRecorder;

/// Certificates that have a series of their own.
const NAMES_MAX: usize = 1000;
/// The label of the others, together.
const OTHER: &str = "other";
const EXPIRY: &str = "okmon_edge_tls_certificate_expiry_timestamp_seconds";

/// How a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// It took too long.
    Timeout,
    /// The client went away.
    Closed,
    /// What came was no TLS.
    NotTls,
    /// The client speaks no version that may be spoken.
    Version,
    /// Client and server have no cipher, group or signature in common.
    Incompatible,
    /// The client wants neither HTTP/2 nor HTTP/1.1.
    Alpn,
    /// There is no certificate to show.
    NoCertificate,
    /// The client showed no certificate, or a bad one.
    ClientCertificate,
    /// The client did not like ours.
    RefusedByClient,
    Other,
}

impl HandshakeFailure {
    const ALL: [Self; 10] = [
        Self::Timeout,
        Self::Closed,
        Self::NotTls,
        Self::Version,
        Self::Incompatible,
        Self::Alpn,
        Self::NoCertificate,
        Self::ClientCertificate,
        Self::RefusedByClient,
        Self::Other,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::Incompatible => "incompatible",
            Self::Alpn => "alpn",
            Self::NoCertificate => "no_certificate",
            Self::ClientCertificate => "client_certificate",
            Self::RefusedByClient => "refused_by_client",
            Self::Other => "other",
        }
    }
}

/// Why a connection was refused that should have begun with a proxy's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyProblem {
    /// Its address is nobody's to believe.
    Untrusted,
    /// It began with something else.
    Missing,
    Malformed,
    Timeout,
    /// It ended in the middle of the header.
    Closed,
}

impl ProxyProblem {
    const ALL: [Self; 5] = [
        Self::Untrusted,
        Self::Missing,
        Self::Malformed,
        Self::Timeout,
        Self::Closed,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

/// All handles.
pub(crate) struct TlsMetrics {
    handshakes: [Counter; 4],
    failures: [Counter; HandshakeFailure::ALL.len()],
    proxy_problems: [Counter; ProxyProblem::ALL.len()],
    pub(crate) certificates: Gauge,
    pub(crate) certificate_errors: Counter,
    acme_orders: [Counter; 2],
    recorder: Arc<PrometheusRecorder>,
    expiries: Mutex<BTreeMap<String, Gauge>>,
}

impl TlsMetrics {
    pub(super) fn new(recorder: Arc<PrometheusRecorder>) -> Self {
        describe();
        let handshakes = [
            ("1.2", "false"),
            ("1.2", "true"),
            ("1.3", "false"),
            ("1.3", "true"),
        ];
        let other = gauge!(EXPIRY, "name" => OTHER);
        other.set(f64::NAN);
        let expiries = BTreeMap::from([(OTHER.to_owned(), other)]);
        Self {
            handshakes: handshakes.map(|(version, resumed)| {
                counter!("okmon_edge_tls_handshakes_total", "version" => version, "resumed" => resumed)
            }),
            failures: HandshakeFailure::ALL.map(|failure| {
                counter!("okmon_edge_tls_handshake_failures_total", "failure" => failure.as_str())
            }),
            proxy_problems: ProxyProblem::ALL.map(|problem| {
                counter!("okmon_edge_proxy_headers_refused_total", "problem" => problem.as_str())
            }),
            certificates: gauge!("okmon_edge_tls_certificates"),
            certificate_errors: counter!("okmon_edge_tls_certificate_errors_total"),
            acme_orders: ["obtained", "failed"]
                .map(|result| counter!("okmon_edge_acme_orders_total", "result" => result)),
            recorder,
            expiries: Mutex::new(expiries),
        }
    }

    pub(crate) fn handshake(&self, is_tls13: bool, resumed: bool) {
        let [full12, resumed12, full13, resumed13] = &self.handshakes;
        let counter = match (is_tls13, resumed) {
            (false, false) => full12,
            (false, true) => resumed12,
            (true, false) => full13,
            (true, true) => resumed13,
        };
        counter.increment(1);
    }

    /// Counts a certificate that an authority was asked for.
    pub(crate) fn acme_order(&self, obtained: bool) {
        let [good, failed] = &self.acme_orders;
        (if obtained { good } else { failed }).increment(1);
    }

    pub(crate) fn failure(&self, reason: HandshakeFailure) {
        if let Some(counter) = self.failures.get(reason as usize) {
            counter.increment(1);
        }
    }

    pub(crate) fn proxy_problem(&self, problem: ProxyProblem) {
        if let Some(counter) = self.proxy_problems.get(problem as usize) {
            counter.increment(1);
        }
    }

    /// Says which certificates are shown, by their first name, and until when. One that is shown no more has no end: an alert
    /// on it shall stop. The soonest end counts where there are several.
    pub(crate) fn expire(&self, certificates: impl Iterator<Item = (String, i64)>) {
        let mut gauges = self.expiries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut soonest = BTreeMap::new();
        for (mut name, at) in certificates {
            if !gauges.contains_key(&name) {
                if gauges.len() > NAMES_MAX {
                    OTHER.clone_into(&mut name);
                } else {
                    let label = name.clone();
                    let gauge = metrics::with_local_recorder(
                        &*self.recorder,
                        || gauge!(EXPIRY, "name" => label),
                    );
                    gauges.insert(name.clone(), gauge);
                }
            }
            let known: &mut i64 = soonest.entry(name).or_insert(at);
            *known = at.min(*known);
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds of this millennium are exact"
        )]
        for (name, gauge) in gauges.iter() {
            gauge.set(soonest.get(name).map_or(f64::NAN, |at| *at as f64));
        }
    }
}

fn describe() {
    describe_counter!(
        "okmon_edge_proxy_headers_refused_total",
        "Connections refused on listeners that require the PROXY protocol."
    );
    describe_counter!(
        "okmon_edge_tls_handshakes_total",
        "TLS handshakes with senders that succeeded."
    );
    describe_counter!(
        "okmon_edge_tls_handshake_failures_total",
        "TLS handshakes with senders that failed, by reason."
    );
    describe_gauge!(
        "okmon_edge_tls_certificates",
        "Certificates for senders that are in use."
    );
    describe_counter!(
        "okmon_edge_tls_certificate_errors_total",
        "Times that files with certificates could not be used as they were."
    );
    describe_counter!(
        "okmon_edge_acme_orders_total",
        "Certificates that an authority was asked for by ACME, by what came of it."
    );
    describe_gauge!(EXPIRY, "When a certificate that senders are shown expires.");
}
