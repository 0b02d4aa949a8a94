//! Where spans go can change while requests run, and what is wrong with it is told.

use crate::harness::{World, eventually, post};
use crate::upstream::{Reply, Script};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

async fn send(world: &World) {
    let key = ("x-api-key", world.keys.valid.reveal());
    let media = ("content-type", "application/x-protobuf");
    let answer = post(world.api, "/v1/logs", &[media, key], b"x").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_begin_with_the_configuration_that_asks_for_them() {
    let mut world = World::start(Script::Answer(Reply::new(200))).await;
    let taker = World::start(Script::Answer(Reply::grpc())).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    send(&world).await;
    let spans = |config: String| {
        format!(
            "{config}\n[spans]\nendpoint = 'http://{}'\none_in = 1\nheaders_file = '{}'\n",
            taker.upstream.address,
            file.display()
        )
    };
    let refused = world.reload(spans).await.unwrap_err();
    assert!(
        refused.contains("spans.headers_file: cannot read"),
        "{refused}"
    );
    send(&world).await;
    assert!(
        taker.upstream.take_seen().is_empty(),
        "the old one is in force"
    );
    std::fs::write(&file, "x-from: edge\n").unwrap();
    world.reload(spans).await.unwrap();
    send(&world).await;
    let seen = eventually("a span", async || {
        taker.upstream.take_seen().pop().ok_or("none".to_owned())
    })
    .await;
    assert_eq!(
        (seen.path.as_str(), seen.all("x-from")),
        (EXPORT, vec!["edge"])
    );
    let counted = eventually("it to be counted", async || {
        let exported = world.metric("okmon_edge_spans_exported_total", "").await;
        (exported > 0.5)
            .then_some(exported)
            .ok_or("none".to_owned())
    });
    let exported = counted.await;
    assert!(exported < 1.5, "{exported} of one request");
}
