//! ADMIT: what a known caller may send now: a body of a type the route takes, and not larger than allowed. Rates, quotas and
//! the budget of bytes in flight join here; today they admit all.

use http::request::Parts;
use http::{Version, header};
use ops::config::ByteSize;

use super::authenticate::Caller;
use super::route::{Media, Routed};
use crate::listen::Peer;
use crate::refusal::Refusal;
use crate::worker::Settings;

/// A request that will be forwarded.
pub(crate) struct Admitted {
    pub(crate) routed: Routed,
    pub(crate) caller: Caller,
    pub(crate) media: Media,
    /// The body's length if the sender declared it, in bytes.
    pub(crate) declared_bytes: Option<u64>,
    /// How long the body may become, in bytes.
    pub(crate) body_max: ByteSize,
}

/// Decides by the headers alone.
pub(crate) fn admit(
    peer: &Peer,
    settings: &Settings,
    routed: Routed,
    caller: Caller,
    parts: &Parts,
) -> Result<Admitted, Refusal> {
    if peer.listener.ending.refusing.is_cancelled() {
        return Err(Refusal::Draining);
    }
    let media = routed.media(parts)?;
    let of_tenant = caller.key.grant.body_max_bytes;
    let body_max = of_tenant.map_or(settings.body_max, |bytes| {
        settings.body_max.min(ByteSize(bytes))
    });
    let declared_bytes = declared_bytes(parts)?;
    if declared_bytes.is_some_and(|bytes| bytes > body_max.0) {
        return Err(Refusal::TooLarge { limit: body_max });
    }
    Ok(Admitted {
        routed,
        caller,
        media,
        declared_bytes,
        body_max,
    })
}

fn declared_bytes(parts: &Parts) -> Result<Option<u64>, Refusal> {
    let Some(value) = parts.headers.get(header::CONTENT_LENGTH) else {
        // HTTP/1 without either framing header has no body; HTTP/2 may have one of any length.
        let none = parts.version < Version::HTTP_2
            && !parts.headers.contains_key(header::TRANSFER_ENCODING);
        return Ok(none.then_some(0));
    };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or(Refusal::BadFraming {
        problem: "Content-Length is not a number",
    })
}
