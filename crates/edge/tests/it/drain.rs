//! An edge that is told to stop: nobody who is served is dropped, and everybody else is told in time.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{
    DEADLINE, Setup, World, collect2, connect, eventually, head, http2, raw, read_answer, request2,
};
use crate::upstream::{Reply, Script};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// No test waits for it to pass.
const LONG_IDLE: &str = "drain_idle = '1m'\ndrain_max = '1m'";

async fn start(runtime: &'static str) -> World {
    let setup = Setup {
        runtime,
        ..Setup::PATIENT
    };
    World::start_with(Script::Answer(Reply::new(200)), setup).await
}

fn request(world: &World, body: usize) -> String {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    head("/v1/traces", &headers, body)
}

async fn ready(world: &World) -> String {
    let request = b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    String::from_utf8(raw(world.ops, request).await).unwrap()
}

/// Waits until the edge says that it stops.
async fn draining(world: &World) {
    eventually("/readyz says so", async || {
        let said = ready(world).await;
        if said.contains("503") && said.contains("draining: the process was told to stop") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_answered_over_http1_and_http2() {
    let mut world = start(LONG_IDLE).await;
    let mut slow = connect(world.api).await;
    slow.write_all(request(&world, 10).as_bytes())
        .await
        .unwrap();
    let mut send = http2(world.api).await.ready().await.unwrap();
    world.upstream.does(Script::Answer(Reply::grpc()));
    let key = world.keys.valid.reveal().to_owned();
    let headers = [("content-type", "application/grpc"), ("x-api-key", &key)];
    let (response, mut stream) = send
        .send_request(request2(METHOD, &headers), false)
        .unwrap();
    world.in_flight(2).await;
    drop(send);
    let stopping = world.stopping();
    draining(&world).await;
    eventually("nobody listens", async || {
        match TcpStream::connect(world.api).await {
            Ok(_) => Err("connected".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;

    stream.send_data(vec![0; 5].into(), true).unwrap();
    assert_eq!(collect2(response).await.unwrap().grpc_status(), Some("0"));
    world.upstream.does(Script::Answer(Reply::new(200)));
    slow.write_all(&[7; 10]).await.unwrap();
    let answer = read_answer(&mut slow).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(stopping.await.unwrap(), 0, "nobody was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_in_use_gets_one_more_answer_which_says_that_it_is_the_last() {
    let mut world = start(LONG_IDLE).await;
    let mut kept = connect(world.api).await;
    let whole = request(&world, 1) + "x";
    kept.write_all(whole.as_bytes()).await.unwrap();
    let answer = read_answer(&mut kept).await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    let stopping = world.stopping();
    draining(&world).await;
    kept.write_all(whole.as_bytes()).await.unwrap();
    let answer = read_answer(&mut kept).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(stopping.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_connection_is_told_to_go_away() {
    let mut world = start(LONG_IDLE).await;
    let stream = connect(world.api).await;
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let key = world.keys.valid.reveal().to_owned();
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", &key),
    ];
    let (response, _) = send
        .send_request(request2("/v1/traces", &headers), true)
        .unwrap();
    assert_eq!(collect2(response).await.unwrap().status, 200);
    let stopping = world.stopping();
    connection.await.unwrap().expect("an orderly end");
    assert!(send.ready().await.is_err(), "no further request");
    assert_eq!(stopping.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_accepted_while_the_load_balancer_has_not_noticed() {
    let mut world = start("drain_delay = '1m'").await;
    let stopping = world.stopping();
    draining(&world).await;
    let whole = request(&world, 1) + "x";
    for _ in 0..2 {
        let mut late = connect(world.api).await;
        late.write_all(whole.as_bytes()).await.unwrap();
        let answer = read_answer(&mut late).await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
    stopping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_nothing_comes_is_closed_and_a_request_that_has_begun_to_is_answered()
{
    let mut world = start("drain_idle = '0s'\ndrain_max = '1m'").await;
    let mut idle = connect(world.api).await;
    let whole = request(&world, 1) + "x";
    idle.write_all(whole.as_bytes()).await.unwrap();
    read_answer(&mut idle).await.unwrap();
    let mut late = connect(world.api).await;
    let (begin, rest) = whole.split_at(40);
    // In one piece, so that the second head has waiting to arrive when the first request is answered.
    let both = whole.clone() + begin;
    late.write_all(both.as_bytes()).await.unwrap();
    read_answer(&mut late).await.unwrap();
    let stopping = world.stopping();
    let mut end = Vec::new();
    idle.read_to_end(&mut end).await.unwrap();
    assert!(end.is_empty(), "an idle connection is closed");

    late.write_all(rest.as_bytes()).await.unwrap();
    let answer = read_answer(&mut late).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(stopping.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_might_not_end_in_time_is_told_to_come_again() {
    let mut world = start("drain_max = '10s'").await;
    let whole = request(&world, 1) + "x";
    let (begin, rest) = whole.split_at(40);
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let mut connection = connect(world.api).await;
        connection.write_all(begin.as_bytes()).await.unwrap();
        waiting.push(connection);
    }
    let stopping = world.stopping();
    draining(&world).await;
    let mut every = tokio::time::interval(Duration::from_millis(200));
    let mut statuses = Vec::new();
    while statuses.last() != Some(&503) {
        every.tick().await;
        let mut connection = waiting.pop().expect("one of them to be refused");
        connection.write_all(rest.as_bytes()).await.unwrap();
        let answer = read_answer(&mut connection).await.unwrap();
        assert_eq!(answer.header("connection"), Some("close"));
        statuses.push(answer.status);
        if answer.status == 503 {
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(text.contains("about to stop"), "{text}");
        }
    }
    assert_eq!(statuses.first(), Some(&200));
    stopping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_an_http2_sender_that_is_gone() {
    let mut world = start(LONG_IDLE).await;
    let mut gone = connect(world.api).await;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings].concat();
    gone.write_all(&begin).await.unwrap();
    assert_ne!(gone.read(&mut [0; 9]).await.unwrap(), 0);
    // It never answers the PING by which it is asked whether it has seen GOAWAY.
    let stopped = tokio::time::timeout(DEADLINE, world.stopping()).await;
    assert_eq!(stopped.expect("earlier than drain_max").unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_is_cut_off_and_counted() {
    let mut world = start("drain_idle = '0s'\ndrain_max = '100ms'").await;
    world.upstream.does(Script::Hang);
    let mut hanging = connect(world.api).await;
    let whole = request(&world, 1) + "x";
    hanging.write_all(whole.as_bytes()).await.unwrap();
    world.seen_soon().await;
    assert_eq!(world.stopping().await.unwrap(), 1);
}
