//! What the sink remembers: per tenant and signal the newest requests, whole, as long as they are needed to have the last
//! 1,000 items (spans, data points and samples, log records and lines, profiles).
//!
//! A request is never cut: one of 5,000 spans is kept alone. Further bounds: 1,000 requests per tenant and signal, 1,000
//! tenants (the one that was silent longest goes), and 256 MiB of bodies in all (the oldest go first).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Signal, TenantId};
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;

const ITEMS_MIN: usize = 1_000;
const REQUESTS_MAX: usize = 1_000;
const TENANTS_MAX: usize = 1_000;
const BODIES_BYTES_MAX: usize = 256 << 20;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// OTLP over gRPC.
    OtlpGrpc,
    /// OTLP over HTTP, protobuf or JSON.
    OtlpHttp,
    /// Prometheus remote write, 1.0 or 2.0.
    RemoteWrite,
    /// Loki push, protobuf or JSON.
    Loki,
}

/// One accepted request.
#[derive(Debug, Serialize)]
pub struct Received {
    /// When its body was complete.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// How it came.
    pub protocol: Protocol,
    /// The path it came to.
    pub path: String,
    /// The tenant it was kept under.
    pub tenant: String,
    /// Every value of `X-Scope-OrgID`, as seen.
    pub tenant_header: Vec<String>,
    /// `Content-Type`, as seen.
    pub content_type: Option<String>,
    /// `Content-Encoding`, for gRPC `grpc-encoding`, as seen.
    pub content_encoding: Option<String>,
    /// Spans, data points and samples, log records and lines, or profiles.
    pub item_count: usize,
    /// Every header as name and value, duplicates included, in the order of arrival by name.
    pub headers: Vec<(String, String)>,
    /// The decoded message.
    pub body: Box<RawValue>,
}

/// What came in since the start or the last clearing, and how much of it is still there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests accepted.
    pub requests: u64,
    /// Items in them.
    pub items: u64,
    /// Items still kept.
    pub kept_items: usize,
}

/// One tenant as the list shows it.
#[derive(Debug, Clone, Serialize)]
pub struct TenantSummary {
    /// The tenant's id.
    pub id: String,
    /// When its newest request came.
    #[serde(with = "time::serde::rfc3339")]
    pub last_received_at: OffsetDateTime,
    /// Counts by signal; every signal is there.
    pub signals: BTreeMap<&'static str, Counts>,
}

/// What was received. A handle: clones share the same memory.
#[derive(Debug, Clone, Default)]
pub struct Sink {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    tenants: BTreeMap<TenantId, Tenant>,
    bodies_bytes: usize,
}

#[derive(Debug)]
struct Tenant {
    last_received_at: OffsetDateTime,
    signals: BTreeMap<Signal, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Newest first.
    requests: VecDeque<Arc<Received>>,
    counts: Counts,
}

impl Sink {
    /// An empty sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps one request.
    pub(super) fn keep(&self, tenant: TenantId, signal: Signal, received: Received) {
        self.lock().keep(tenant, signal, Arc::new(received));
    }

    /// Everything kept for `tenant` and `signal`, newest first, at most `limit`. Empty for a tenant never seen.
    pub fn received(&self, tenant: &TenantId, signal: Signal, limit: usize) -> Vec<Arc<Received>> {
        let kept = self.lock();
        let queue = kept
            .tenants
            .get(tenant)
            .and_then(|known| known.signals.get(&signal));
        queue.map_or_else(Vec::new, |queue| {
            queue.requests.iter().take(limit).cloned().collect()
        })
    }

    /// Every tenant seen, by id.
    pub fn tenants(&self) -> Vec<TenantSummary> {
        let kept = self.lock();
        let summary = |(id, tenant): (&TenantId, &Tenant)| TenantSummary {
            id: id.to_string(),
            last_received_at: tenant.last_received_at,
            signals: Signal::ALL
                .map(|signal| {
                    let queue = tenant.signals.get(&signal);
                    (
                        signal.as_str(),
                        queue.map_or_else(Counts::default, |queue| queue.counts),
                    )
                })
                .into(),
        };
        kept.tenants.iter().map(summary).collect()
    }

