//! What a request came to is what is counted, also where an upstream says it last.

use crate::harness::{World, eventually, post2};
use crate::upstream::{Reply, Script};

const GRPC: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_denies_in_trailers_is_counted_like_one_that_denies_at_once() {
    for status in ["7", "16"] {
        let reply = Reply {
            trailers: vec![("grpc-status", status)],
            ..Reply::grpc()
        };
        let world = World::start(Script::Answer(reply)).await;
        let key = world.keys.valid.reveal();
        let headers = [("content-type", "application/grpc"), ("x-api-key", key)];
        let answer = post2(world.api, GRPC, &headers, &[&[0; 5]]).await;
        assert!(!answer.trailers_only, "the case of this test");
        assert_eq!(answer.grpc_status(), Some("14"), "it keeps its data");
        let counted = [
            ("okmon_edge_upstream_denied_total", ""),
            ("okmon_edge_refusals_total", "cause=\"upstream_denied\""),
            (
                "okmon_edge_requests_total",
                "signal=\"logs\",outcome=\"refused\"",
            ),
        ];
        for (name, labels) in counted {
            eventually(name, async || {
                let value = world.metric(name, labels).await;
                (value > 0.5 && value < 1.5)
                    .then_some(())
                    .ok_or(format!("{value}"))
            })
            .await;
        }
        let rejected = world
            .metric("okmon_edge_requests_total", "outcome=\"rejected\"")
            .await;
        assert!(rejected == 0.0, "one outcome each");
    }
}
