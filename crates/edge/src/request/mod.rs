//! One request, from its head to its accounted answer. The steps are plain functions; each takes the typed result of the
//! one before, so a skipped check does not compile.

pub(crate) mod account;
mod admit;
pub(crate) mod authenticate;
pub(crate) mod body;
pub(crate) mod forward;
mod reframe;
pub(crate) mod route;

use std::rc::Rc;

use http::Response;
use http::request::Parts;

use self::body::{Body, ClientBody};
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
    let mut entry = account::open(worker, peer, dialect);
    let answer = async {
        let body = body?;
        let current = worker.current();
        let settings = &current.settings;
        let routed = route::route(&current.targets, &parts)?;
        entry.is_for(&routed);
        let at = entry.started();
        let caller =
            authenticate::authenticate(worker, settings, peer, &routed, &parts.headers, at).await?;
        entry.belongs_to(&caller);
        let admitted = admit::admit(worker, settings, routed, caller, &parts)?;
        forward::forward(worker, settings, admitted, parts, body, entry.tally()).await
    }
    .await;
    entry.close(answer)
}

/// Answers what was no request: there is nothing to route an answer by.
pub(crate) fn refuse(worker: &Rc<Worker>, peer: &Peer, refusal: Refusal) -> Response<Body> {
    account::open(worker, peer, Dialect::Plain).close(Err(refusal))
}