    /// Forgets a tenant and what it sent.
    pub fn clear(&self, tenant: &TenantId) {
        self.lock().forget(tenant);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep(&mut self, id: TenantId, signal: Signal, received: Arc<Received>) {
        self.bodies_bytes += received.size();
        let tenant = self.tenants.entry(id).or_insert_with(|| Tenant {
            last_received_at: received.received_at,
            signals: BTreeMap::new(),
        });
        tenant.last_received_at = received.received_at;
        let queue = tenant.signals.entry(signal).or_default();
        self.bodies_bytes -= queue.push(received);
        if self.tenants.len() > TENANTS_MAX {
            let silent = self
                .tenants
                .iter()
                .min_by_key(|(_, tenant)| tenant.last_received_at);
            if let Some(id) = silent.map(|(id, _)| id.clone()) {
                self.forget(&id);
            }
        }
        self.trim(BODIES_BYTES_MAX);
    }

    /// Drops the oldest requests until at most `bytes_max` are left, or one request in each queue.
    fn trim(&mut self, bytes_max: usize) {
        while self.bodies_bytes > bytes_max {
            let freed = self.drop_oldest();
            if freed == 0 {
                break;
            }
            self.bodies_bytes -= freed;
        }
    }

    fn forget(&mut self, id: &TenantId) {
        let Some(tenant) = self.tenants.remove(id) else {
            return;
        };
        let requests = tenant.signals.values().flat_map(|queue| &queue.requests);
        self.bodies_bytes -= requests.map(|request| request.size()).sum::<usize>();
    }

    /// Drops the oldest request of all, unless it is its queue's only one. The bytes freed.
    fn drop_oldest(&mut self) -> usize {
        self.tenants
            .values_mut()
            .flat_map(|tenant| tenant.signals.values_mut())
            .filter(|queue| queue.requests.len() > 1)
            .min_by_key(|queue| queue.requests.back().map(|oldest| oldest.received_at))
            .map_or(0, Queue::drop_oldest)
    }
}

impl Queue {
    /// Adds the newest request. The bytes freed by those it pushes out.
    fn push(&mut self, received: Arc<Received>) -> usize {
        self.counts.requests += 1;
        self.counts.items += received.item_count as u64;
        self.counts.kept_items += received.item_count;
        self.requests.push_front(received);
        let mut freed = 0;
        while self.requests.len() > 1 && self.has_too_much() {
            freed += self.drop_oldest();
        }
        freed
    }

    fn has_too_much(&self) -> bool {
        let oldest = self.requests.back().map_or(0, |oldest| oldest.item_count);
        // An oldest request without items is not needed for the last 1,000, but tells that it came.
        (oldest > 0 && self.counts.kept_items - oldest >= ITEMS_MIN)
            || self.requests.len() > REQUESTS_MAX
    }

    fn drop_oldest(&mut self) -> usize {
        let Some(oldest) = self.requests.pop_back() else {
            return 0;
        };
        self.counts.kept_items -= oldest.item_count;
        oldest.size()
    }
}

impl Received {
    /// The memory that grows with the request, in bytes.
    fn size(&self) -> usize {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len());
        self.body.get().len() + headers.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn received(item_count: usize) -> Received {
        Received {
            received_at: OffsetDateTime::UNIX_EPOCH,
            protocol: Protocol::Loki,
            path: String::new(),
            tenant: String::new(),
            tenant_header: Vec::new(),
            content_type: None,
            content_encoding: None,
            item_count,
            headers: Vec::new(),
            body: RawValue::from_string("{}".to_owned()).unwrap(),
        }
    }

    fn sink_after(item_counts: &[usize]) -> (Sink, Vec<usize>) {
        let (sink, demo) = (Sink::new(), TenantId::parse("demo").unwrap());
        for count in item_counts {
            sink.keep(demo.clone(), Signal::Logs, received(*count));
        }
        let kept = sink.received(&demo, Signal::Logs, usize::MAX);
        let counts = kept.iter().map(|received| received.item_count).collect();
        (sink, counts)
    }

    #[test]
    fn the_last_thousand_items_are_kept_in_whole_requests() {
        assert_eq!(sink_after(&[400, 300, 300, 300]).1, [300, 300, 300, 400]);
        assert_eq!(sink_after(&[400, 400, 300, 300]).1, [300, 300, 400]);
        assert_eq!(sink_after(&[1, 5_000]).1, [5_000]);
        assert_eq!(sink_after(&[5_000, 1]).1, [1, 5_000]);
        assert_eq!(sink_after(&[0; 1_100]).1.len(), REQUESTS_MAX);
    }

    #[test]
    fn counts_tell_what_came_and_what_is_left() {
        let (sink, _) = sink_after(&[400, 400, 300, 300]);
        let tenants = sink.tenants();
        let counts = Counts {
            requests: 4,
            items: 1_400,
            kept_items: 1_000,
        };
        assert_eq!(tenants[0].signals["logs"], counts);
        assert_eq!(tenants[0].signals["traces"], Counts::default());
    }

    #[test]
    fn bodies_are_bounded_and_the_oldest_of_all_tenants_go_first() {
        let sink = Sink::new();
        let ids = ["a", "b"].map(|id| TenantId::parse(id).unwrap());
        for n in 0..6 {
            let mut received = received(n);
            received.received_at += Duration::from_secs(n as u64);
            sink.keep(ids[n % 2].clone(), Signal::Logs, received);
        }
        // Each body is `{}`: two bytes.
        sink.lock().trim(7);
        let counts = |id| {
            let kept = sink.received(id, Signal::Logs, usize::MAX);
            kept.iter()
                .map(|received| received.item_count)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids.each_ref().map(counts), [vec![4], vec![5, 3]]);
        sink.lock().trim(0);
        assert_eq!(ids.each_ref().map(counts), [vec![4], vec![5]]);
    }

    #[test]
    fn tenants_are_bounded_and_clearing_frees_their_memory() {
        let sink = Sink::new();
        for n in 0..=TENANTS_MAX {
            let id = TenantId::parse(&format!("t{n}")).unwrap();
            sink.keep(id, Signal::Logs, received(1));
        }
        assert_eq!(sink.tenants().len(), TENANTS_MAX);
        for tenant in sink.tenants() {
            sink.clear(&TenantId::parse(&tenant.id).unwrap());
        }
        assert_eq!(sink.lock().bodies_bytes, 0);
        assert!(sink.tenants().is_empty());
    }
}
