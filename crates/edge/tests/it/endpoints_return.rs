//! Endpoints that were ejected: what brings them back, and what does not.

use std::net::SocketAddr;

use crate::harness::{Answer, World, eventually, post, post2};
use crate::upstream::{Reply, Script, Upstream};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A world whose upstreams have two endpoints: one that does `script`, and `other`. `more` is for the upstream of OTLP/HTTP traces, whose
/// settings end with its kind.
async fn with_other(script: Script, other: SocketAddr, more: &str) -> World {
    let mut world = World::start(script).await;
    let first = world.upstream.address;
    let urls = format!("urls = ['http://{first}', 'http://{other}']");
    world
        .reload(|text| {
            let text = text.replace(&format!("url = 'http://{first}'"), &urls);
            let (before, after) = text.split_once("kind = 'mimir'").unwrap();
            format!("{before}kind = 'mimir'\n{more}{after}")
        })
        .await
        .unwrap();
    world
}

async fn send(world: &World) -> Answer {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    post(world.api, "/v1/traces", &headers, b"x").await
}

async fn call(world: &World) -> Answer {
    let headers = [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    post2(world.api, METHOD, &headers, &[&[0; 5]]).await
}

/// The value of a metric of the endpoint that came first.
async fn of_first(world: &World, name: &str, upstream: &str) -> f64 {
    let first = world.upstream.address;
    let labels = format!("upstream=\"{upstream}\",endpoint=\"{first}\"");
    world.metric(name, &labels).await
}

async fn is_up(world: &World, upstream: &str) -> bool {
    of_first(world, "okmon_edge_endpoint_up", upstream).await > 0.5
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_connections_and_fails_requests_is_not_brought_back_by_a_connection() {
    let well = Upstream::start(Script::Answer(Reply::new(200))).await;
    let more = "eject_for = '1m'\nprobe_every = '1ms'";
    let world = with_other(Script::Answer(Reply::new(503)), well.address, more).await;
    for _ in 0..300 {
        send(&world).await;
    }
    assert!(!is_up(&world, "http").await);
    assert_eq!(world.upstream.heads(), 3, "as many as it takes to eject it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_the_probe_gets_requests_again() {
    let well = Upstream::start(Script::Answer(Reply::new(200))).await;
    let more = "eject_for = '1m'\nprobe_every = '10ms'\nprobe_path = '/ready'";
    let world = with_other(Script::Answer(Reply::new(503)), well.address, more).await;
    eventually("it is ejected", async || {
        send(&world).await;
        if is_up(&world, "http").await {
            Err("it is not".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    eventually("it is asked", async || {
        let seen = world.upstream.take_seen();
        let probe = seen.into_iter().find(|seen| seen.path == "/ready");
        probe.map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    assert!(
        !is_up(&world, "http").await,
        "503 is no answer to return by"
    );
    world
        .upstream
        .does(Script::Answer(Reply::new(200).body("yes")));
    eventually("it is back", async || {
        if is_up(&world, "http").await {
            Ok(())
        } else {
            Err("it is not".to_owned())
        }
    })
    .await;
    eventually("it gets requests", async || {
        send(&world).await;
        let seen = world.upstream.take_seen();
        let request = seen.into_iter().find(|seen| seen.path == "/v1/traces");
        request.map(drop).ok_or_else(|| "none".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_answered_unavailable_count_against_an_endpoint_unless_they_say_when() {
    let busy = |status| Reply {
        headers: vec![
            ("content-type", "application/grpc"),
            ("grpc-status", status),
        ],
        ..Reply::new(200)
    };
    let other = Upstream::start(Script::Answer(Reply::grpc())).await;
    // RESOURCE_EXHAUSTED is an answer as good as any.
    let world = with_other(Script::Answer(busy("8")), other.address, "").await;
    let later = busy("14").header("grpc-status-details-bin", "CAE");
    for reply in [busy("8"), later] {
        world.upstream.does(Script::Answer(reply));
        for _ in 0..30 {
            call(&world).await;
        }
    }
    let failures = of_first(&world, "okmon_edge_endpoint_failures_total", "grpc").await;
    assert!(failures < 0.5, "{failures}");
    world.upstream.does(Script::Answer(busy("14")));
    eventually("it is ejected", async || {
        call(&world).await;
        match of_first(&world, "okmon_edge_endpoint_ejections_total", "grpc").await {
            n if n > 0.5 => Ok(()),
            _ => Err("it is not".to_owned()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_refused_is_opened_at_another_endpoint() {
    let well = Upstream::start(Script::Answer(Reply::grpc())).await;
    let world = with_other(Script::Refuse, well.address, "").await;
    for _ in 0..20 {
        let answer = call(&world).await;
        assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
    }
    assert!(world.upstream.heads() > 0, "it was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_sends_connections_away_loses_no_call() {
    let goes = || Script::AnswerAndGo(Reply::grpc());
    let other = Upstream::start(goes()).await;
    let world = with_other(goes(), other.address, "").await;
    for _ in 0..100 {
        let answer = call(&world).await;
        assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
    }
    assert_eq!(world.upstream.heads() + other.heads(), 100, "none twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_an_endpoint_has_are_counted() {
    let name = "okmon_edge_endpoint_requests_in_flight";
    let world = World::start(Script::Hang).await;
    let sending = async {
        send(&world).await;
    };
    let counted = eventually("one in flight", async || {
        match of_first(&world, name, "http").await {
            n if n > 0.5 => Ok(n),
            n => Err(n.to_string()),
        }
    });
    tokio::select! {
        () = sending => unreachable!("it hangs"),
        n = counted => assert!(n < 1.5, "{n}"),
    }
    eventually("none in flight", async || {
        match of_first(&world, name, "http").await {
            n if n < 0.5 => Ok(()),
            n => Err(n.to_string()),
        }
    })
    .await;
}
