//! FORWARD: the admitted request goes upstream, the answer comes back. Headers go by allow-list and ours are set last, so
//! that nothing a client sends can add a tenant; bodies and statuses pass unchanged.

use std::rc::Rc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tracing::warn;

use super::account::Tally;
use super::admit::Admitted;
use super::authenticate::TENANT;
use super::body::Body;
use super::count::Counting;
use super::reframe;
use super::route::Routed;
use super::trace_parent::TRACEPARENT;
use super::upload::{ClientBody, Upload};
use crate::config::Speaks;
use crate::log_limits::Of;
use crate::protocol::otlp_grpc::{
    self, GRPC_ACCEPT_ENCODING, GRPC_ENCODING, GRPC_STATUS, GRPC_TIMEOUT,
};
use crate::protocol::{Protocol, remote_write};
use crate::refusal::{Code, Refusal};
use crate::upstream::{Answer, HeaderList, Target, UpstreamError, UpstreamRequest};
use crate::worker::{Settings, Worker};

static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Sends the request upstream and gives back the answer with its body still to come.
pub(crate) async fn forward(
    worker: &Worker,
    settings: &Settings,
    admitted: Admitted,
    parts: Parts,
    body: ClientBody,
    tally: Rc<Tally>,
) -> Result<Response<Body>, Refusal> {
    let target = Rc::clone(&admitted.routed.target);
    let counting = Counting::new(&admitted.media, &settings.count_memory, &worker.scratch);
    let upload = Upload::new(
        body,
        tally,
        admitted.body_max,
        settings.body_rate_min,
        &settings.replay,
        counting,
    );
    if admitted.routed.protocol == Protocol::OtlpGrpc && target.upstream.speaks != Speaks::Grpc {
        return reframe::call(worker, settings, &admitted, &parts, upload).await;
    }
    let headers = request_headers(&admitted, &parts.headers);
    // The head shares its memory with the buffer the body is read into, which can be used again once it is gone.
    drop(parts);
    let request = UpstreamRequest {
        path: &target.path,
        headers: &headers,
        length: admitted.declared_bytes,
    };
    let answer = target
        .send(request, upload)
        .await
        .map_err(|error| refusal(worker, &target, error))?;
    if admitted.routed.protocol == Protocol::OtlpGrpc {
        answer_grpc(worker, &admitted.routed, answer)
    } else {
        answer_http(worker, &admitted.routed, answer)
    }
}

/// What a sender is told when there is no answer to pass on. The upstream's name stays with us.
pub(crate) fn refusal(worker: &Worker, target: &Target, error: UpstreamError) -> Refusal {
    let upstream = target.upstream.name.as_str();
    match error {
        UpstreamError::Upload(refusal) => refusal,
        UpstreamError::Timeout => {
            let refusal = Refusal::UpstreamTimeout { by_client: false };
            if worker.may_log(Of::Upstream(upstream), refusal.row().label) {
                warn!(upstream, "an upstream did not answer in time");
            }
            refusal
        }
        UpstreamError::Full => {
            worker.metrics.upstreams.full.increment(1);
            let refusal = Refusal::Overloaded;
            if worker.may_log(Of::Upstream(upstream), refusal.row().label) {
                warn!(
                    upstream,
                    "an upstream has as many requests as requests_max allows"
                );
            }
            refusal
        }
        UpstreamError::Declined(_)
        | UpstreamError::NoConnection(_)
        | UpstreamError::Broken(_)
        | UpstreamError::Unreachable(_) => {
            let reason = error.to_string();
            let refusal = Refusal::UpstreamUnreachable;
            if worker.may_log(Of::Upstream(upstream), refusal.row().label) {
                warn!(upstream, reason, "an upstream cannot be reached");
            }
            refusal
        }
    }
}

/// Tells that an upstream did not send its answer to the end. That a sender did not send its body to the end is its own doing.
pub(crate) fn broke_off(worker: &Worker, target: &Target, error: &UpstreamError) {
    let upstream = target.upstream.name.as_str();
    let by_sender = matches!(error, UpstreamError::Upload(_));
    if !by_sender && worker.may_log(Of::Upstream(upstream), "answer_broke_off") {
        warn!(upstream, reason = %error, "an upstream broke its answer off");
    }
}

/// The headers that go upstream: those on the list, in canonical form, and the tenant last.
pub(crate) fn request_headers(admitted: &Admitted, from: &HeaderMap) -> HeaderList {
    let mut list = HeaderList::with_capacity(10);
    list.push((header::CONTENT_TYPE, admitted.media.content_type.clone()));
    if let Some(encoding) = &admitted.media.content_encoding {
        list.push((header::CONTENT_ENCODING, encoding.clone()));
    }
    let mut pass = |names: &[&HeaderName]| {
        for name in names {
            if let Some(value) = from.get(*name) {
                list.push(((*name).clone(), value.clone()));
            }
        }
    };
    pass(&[&header::USER_AGENT]);
    match admitted.routed.protocol {
        Protocol::OtlpGrpc => pass(&[&GRPC_ENCODING, &GRPC_ACCEPT_ENCODING, &GRPC_TIMEOUT]),
        Protocol::RemoteWrite => pass(&[
            &remote_write::VERSION,
            &remote_write::VICTORIA_VERSION,
            &remote_write::RETRY_ATTEMPT,
        ]),
        Protocol::OtlpHttp | Protocol::LokiPush => {}
    }
    if admitted.routed.protocol == Protocol::OtlpGrpc {
        list.push((header::TE, HeaderValue::from_static("trailers")));
    }
    pass_trace_context(from, &mut list);
    list.push((TENANT.clone(), admitted.caller.key.tenant_header.clone()));
    list
}

