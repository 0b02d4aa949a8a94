//! ACCOUNT: every request ends in exactly one outcome. An [`Entry`] observes and never decides: it is opened before the
//! first check, moves into the answer's body when that streams, and records `abandoned` if it is dropped unfinished.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use model::Signal;
use tokio::time::Instant;
use tracing::{debug, info};

use super::authenticate::Caller;
use super::body::Body;
use super::route::Routed;
use crate::keys::Held;
use crate::listen::Peer;
use crate::metrics::Outcome;
use crate::protocol::otlp_grpc::GRPC_STATUS;
use crate::protocol::{Dialect, Protocol};
use crate::refusal::Refusal;
use crate::worker::{RequestId, Worker};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Body bytes that passed so far, counted where they pass.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received_bytes: Cell<u64>,
}

/// The record of one request while it lives.
pub(crate) struct Entry {
    worker: Rc<Worker>,
    id: RequestId,
    peer: Peer,
    dialect: Dialect,
    started: Instant,
    flow: Option<(Protocol, Signal)>,
    caller: Option<Arc<Held>>,
    tally: Rc<Tally>,
    /// What the answer's head said; its trailers may still say otherwise.
    outcome: Outcome,
    closed: bool,
}

/// Opens the record of a request.
pub(crate) fn open(worker: &Rc<Worker>, peer: &Peer, dialect: Dialect) -> Entry {
    worker.metrics.requests_in_flight.increment(1.0);
    Entry {
        id: worker.request_ids.next(),
        worker: Rc::clone(worker),
        peer: peer.clone(),
        dialect,
        started: Instant::now(),
        flow: None,
        caller: None,
        tally: Rc::default(),
        outcome: Outcome::Abandoned,
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
    }

    /// Notes the caller, so that a refusal after this point is booked to its tenant.
    pub(crate) fn belongs_to(&mut self, caller: &Caller) {
        self.caller = Some(Arc::clone(&caller.key));
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
                let accepted = response.status().is_success() && grpc_accepted(response.headers());
                self.outcome = if accepted {
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
        if self.outcome == Outcome::Accepted && !trailers.is_none_or(grpc_accepted) {
            self.outcome = Outcome::Rejected;
        }
        self.settle();
    }

    /// The answer broke off.
    pub(crate) fn body_failed(&mut self) {
        self.outcome = Outcome::Abandoned;
        self.settle();
    }

    fn refuse(mut self, refusal: &Refusal) -> Response<Body> {
        self.outcome = match refusal {
            Refusal::ClientGone => Outcome::Abandoned,
            _ => Outcome::Refused,
        };
        self.worker.metrics.refusal(refusal);
        let held = self.caller.as_deref();
        info!(
            request.id = %self.id,
            cause = refusal.row().label,
            status = refusal.status(self.dialect.protocol()),
            key.id = held.map(|held| tracing::field::display(held.grant.key_id)),
            tenant = held.map(|held| tracing::field::display(&held.grant.tenant)),
            peer = %self.peer.address,
            listener = self.peer.listener.name,
            "request refused"
        );
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
        match self
            .flow
            .and_then(|(protocol, signal)| metrics.flow(protocol, signal))
        {
            Some(flow) => {
                flow.requests(self.outcome).increment(1);
                flow.received_bytes.increment(received_bytes);
                flow.duration.record(self.started.elapsed());
            }
            None => metrics.unrouted.increment(1),
        }
        debug!(
            request.id = %self.id,
            outcome = self.outcome.as_str(),
            received_bytes,
            tenant = self.caller.as_deref().map(|held| tracing::field::display(&held.grant.tenant)),
            "request ended"
        );
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

/// Whether headers or trailers carry no `grpc-status` other than 0.
fn grpc_accepted(headers: &HeaderMap) -> bool {
    headers
        .get(&GRPC_STATUS)
        .is_none_or(|status: &HeaderValue| status == "0")
}
