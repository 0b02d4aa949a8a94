//! What a span says of a request. Names follow OpenTelemetry's conventions where they have one, and those of the log with `okmon.`
//! before them where they do not.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanLinks,
};

use super::Finished;
use crate::request::TraceParent;

/// The span of a finished request.
pub(super) fn span(finished: Finished, scope: &InstrumentationScope) -> SpanData {
    let ids = RandomIdGenerator::default();
    let (trace, span) = (ids.new_trace_id(), ids.new_span_id());
    let flags = TraceFlags::SAMPLED;
    SpanData {
        span_context: SpanContext::new(trace, span, flags, false, TraceState::NONE),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Server,
        name: name(&finished),
        start_time: started(&finished),
        end_time: finished.ended,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: links(finished.sender),
        status: status(&finished),
        attributes: attributes(finished),
        instrumentation_scope: scope.clone(),
    }
}

fn name(finished: &Finished) -> Cow<'static, str> {
    match finished.flow {
        Some((protocol, signal)) => format!("{} {signal}", protocol.as_str()).into(),
        None => "unrouted".into(),
    }
}

fn started(finished: &Finished) -> SystemTime {
    let started = finished.ended.checked_sub(finished.duration);
    started.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn links(sender: Option<TraceParent>) -> SpanLinks {
    let mut links = SpanLinks::default();
    if let Some(sender) = sender {
        let sender = SpanContext::new(
            TraceId::from(sender.trace),
            SpanId::from(sender.span),
            TraceFlags::new(sender.flags),
            true,
            TraceState::NONE,
        );
        links.links.push(Link::with_context(sender));
    }
    links
}

/// An error is what the sender is not to blame for (OpenTelemetry's conventions for servers).
fn status(finished: &Finished) -> Status {
    let is_error = match finished.grpc_status {
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
        Some(code) => matches!(code, 2 | 4 | 12..=15),
        None => finished.status.is_some_and(|status| status >= 500),
    };
    if is_error {
        Status::error(finished.cause.unwrap_or(finished.outcome.as_str()))
    } else {
        Status::Unset
    }
}

fn attributes(finished: Finished) -> Vec<KeyValue> {
    let Finished {
        id,
        flow,
        outcome,
        cause,
        status,
        grpc_status,
        held,
        key_id,
        peer,
        upstream,
        received_bytes,
        ..
    } = finished;
    let number = |n: u64| Value::from(i64::try_from(n).unwrap_or(i64::MAX));
    let text = |text: String| Value::from(text);
    let mut attributes = vec![
        KeyValue::new("okmon.request.id", id.to_string()),
        KeyValue::new("okmon.outcome", outcome.as_str()),
        KeyValue::new("okmon.listener", peer.listener.name.clone()),
        KeyValue::new("client.address", peer.address.ip().to_string()),
        KeyValue::new("okmon.received_bytes", number(received_bytes)),
    ];
    let known = [
        (
            "okmon.protocol",
            flow.map(|(protocol, _)| protocol.as_str().into()),
        ),
        (
            "okmon.signal",
            flow.map(|(_, signal)| signal.as_str().into()),
        ),
        ("okmon.cause", cause.map(Value::from)),
        (
            "okmon.tenant",
            held.map(|held| text(held.grant.tenant.to_string())),
        ),
        ("okmon.key.id", key_id.map(|id| text(id.to_string()))),
        ("okmon.upstream", upstream.map(text)),
        (
            "http.response.status_code",
            status.map(|status| number(status.into())),
        ),
        (
            "rpc.grpc.status_code",
            grpc_status.map(|status| number(status.into())),
        ),
    ];
    let known = known.into_iter();
    attributes.extend(known.filter_map(|(name, value)| Some(KeyValue::new(name, value?))));
    attributes
}