/// Passes the sender's trace context on as it came, valid or not: the trace is the sender's, and whoever reads it next judges
/// it (W3C Trace Context, section 3.1). `tracestate` may be several headers.
pub(crate) fn pass_trace_context(from: &HeaderMap, to: &mut HeaderList) {
    for name in [&TRACEPARENT, &TRACESTATE] {
        for value in from.get_all(name) {
            to.push((name.clone(), value.clone()));
        }
    }
}

/// Passes on an answer over HTTP.
fn answer_http(
    worker: &Worker,
    routed: &Routed,
    answer: Answer,
) -> Result<Response<Body>, Refusal> {
    check_trust(worker, routed, answer.status)?;
    let mut headers = answer.headers;
    clean(&mut headers);
    if routed.protocol == Protocol::OtlpHttp
        && answer.status == StatusCode::TOO_MANY_REQUESTS
        && !headers.contains_key(header::RETRY_AFTER)
    {
        // Loki says nothing, and SDKs that are told nothing choose delays which outlast their patience.
        headers.insert(header::RETRY_AFTER, HeaderValue::from(2_u16));
    }
    let mut response = Response::new(Body::upstream(answer.download, false));
    *response.status_mut() = answer.status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Passes on an answer over gRPC; an HTTP error from something in between becomes a gRPC status.
fn answer_grpc(
    worker: &Worker,
    routed: &Routed,
    answer: Answer,
) -> Result<Response<Body>, Refusal> {
    check_trust(worker, routed, answer.status)?;
    let mut headers = answer.headers;
    let status = headers.get(&GRPC_STATUS).map(HeaderValue::as_bytes);
    if matches!(status, Some(b"7" | b"16")) {
        return Err(denied(worker, &routed.target));
    }
    if answer.status != StatusCode::OK && status.is_none() {
        let (code, retry) = otlp_grpc::code_of_status(answer.status.as_u16());
        return Ok(otlp_grpc::error(
            code,
            answer.status.canonical_reason().unwrap_or("upstream error"),
            retry,
        ));
    }
    clean(&mut headers);
    let mut response = Response::new(Body::upstream(answer.download, true));
    *response.headers_mut() = headers;
    Ok(response)
}

/// An upstream that does not trust us, or does not know our path, is our own mistake: the operator is told, and the sender
/// keeps its data where the upstream's answer would have made it drop them.
pub(crate) fn check_trust(
    worker: &Worker,
    routed: &Routed,
    status: StatusCode,
) -> Result<(), Refusal> {
    match status.as_u16() {
        401 | 403 => Err(denied(worker, &routed.target)),
        404 => {
            denied(worker, &routed.target);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Counts and tells that an upstream does not trust this server or does not know the path.
pub(crate) fn denied(worker: &Worker, target: &Target) -> Refusal {
    let refusal = Refusal::UpstreamDenied;
    worker.metrics.upstream_denied.increment(1);
    let upstream = target.upstream.name.as_str();
    if worker.may_log(Of::Upstream(upstream), refusal.row().label) {
        warn!(
            upstream,
            path = target.path,
            "an upstream denies what this server forwards: check its URL, its kind and its tenant settings"
        );
    }
    refusal
}

/// Removes what concerns the connection to the upstream or names it (RFC 9110 section 7.6.1).
pub(crate) fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    for name in &named {
        headers.remove(name);
    }
    for name in [
        &header::CONNECTION,
        &header::TRANSFER_ENCODING,
        &header::UPGRADE,
        &header::SERVER,
        &header::VIA,
        &header::SET_COOKIE,
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &SERVER_TIMING,
        &TENANT,
    ] {
        headers.remove(name);
    }
}

/// Trailers as a gRPC sender gets them: a status that blames the sender's credential is ours, not its. Whether they had one.
pub(crate) fn check_trailers(trailers: &mut HeaderMap) -> bool {
    let status = trailers.get(&GRPC_STATUS).map(HeaderValue::as_bytes);
    let is_denied = matches!(status, Some(b"7" | b"16"));
    if is_denied {
        let text = format!("ok-monitoring: {}", Refusal::UpstreamDenied.text());
        trailers.clear();
        otlp_grpc::status_headers(trailers, Code::Unavailable as u8, &text);
    }
    is_denied
}
