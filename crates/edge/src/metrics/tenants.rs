//! Metrics of tenants. A tenant has labels of its own once it has sent something with a key of its own, as long as there are not
//! too many; all others count together. Nothing is forgotten before the process ends, so the tenants labelled first stay
//! labelled, deleted ones too: a series that ended would look like a counter that was reset.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{Counter, SharedString, counter, describe_counter};
use metrics_exporter_prometheus::PrometheusRecorder;
use model::{Signal, TenantId};

use super::{ByOutcome, Outcome};

/// The label of tenants that have none of their own.
const OTHER: &str = "other";
/// The label of a tenant that is called so. No tenant's id has a space.
const TENANT_OTHER: &str = "other (tenant)";

/// All tenants' handles.
pub(crate) struct TenantMetrics {
    recorder: Arc<PrometheusRecorder>,
    labelled: Mutex<HashMap<TenantId, Arc<OfTenant>>>,
    other: Arc<OfTenant>,
}

impl TenantMetrics {
    pub(super) fn new(recorder: Arc<PrometheusRecorder>) -> Self {
        let other = OfTenant::new(SharedString::const_str(OTHER), Arc::clone(&recorder));
        for signal in Signal::ALL {
            other.flow(signal);
        }
        Self {
            recorder,
            labelled: Mutex::default(),
            other: Arc::new(other),
        }
    }

    /// The handles of a tenant, or those that all have who are not among the first `max`. Not for the request path: whoever
    /// needs them keeps them.
    pub(crate) fn of(&self, tenant: &TenantId, max: u32) -> Arc<OfTenant> {
        let mut labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = labelled.get(tenant) {
            return Arc::clone(known);
        }
        if labelled.len() >= max as usize {
            return Arc::clone(&self.other);
        }
        let label = match tenant.as_str() {
            OTHER => SharedString::const_str(TENANT_OTHER),
            id => SharedString::from_owned(id.to_owned()),
        };
        let of_tenant = Arc::new(OfTenant::new(label, Arc::clone(&self.recorder)));
        labelled.insert(tenant.clone(), Arc::clone(&of_tenant));
        of_tenant
    }
}

/// The handles of one tenant, or of those that have none of their own.
pub(crate) struct OfTenant {
    label: SharedString,
    recorder: Arc<PrometheusRecorder>,
    /// Most tenants do not send everything.
    flows: [OnceLock<TenantFlow>; Signal::ALL.len()],
}

/// Handles of one tenant and signal.
pub(crate) struct TenantFlow {
    requests: ByOutcome,
    received_bytes: Counter,
    items: ByOutcome,
}

impl fmt::Debug for OfTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OfTenant").field(&self.label).finish()
    }
}

impl OfTenant {
    fn new(label: SharedString, recorder: Arc<PrometheusRecorder>) -> Self {
        Self {
            label,
            recorder,
            flows: Default::default(),
        }
    }

    /// Counts a request that ended so.
    pub(crate) fn count(&self, signal: Signal, outcome: Outcome, received_bytes: u64, items: u64) {
        if let Some(flow) = self.flow(signal) {
            flow.requests.of(outcome).increment(1);
            flow.received_bytes.increment(received_bytes);
            flow.items.of(outcome).increment(items);
        }
    }

    fn flow(&self, signal: Signal) -> Option<&TenantFlow> {
        let flow = self.flows.get(signal as usize)?;
        Some(flow.get_or_init(|| {
            metrics::with_local_recorder(&*self.recorder, || self.register(signal.as_str()))
        }))
    }

    fn register(&self, signal: &'static str) -> TenantFlow {
        TenantFlow {
            requests: ByOutcome::register(|outcome| {
                counter!(
                    "okmon_edge_tenant_requests_total",
                    "tenant" => self.label.clone(), "signal" => signal, "outcome" => outcome
                )
            }),
            received_bytes: counter!(
                "okmon_edge_tenant_received_bytes_total",
                "tenant" => self.label.clone(), "signal" => signal
            ),
            items: ByOutcome::register(|outcome| {
                counter!(
                    "okmon_edge_tenant_items_total",
                    "tenant" => self.label.clone(), "signal" => signal, "outcome" => outcome
                )
            }),
        }
    }
}

pub(super) fn describe() {
    describe_counter!(
        "okmon_edge_tenant_requests_total",
        "Requests with a tenant's key, by how they ended."
    );
    describe_counter!(
        "okmon_edge_tenant_items_total",
        "Items in bodies sent with a tenant's key, by how their requests ended."
    );
    describe_counter!(
        "okmon_edge_tenant_received_bytes_total",
        "Body bytes received with a tenant's key, as sent (compressed)."
    );
}
