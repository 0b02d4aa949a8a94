//! One request, from its head to its accounted answer. The steps are plain functions; each takes the typed result of the
//! one before, so a skipped check does not compile.

pub(crate) mod account;
mod admit;
pub(crate) mod authenticate;
pub(crate) mod body;
pub(crate) mod forward;
mod reframe;
pub(crate) mod route;
mod tell;
mod trace_parent;

use std::rc::Rc;

use http::Response;
use http::request::Parts;

use self::body::{Body, ClientBody};
pub(crate) use self::trace_parent::TraceParent;
use crate::listen::Peer;
use crate::protocol::Dialect;
use crate::refusal::Refusal;
use crate::worker::Worker;

/// Answers one request. `body` is the refusal instead when the head was well formed but its framing was not.
///
/// The future may be dropped at any point: the upstream's stream is then reset and the request booked as abandoned.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    peer: &Peer,
    parts: Parts,
    body: Result<ClientBody, Refusal>,
) -> Response<Body> {
    let dialect = route::dialect(&parts);
    let trace = TraceParent::of(&parts.headers);
    let mut entry = account::open(worker, peer, dialect, trace);
    let answer = async {
        let body = body?;
        let current = worker.current();
        let settings = &current.settings;
        let routed = route::route(&current.targets, &parts)?;
        entry.is_for(&routed);
        let at = entry.started();
        let headers = &parts.headers;
        let whose = entry.whose();
        let caller =
            authenticate::authenticate(worker, settings, peer, &routed, headers, at, whose).await?;
        let admitted = admit::admit(peer, settings, routed, caller, &parts)?;
        forward::forward(worker, settings, admitted, parts, body, entry.tally()).await
    }
    .await;
    entry.close(answer)
}

/// Answers what was no request: there is nothing to route an answer by.
pub(crate) fn refuse(worker: &Rc<Worker>, peer: &Peer, refusal: Refusal) -> Response<Body> {
    account::open(worker, peer, Dialect::Plain, None).close(Err(refusal))
}
