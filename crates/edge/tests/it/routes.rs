//! Every route, and what a refusal looks like to its senders.

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tokio::io::AsyncWriteExt;
use wire::rpc::{RetryInfo, Status};

use crate::harness::{
    Answer, DEADLINE, World, collect2, connect, head, http2, read_answer, request2,
};

/// How a route's senders expect to be refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Form {
    Grpc,
    Protobuf,
    Json,
    Text,
}

/// A route with the headers that make a request to it a good one, the credential left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) path: &'static str,
    pub(crate) form: Form,
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

pub(crate) const PROTOBUF: &[(&str, &str)] = &[("content-type", "application/x-protobuf")];
pub(crate) const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
pub(crate) const GRPC: &[(&str, &str)] =
    &[("content-type", "application/grpc"), ("te", "trailers")];
pub(crate) const REMOTE_WRITE: &[(&str, &str)] = &[
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

pub(crate) fn routes() -> Vec<Route> {
    let route = |path, form, headers| Route {
        path,
        form,
        headers,
    };
    let mut routes = Vec::new();
    for path in [
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
    ] {
        routes.push(route(path, Form::Grpc, GRPC));
    }
    for path in [
        "/v1/traces",
        "/v1/metrics",
        "/v1/logs",
        "/v1development/profiles",
        "/otlp/v1/traces",
        "/otlp/v1/metrics",
        "/otlp/v1/logs",
        "/otlp/v1development/profiles",
        "/api/v1/otlp/v1/metrics",
        "/opentelemetry/v1/metrics",
    ] {
        routes.push(route(path, Form::Protobuf, PROTOBUF));
        routes.push(route(path, Form::Json, JSON));
    }
    for path in ["/api/v1/push", "/api/v1/write", "/api/prom/push"] {
        routes.push(route(path, Form::Text, REMOTE_WRITE));
    }
    routes.push(route("/loki/api/v1/push", Form::Text, PROTOBUF));
    routes.push(route("/loki/api/v1/push", Form::Text, JSON));
    routes.push(route("/api/prom/push", Form::Text, JSON));
    routes
}

impl Route {
    pub(crate) fn takes_logs(&self) -> bool {
        let legacy = self.path == "/api/prom/push" && self.headers == JSON;
        legacy || ["ogs", "loki"].iter().any(|part| self.path.contains(part))
    }

    /// Sends the head of a request with these further headers and none of the body it announces: by HTTP/2, and by HTTP/1.1
    /// too where the route takes that.
    pub(crate) async fn send(&self, world: &World, extra: &[(&str, &str)]) -> Vec<Answer> {
        let headers = [self.headers, extra].concat();
        let mut client = http2(world.api).await.ready().await.unwrap();
        let (response, _stream) = client
            .send_request(request2(self.path, &headers), false)
            .unwrap();
        let answering = tokio::time::timeout(DEADLINE, collect2(response));
        let mut answers = vec![answering.await.expect("no answer").unwrap()];
        if self.form != Form::Grpc {
            let mut stream = connect(world.api).await;
            let head = head(self.path, &headers, 4);
            stream.write_all(head.as_bytes()).await.unwrap();
            answers.push(read_answer(&mut stream).await.expect("an answer"));
        }
        answers
    }
}

/// What a sender is told about coming back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Retry {
    Never,
    /// After 1 to 4 seconds.
    Soon,
    /// After 240 to 300 seconds.
    Late,
    /// Longer each time, up to 300 seconds.
    Longer,
}

impl Retry {
    /// The waits that are right, in seconds.
    fn allowed(self) -> Option<RangeInclusive<i64>> {
        match self {
            Self::Never => None,
            Self::Soon => Some(1..=4),
            Self::Late => Some(240..=300),
            Self::Longer => Some(1..=300),
        }
    }
}

/// What a cause comes to.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) retry: Retry,
}

