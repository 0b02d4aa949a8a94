//! One request, from its head to its accounted answer. The steps are plain functions; each takes the typed result of the
//! one before, so a skipped check does not compile.

pub(crate) mod account;
mod admit;
pub(crate) mod authenticate;
pub(crate) mod body;
mod client_address;
pub(crate) mod count;
pub(crate) mod forward;
mod reframe;
pub(crate) mod replay;
pub(crate) mod route;
mod tell;
mod trace_parent;
pub(crate) mod upload;

use std::rc::Rc;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, Version};

use self::body::Body;
use self::client_address::client_address;
pub(crate) use self::trace_parent::TraceParent;
use self::upload::ClientBody;
use crate::config::ConnectionSettings;
use crate::listen::Peer;
use crate::protocol::Dialect;
use crate::refusal::Refusal;
use crate::worker::Worker;

/// What an answer says of the connection on which its request came; one of its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The head was above the limits.
    LargeHead,
    /// The key was not looked up: too many that failed came from that address.
    AuthFailures,
}

impl Blame {
    const fn of(refusal: &Refusal) -> Option<Self> {
        match refusal {
            Refusal::HeadTooLarge { .. } | Refusal::TooManyHeaders { .. } => Some(Self::LargeHead),
            Refusal::AuthFailures { .. } => Some(Self::AuthFailures),
            _ => None,
        }
    }
}

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
    let current = worker.current();
    let settings = &current.settings;
    let behind_proxy = client_address(&settings.trusted, peer.address.ip(), &parts.headers)
        .map(|address| peer.with_address(address));
    let peer = behind_proxy.as_ref().unwrap_or(peer);
    let mut entry = account::open(worker, peer, dialect, trace);
    let answer = async {
        let body = body?;
        check_head(&settings.connections, &parts)?;
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
    // A trusted proxy's connection brings many senders.
    let blame = match &answer {
        Err(refusal) if behind_proxy.is_none() => Blame::of(refusal),
        _ => None,
    };
    let mut response = entry.close(answer);
    if let Some(blame) = blame {
        response.extensions_mut().insert(blame);
    }
    response
}

/// Checks the head's size where its reader has not: HTTP/2's headers are counted as RFC 9113 section 6.5.2 does.
fn check_head(limits: &ConnectionSettings, parts: &Parts) -> Result<(), Refusal> {
    let headers = &parts.headers;
    if headers.len() > limits.headers_max {
        let limit = limits.headers_max;
        return Err(Refusal::TooManyHeaders { limit });
    }
    if parts.version >= Version::HTTP_2 {
        let size =
            |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
        let bytes: usize = headers.iter().map(size).sum();
        if bytes as u64 > limits.head_max.0 {
            let limit = limits.head_max;
            return Err(Refusal::HeadTooLarge { limit });
        }
    }
    Ok(())
}

/// Answers what was no request: there is nothing to route an answer by.
pub(crate) fn refuse(worker: &Rc<Worker>, peer: &Peer, refusal: Refusal) -> Response<Body> {
    account::open(worker, peer, Dialect::Plain, None).close(Err(refusal))
}
