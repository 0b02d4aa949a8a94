//! ACCOUNT: every request ends in exactly one outcome. An [`Entry`] observes and never decides: it is opened before the
//! first check, moves into the answer's body when that streams, and records `abandoned` if it is dropped unfinished.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Response};
use model::{KeyId, Signal};
use tokio::time::Instant;

use super::body::Body;
use super::count::Counted;
use super::route::Routed;
use super::trace_parent::TraceParent;
use super::{forward, tell};
use crate::keys::Held;
use crate::listen::Peer;
use crate::metrics::{Outcome, UNFINISHED};
use crate::protocol::otlp_grpc::GRPC_STATUS;
use crate::protocol::{Dialect, Protocol};
use crate::refusal::Refusal;
use crate::upstream::{Target, UpstreamError};
use crate::worker::{RequestId, Worker};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// gRPC's status for errors that are no status.
const UNKNOWN: u16 = 2;

/// Body bytes that passed so far, counted where they pass.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received_bytes: Cell<u64>,
    pub(crate) counted: Cell<Counted>,
}

/// Whose key a request has, as far as it got.
#[derive(Default)]
pub(crate) struct Whose {
    /// As the request says; the checksum was right.
    pub(crate) key_id: Option<KeyId>,
    /// The key is known, though it may be good no more.
    pub(crate) held: Option<Arc<Held>>,
}

/// The record of one request while it lives.
pub(crate) struct Entry {
    pub(super) worker: Rc<Worker>,
    pub(super) id: RequestId,
    pub(super) peer: Peer,
    dialect: Dialect,
    started: Instant,
    pub(super) flow: Option<(Protocol, Signal)>,
    pub(super) target: Option<Rc<Target>>,
    pub(super) whose: Whose,
    pub(super) trace: Option<TraceParent>,
    tally: Rc<Tally>,
    /// What the answer's head said; its trailers may still say otherwise.
    pub(super) outcome: Outcome,
    /// Why it was refused.
    pub(super) cause: Option<&'static str>,
    /// The answer's status, and gRPC's if it has one.
    pub(super) status: Option<u16>,
    pub(super) grpc_status: Option<u16>,
    closed: bool,
}

/// Opens the record of a request.
pub(crate) fn open(
    worker: &Rc<Worker>,
    peer: &Peer,
    dialect: Dialect,
    trace: Option<TraceParent>,
) -> Entry {
    worker.metrics.requests_in_flight.increment(1.0);
    Entry {
        id: worker.request_ids.next(),
        worker: Rc::clone(worker),
        peer: peer.clone(),
        dialect,
        started: Instant::now(),
        flow: None,
        target: None,
        whose: Whose::default(),
        trace,
        tally: Rc::default(),
        outcome: Outcome::Abandoned,
        cause: None,
        status: None,
        grpc_status: None,
        closed: false,
    }
}

impl Entry {
    /// When the request came.
    pub(crate) const fn started(&self) -> Instant {
        self.started
    }

    /// Notes the route.
    pub(crate) fn is_for(&mut self, routed: &Routed) {
        self.flow = Some((routed.protocol, routed.signal));
        self.target = Some(Rc::clone(&routed.target));
    }

    /// Where it is noted whose key the request has, so that a refusal after that is booked to its tenant.
    pub(crate) const fn whose(&mut self) -> &mut Whose {
        &mut self.whose
    }

    /// Where the request's bytes are counted.
    pub(crate) fn tally(&self) -> Rc<Tally> {
        Rc::clone(&self.tally)
    }

    /// Makes the response of the steps' result, and ends the record, now or with the response's body.
    pub(crate) fn close(mut self, answer: Result<Response<Body>, Refusal>) -> Response<Body> {
        let id = self.id.header();
        let mut response = match answer {
            Ok(mut response) => {
                let status = response.status();
                self.status = Some(status.as_u16());
                self.grpc_status = grpc_status(response.headers());
                self.outcome = if status.is_success() && self.grpc_accepted() {
                    Outcome::Accepted
                } else {
                    Outcome::Rejected
                };
                if response.body().is_over() {
                    self.settle();
                } else {
                    response.body_mut().account_to(self);
                }
                response
            }
            Err(refusal) => self.refuse(&refusal),
        };
        response.headers_mut().insert(REQUEST_ID.clone(), id);
        response
    }

