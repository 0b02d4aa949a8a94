//! Limits in time towards upstreams, each alone; and who they take each other for over TLS.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use testkit::certificates::Authority;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Answer, Setup, World, connect, head, post, post2, read_answer};
use crate::upstream::{Reply, Script, Upstream};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Has all upstreams of a patient world set so, besides.
async fn set(world: &mut World, more: &str) {
    let url = format!("url = 'http://{}'", world.upstream.address);
    set_from(world, &url, more).await;
}

async fn set_from(world: &mut World, url: &str, more: &str) {
    // A key may be there once only.
    let key = more.split(' ').next().unwrap();
    world
        .reload(|text| {
            let others = text.lines().filter(|line| !line.starts_with(key));
            let text = others.collect::<Vec<_>>().join("\n");
            text.replace(url, &format!("{url}\n{more}"))
        })
        .await
        .unwrap();
}

fn headers(world: &World) -> [(&'static str, &str); 2] {
    [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ]
}

async fn send(world: &World, body: &[u8]) -> Answer {
    post(world.api, "/v1/traces", &headers(world), body).await
}

async fn call(world: &World, body: &[u8]) -> Answer {
    let headers = [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    post2(world.api, METHOD, &headers, &[body]).await
}

/// A port that answers no connection: its queue is full. It lives as long as what is returned.
fn deaf() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = vec![listener];
    loop {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let connected = client.connect_timeout(&address, Duration::from_millis(200));
        held.push(client);
        if connected.is_err() {
            return (address.as_socket().unwrap(), held);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_takes_no_longer_than_set() {
    let (address, _held) = deaf();
    let mut world = World::start_against(address, Setup::PATIENT).await;
    let url = format!("url = 'http://{address}'");
    set_from(&mut world, &url, "connect_timeout = '200ms'").await;
    let answer = send(&world, b"x").await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(call(&world, &[0; 5]).await.grpc_status(), Some("14"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_takes_no_longer_than_set() {
    let mut world = World::start(Script::Hang).await;
    set(&mut world, "first_byte_timeout = '200ms'").await;
    assert_eq!(send(&world, b"x").await.status, 504);
    assert_eq!(call(&world, &[0; 5]).await.grpc_status(), Some("14"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_takes_no_byte_is_not_waited_for_longer_than_set() {
    // More than the buffers on the way hold.
    let large = vec![0; 15 << 20];
    let mut world = World::start(Script::Stall).await;
    set(&mut world, "idle_timeout = '300ms'").await;
    assert_eq!(send(&world, &large).await.status, 504);
    assert_eq!(call(&world, &large).await.grpc_status(), Some("14"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_takes_no_longer_than_set_though_it_never_stands_still() {
    let mut world = World::start(Script::Answer(Reply::new(200))).await;
    set(&mut world, "total_timeout = '500ms'").await;
    let mut stream = connect(world.api).await;
    let (mut reading, mut writing) = stream.split();
    let request = head("/v1/traces", &headers(&world), 1 << 20);
    writing.write_all(request.as_bytes()).await.unwrap();
    let dripping = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if writing.write_all(&[7; 100]).await.is_err() {
                return std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        answer = read_answer(&mut reading) => assert_eq!(answer.unwrap().status, 504),
        () = dripping => unreachable!("it never ends"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_asks_for_a_certificate_is_shown_the_one_that_is_set() {
    let authority = Authority::new("upstreams");
    let answers = Script::Answer(Reply::new(200));
    let upstream = Upstream::start_mutual_tls(answers, &authority, "mimir.internal").await;
    let mut world = World::start_against(upstream.address, Setup::PATIENT).await;
    let client = authority.issue(&["edge"]).write(world.folder(), "client");
    let stranger = Authority::new("others").issue(&["edge"]);
    let stranger = stranger.write(world.folder(), "stranger");
    let ca_file = world.folder().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let plain = format!("url = 'http://{}'", upstream.address);
    let verified = format!(
        "url = 'https://{}'\nca_file = '{}'",
        upstream.address,
        ca_file.display()
    );
    let named = format!("{verified}\nserver_name = 'mimir.internal'");
    let shows = |pair: &testkit::certificates::Pair| {
        let (certificate, key) = (pair.certificate.display(), pair.key.display());
        format!("{named}\nclient_cert_file = '{certificate}'\nclient_key_file = '{key}'")
    };
    for (upstream, status) in [
        (&shows(&client), 200),
        (&shows(&stranger), 503),
        (&named, 503),
        (
            &shows(&client).replace("mimir.internal", "loki.internal"),
            503,
        ),
    ] {
        world
            .reload(|text| text.replace(&plain, upstream))
            .await
            .unwrap();
        assert_eq!(send(&world, b"x").await.status, status, "{upstream}");
    }
}
