//! Requests that are sent once more: what goes out then is what came in, and no more is kept for it than set.

use std::net::SocketAddr;

use crate::harness::{Answer, Setup, World, post2};
use crate::upstream::{Reply, Script, Upstream};

const METHOD: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// A world whose upstreams are one that does `script`, and `other`. `more` are sections.
async fn with_other(setup: Setup, script: Script, other: SocketAddr, more: &str) -> World {
    let mut world = World::start_with(script, setup).await;
    let first = world.upstream.address;
    let urls = format!("urls = ['http://{first}', 'http://{other}']");
    world
        .reload(|text| text.replace(&format!("url = 'http://{first}'"), &urls) + more)
        .await
        .unwrap();
    world
}

async fn call(world: &World, frames: &[&[u8]]) -> Answer {
    let headers = [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    post2(world.api, METHOD, &headers, frames).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reframed_message_is_sent_once_more_as_it_came() {
    for speaks in ["http1", "http2"] {
        let well = Upstream::start(Script::Answer(Reply::new(200))).await;
        let setup = Setup::PATIENT.speaking(speaks);
        let world = with_other(setup, Script::Die, well.address, "").await;
        let (start, rest) = (vec![7; 10_000], vec![8; 20_000]);
        let length = 30_000_u32.to_be_bytes();
        // Part of the message comes together with its prefix, and the prefix in two parts.
        let second = [&length[..], &start].concat();
        for _ in 0..10 {
            let answer = call(&world, &[&[0], &second, &rest]).await;
            assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
        }
        assert!(world.upstream.heads() > 0, "nobody asked the one that dies");
        let seen = well.take_seen();
        assert_eq!(seen.len(), 10);
        let whole = [start, rest].concat();
        assert!(seen.iter().all(|seen| seen.whole && seen.body == whole));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_told_to_come_again_when_too_much_is_kept_already() {
    let also_dies = Upstream::start(Script::Die).await;
    let little = "[replay]\nbudget = '1KiB'\n";
    let world = with_other(Setup::PATIENT, Script::Die, also_dies.address, little).await;
    let replays = async || world.metric("okmon_edge_upstream_replays_total", "").await;
    let large = [&[0, 0, 0, 8, 0][..], &[7; 2048]].concat();
    let answer = call(&world, &[&large]).await;
    assert_eq!(answer.grpc_status(), Some("14"), "{answer:?}");
    assert!(replays().await < 0.5, "it does not fit into the budget");
    // What did not fit has been given back.
    let answer = call(&world, &[&[0; 5]]).await;
    assert_eq!(answer.grpc_status(), Some("14"), "{answer:?}");
    assert!(replays().await > 0.5);
}