/// Checks an answer's form and hints; its text.
pub(crate) fn check(route: &Route, answer: &Answer, expected: &Expected) -> String {
    let context = format!("{} as {:?}: {answer:?}", route.path, route.form);
    let id = answer.header("x-request-id").map(str::len);
    assert_eq!(id, Some(26), "{context}");
    let challenge = answer.header("www-authenticate").is_some();
    let wait = answer.header("retry-after").map(seconds);
    let text = if route.form == Form::Grpc {
        assert_eq!(answer.status, 200, "{context}");
        assert_eq!((wait, challenge), (None, false), "{context}");
        grpc_text(answer, expected, &context)
    } else {
        assert_eq!(answer.status, expected.status, "{context}");
        assert_eq!(challenge, expected.status == 401, "{context}");
        let allowed = expected.retry.allowed();
        match (wait, &allowed) {
            (None, None) => {}
            (Some(wait), Some(allowed)) => assert!(allowed.contains(&wait), "{context}"),
            _ => panic!("{allowed:?}: {context}"),
        }
        http_text(route, answer, expected, wait, &context)
    };
    assert!(
        text.starts_with("ok-monitoring: "),
        "whose words these are: {context}"
    );
    text
}

fn seconds(text: &str) -> i64 {
    text.parse().expect("whole seconds")
}

/// The text of a trailers-only answer, whose retry hint stands in both places that senders look at.
fn grpc_text(answer: &Answer, expected: &Expected, context: &str) -> String {
    assert!(answer.trailers_only, "{context}");
    assert_eq!(
        answer.header("grpc-status"),
        Some(expected.code),
        "{context}"
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/grpc"),
        "{context}"
    );
    let text = answer.header("grpc-message").unwrap().to_owned();
    let details = answer.header("grpc-status-details-bin");
    let bare = answer.header("google.rpc.retryinfo-bin");
    if let Some(allowed) = expected.retry.allowed() {
        let details = STANDARD_NO_PAD.decode(details.expect(context)).unwrap();
        let status = Status::from_protobuf(&details).expect(context);
        assert_eq!(
            (status.code.to_string().as_str(), &status.message),
            (expected.code, &text)
        );
        let info = status.retry_info().expect(context);
        assert!(allowed.contains(&delay(&info)), "{context}");
        assert_eq!(bare, Some(info.to_metadata().as_str()), "{context}");
    } else {
        assert_eq!((details, bare), (None, None), "{context}");
    }
    text
}

/// The text of an answer over HTTP, whose retry hint stands in the body too where that has a place for it.
fn http_text(
    route: &Route,
    answer: &Answer,
    expected: &Expected,
    wait: Option<i64>,
    context: &str,
) -> String {
    let media = match route.form {
        Form::Protobuf => "application/x-protobuf",
        Form::Json => "application/json",
        Form::Text | Form::Grpc => "text/plain; charset=utf-8",
    };
    assert_eq!(answer.header("content-type"), Some(media), "{context}");
    match route.form {
        Form::Protobuf => {
            let status = Status::from_protobuf(&answer.body).expect(context);
            assert_eq!(status.code.to_string(), expected.code, "{context}");
            assert_eq!(status.retry_info().as_ref().map(delay), wait, "{context}");
            status.message
        }
        Form::Json => {
            let status: serde_json::Value = serde_json::from_slice(&answer.body).expect(context);
            assert_eq!(status["code"].to_string(), expected.code, "{context}");
            let told = status["details"][0]["retryDelay"].as_str();
            assert_eq!(
                told,
                wait.map(|wait| format!("{wait}s")).as_deref(),
                "{context}"
            );
            status["message"].as_str().expect(context).to_owned()
        }
        Form::Text | Form::Grpc => {
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            assert!(text.lines().count() == 1 && text.len() < 256, "{context}");
            text.trim_end().to_owned()
        }
    }
}

fn delay(info: &RetryInfo) -> i64 {
    info.retry_delay.as_ref().unwrap().seconds
}

/// How long a gRPC answer asks to wait, in seconds.
pub(crate) fn retry_info_seconds(answer: &Answer) -> u64 {
    let details = answer.header("grpc-status-details-bin").unwrap();
    let details = STANDARD_NO_PAD.decode(details).unwrap();
    let info = Status::from_protobuf(&details).unwrap().retry_info();
    delay(&info.unwrap()).try_into().unwrap()
}