    /// The answer's body is over; `trailers` are what it ended with.
    pub(crate) fn body_ended(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(status) = trailers.and_then(grpc_status) {
            self.grpc_status = Some(status);
        }
        if self.outcome == Outcome::Accepted && !self.grpc_accepted() {
            self.outcome = Outcome::Rejected;
        }
        self.settle();
    }

    /// The answer's trailers said that the upstream does not trust this server; the sender is told something else.
    pub(crate) fn denied_in_trailers(&mut self) {
        let refusal = self
            .target
            .as_deref()
            .map(|target| forward::denied(&self.worker, target));
        if let Some(refusal) = refusal {
            self.worker.metrics.refusal(&refusal);
            self.outcome = Outcome::Refused;
            self.cause = Some(refusal.row().label);
        }
    }

    /// The answer broke off.
    pub(crate) fn body_failed(&mut self, error: &UpstreamError) {
        self.outcome = Outcome::Abandoned;
        if let Some(target) = &self.target {
            forward::broke_off(&self.worker, target, error);
        }
        self.settle();
    }

    fn refuse(mut self, refusal: &Refusal) -> Response<Body> {
        self.outcome = match refusal {
            Refusal::ClientGone => Outcome::Abandoned,
            _ => Outcome::Refused,
        };
        self.worker.metrics.refusal(refusal);
        let row = refusal.row();
        self.cause = Some(row.label);
        if self.dialect == Dialect::OtlpGrpc {
            self.status = Some(200);
            self.grpc_status = Some(row.code as u16);
        } else {
            self.status = Some(refusal.status(self.dialect.protocol()));
        }
        let jitter = self.id.low_bits();
        self.settle();
        self.dialect.render(refusal, jitter)
    }

    fn settle(&mut self) {
        if self.closed {
            return;
        }
        self.closed = true;
        let metrics = &self.worker.metrics;
        metrics.requests_in_flight.decrement(1.0);
        let received_bytes = self.tally.received_bytes.get();
        let items = self.items();
        let duration = self.started.elapsed();
        match self
            .flow
            .and_then(|(protocol, signal)| metrics.flow(protocol, signal))
        {
            Some(flow) => {
                flow.requests.of(self.outcome).increment(1);
                flow.received_bytes.increment(received_bytes);
                flow.items.of(self.outcome).increment(items);
                flow.duration.record(duration);
            }
            None => metrics.unrouted.increment(1),
        }
        if let (Some(held), Some((_, signal))) = (&self.whose.held, self.flow) {
            let max = self.worker.current().settings.tenant_labels_max;
            let tenant = held.metrics(&metrics.tenants, max);
            tenant.count(signal, self.outcome, received_bytes, items);
        }
        tell::tell(self, duration, received_bytes);
    }

    /// How many items the body had. Where nobody knows, and somebody should, that is counted.
    fn items(&self) -> u64 {
        let reason = match self.tally.counted.get() {
            Counted::Off => return 0,
            Counted::Items(items) => return items,
            Counted::Uncounted(why) => why.reason(),
            // Its upstream answered before it was over. Who leaves has sent no body.
            Counted::Unfinished if self.outcome == Outcome::Abandoned => return 0,
            Counted::Unfinished => UNFINISHED,
        };
        self.worker.metrics.uncounted(reason);
        0
    }

    fn grpc_accepted(&self) -> bool {
        self.grpc_status.is_none_or(|status| status == 0)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.closed {
            self.outcome = Outcome::Abandoned;
            self.settle();
        }
    }
}

/// The `grpc-status` of headers or trailers; what is no number means UNKNOWN, as gRPC says.
fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    let status = headers.get(&GRPC_STATUS)?;
    let number = status.to_str().ok().and_then(|text| text.parse().ok());
    Some(number.unwrap_or(UNKNOWN))
}
