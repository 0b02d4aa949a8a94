//! The sender's trace context goes upstream byte for byte, whatever it is and whichever way it takes.

use crate::harness::{Setup, World, post, post2};
use crate::upstream::{Reply, Script};

const GRPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// A good one; one of a version to come; ones that are not valid; two where one is allowed; none, but with a state.
const CONTEXTS: [(&[&str], &[&str]); 6] = [
    (
        &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
        &["congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,  a=b"],
    ),
    (
        &["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-what-comes"],
        &["a=1"],
    ),
    (
        &["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"],
        &["", "=;,not a state"],
    ),
    (
        &["00-00000000000000000000000000000000-0000000000000000-00"],
        &[],
    ),
    (&["one", "two"], &["b=2", "a=1", "b=2"]),
    (&[], &["a=1"]),
];

fn headers<'a>(
    base: &[(&'a str, &'a str)],
    context: (&[&'a str], &[&'a str]),
) -> Vec<(&'a str, &'a str)> {
    let (parents, states) = context;
    let mut headers = base.to_vec();
    // In between others, and out of order.
    headers.extend(states.iter().map(|state| ("tracestate", *state)));
    headers.insert(0, ("user-agent", "sender/1"));
    headers.extend(parents.iter().map(|parent| ("traceparent", *parent)));
    headers
}

async fn passes_untouched(world: &World, path: &str, media: &str) {
    let base = [
        ("content-type", media),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    for context in CONTEXTS {
        let sent = headers(&base, context);
        for over_http2 in [false, true] {
            if !over_http2 && path == GRPC {
                continue;
            }
            let body: &[u8] = &[0, 0, 0, 0, 1, b'x'];
            let answer = if over_http2 {
                post2(world.api, path, &sent, &[body]).await
            } else {
                post(world.api, path, &sent, body).await
            };
            assert_eq!(answer.status, 200);
            assert!(
                matches!(answer.grpc_status(), None | Some("0")),
                "{answer:?}"
            );
            let seen = world.seen_soon().await;
            assert_eq!(seen.all("traceparent"), context.0, "{path}");
            assert_eq!(seen.all("tracestate"), context.1, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_context_passes_untouched_over_http() {
    let world = World::start(Script::Answer(Reply::new(200))).await;
    for path in ["/v1/traces", "/api/v1/push", "/loki/api/v1/push"] {
        passes_untouched(&world, path, "application/x-protobuf").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_context_passes_untouched_over_grpc() {
    let world = World::start(Script::Answer(Reply::grpc())).await;
    passes_untouched(&world, GRPC, "application/grpc").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_context_passes_untouched_where_a_call_is_re_framed() {
    for speaks in ["http1", "http2"] {
        let setup = Setup::PATIENT.speaking(speaks);
        let world = World::start_with(Script::Answer(Reply::new(200)), setup).await;
        passes_untouched(&world, GRPC, "application/grpc").await;
    }
}
