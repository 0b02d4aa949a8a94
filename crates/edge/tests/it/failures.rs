//! Wrong keys cost little, and cost those who send them.

use std::net::SocketAddr;

use model::{ApiKey, ScopeSet, TenantId};
use store::{Actor, NewKey};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{
    Answer, Setup, TENANT, World, collect2, connect, eventually, head, http2, post, post2,
    read_answer, request2,
};
use crate::routes::{Expected, Form, GRPC, PROTOBUF, Retry, check, routes};
use crate::upstream::{Reply, Script};

/// How many failures an address may bring here.
const FAILURES: u32 = 5;

const EXHAUSTED: Expected = Expected {
    status: 429,
    code: "8",
    retry: Retry::Longer,
};
/// A stock Prometheus drops on a 429.
const EXHAUSTED_REMOTE_WRITE: Expected = Expected {
    status: 503,
    ..EXHAUSTED
};

async fn world(auth_failures: u32) -> World {
    let setup = Setup {
        auth_failures,
        ..Setup::PATIENT
    };
    World::start_with(Script::Answer(Reply::new(200)), setup).await
}

async fn send(address: SocketAddr, key: &str) -> Answer {
    let headers = [PROTOBUF[0], ("x-api-key", key)];
    post(address, "/v1/traces", &headers, b"x").await
}

async fn status(world: &World, key: &ApiKey) -> u16 {
    send(world.api, key.reveal()).await.status
}

/// As [`status`], from another address.
async fn status_from(from: &str, world: &World, key: &ApiKey) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(from.parse().unwrap()).unwrap();
    let mut stream = socket.connect(world.api).await.unwrap();
    let headers = [PROTOBUF[0], ("x-api-key", key.reveal())];
    let head = head("/v1/traces", &headers, 0);
    stream.write_all(head.as_bytes()).await.unwrap();
    read_answer(&mut stream).await.unwrap().status
}

fn unknown() -> ApiKey {
    ApiKey::generate().unwrap()
}

fn misspelt(key: &ApiKey) -> String {
    let mut text = key.reveal().to_owned();
    let last = text.pop().unwrap();
    text.push(if last == 'x' { 'y' } else { 'x' });
    text
}

async fn fetches(world: &World) -> f64 {
    world.metric("okmon_edge_key_fetches_total", "").await
}

/// Brings the budget of this address down to nothing.
async fn exhaust(world: &World) {
    for n in 0..FAILURES {
        assert_eq!(status(world, &unknown()).await, 401, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_wrong_keys_are_not_looked_up_and_everybody_else_goes_on() {
    let world = world(FAILURES).await;
    assert_eq!(status(&world, &world.keys.unknown).await, 401);
    assert_eq!(status(&world, &world.keys.valid).await, 200);
    exhaust_after_one(&world).await;
    let asked = fetches(&world).await;
    for route in routes() {
        let expected = match route.path {
            "/api/v1/push" | "/api/v1/write" => &EXHAUSTED_REMOTE_WRITE,
            _ if route.headers == crate::routes::REMOTE_WRITE => &EXHAUSTED_REMOTE_WRITE,
            _ => &EXHAUSTED,
        };
        let key = unknown();
        for answer in route.send(&world, &[("x-api-key", key.reveal())]).await {
            let text = check(&route, &answer, expected);
            assert!(text.contains("address") && text.contains("stop the sender"));
            assert!(!text.contains(key.id().as_str()));
        }
    }
    assert_eq!(
        status(&world, &world.keys.unknown).await,
        401,
        "known to be wrong"
    );
    assert!(
        (fetches(&world).await - asked).abs() < 0.5,
        "nobody was asked"
    );
    assert_eq!(status(&world, &world.keys.valid).await, 200);
    assert_eq!(status(&world, &world.keys.other).await, 200);
    assert_eq!(status_from("127.0.0.2:0", &world, &unknown()).await, 401);
    assert!((fetches(&world).await - asked - 1.0).abs() < 0.5);

    let exhausted = world.metric("okmon_edge_auth_budget_exhausted_total", "");
    assert!((exhausted.await - 1.0).abs() < 0.5);
    let label = "cause=\"auth_failures\"";
    assert!(world.metric("okmon_edge_refusals_total", label).await > 1.0);
    eventually("the tables' sizes", async || {
        let addresses = world.metric("okmon_edge_auth_addresses", "").await;
        let keys = world.metric("okmon_edge_auth_dead_keys", "").await;
        let wanted =
            (addresses - 2.0).abs() < 0.5 && (keys - f64::from(FAILURES) - 1.0).abs() < 0.5;
        wanted.then_some(()).ok_or(format!("{addresses} {keys}"))
    })
    .await;
}

/// Waits until so many connections were ended because keys were guessed on them.
async fn guessers_ended(world: &World, times: f64) {
    eventually("the counter", async || {
        let label = "reason=\"auth_failures\"";
        let name = "okmon_edge_connections_closed_total";
        let ended = world.metric(name, label).await;
        ((ended - times).abs() < 0.5)
            .then_some(())
            .ok_or(ended.to_string())
    })
    .await;
}

/// Sends a request on an open connection: its status, and whether the connection stays.
async fn ask(connection: &mut TcpStream, key: &ApiKey) -> (u16, bool) {
    let headers = [PROTOBUF[0], ("x-api-key", key.reveal())];
    let head = head("/v1/traces", &headers, 0);
    connection.write_all(head.as_bytes()).await.unwrap();
    let answer = read_answer(connection).await.expect("an answer");
    (answer.status, answer.header("connection") != Some("close"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_on_needs_a_new_connection_each_time() {
    let world = world(FAILURES).await;
    exhaust(&world).await;
    let mut connection = connect(world.api).await;
    assert_eq!(ask(&mut connection, &unknown()).await, (429, false));
    guessers_ended(&world, 1.0).await;

    let stream = connect(world.api).await;
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let wrong = unknown();
    let headers = [PROTOBUF[0], ("x-api-key", wrong.reveal())];
    let request = request2("/v1/traces", &headers);
    let (response, _) = send.send_request(request, true).unwrap();
    assert_eq!(collect2(response).await.unwrap().status, 429);
    ended.await.unwrap().expect("GOAWAY without an error");
    guessers_ended(&world, 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_shown_a_valid_key_keeps_the_connection() {
    let world = world(FAILURES).await;
    assert_eq!(status(&world, &world.keys.valid).await, 200);
    exhaust(&world).await;
    let mut connection = connect(world.api).await;
    assert_eq!(ask(&mut connection, &world.keys.valid).await, (200, true));
    assert_eq!(ask(&mut connection, &unknown()).await, (429, true));
    assert_eq!(ask(&mut connection, &world.keys.valid).await, (200, true));

    let mut send = http2(world.api).await;
    let wrong = unknown();
    for (key, expected) in [
        (&world.keys.valid, 200),
        (&wrong, 429),
        (&world.keys.valid, 200),
    ] {
        let headers = [PROTOBUF[0], ("x-api-key", key.reveal())];
        send = send.ready().await.unwrap();
        let request = request2("/v1/traces", &headers);
        let (response, _) = send.send_request(request, true).unwrap();
        assert_eq!(collect2(response).await.unwrap().status, expected);
    }
    guessers_ended(&world, 0.0).await;
}

async fn exhaust_after_one(world: &World) {
    for n in 1..FAILURES {
        assert_eq!(status(world, &unknown()).await, 401, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_wrong_key_is_counted_and_no_key_is_not() {
    let expectations = [
        ("none", 401),
        ("valid", 401),
        ("malformed", 429),
        ("expired", 429),
        ("revoked", 429),
        ("known to be unknown", 429),
    ];
    for (kind, expected) in expectations {
        let world = world(FAILURES).await;
        for _ in 0..FAILURES {
            match kind {
                "none" => {
                    let answer = post(world.api, "/v1/traces", PROTOBUF, b"x").await;
                    assert_eq!(answer.status, 401);
                }
                "valid" => assert_eq!(status(&world, &world.keys.valid).await, 200),
                "malformed" => {
                    let answer = send(world.api, &misspelt(&world.keys.valid)).await;
                    assert_eq!(answer.status, 401);
                }
                "expired" => assert_eq!(status(&world, &world.keys.expired).await, 401),
                "revoked" => assert_eq!(status(&world, &world.keys.revoked).await, 401),
                _ => assert_eq!(status(&world, &world.keys.unknown).await, 401),
            }
        }
        assert_eq!(status(&world, &unknown()).await, expected, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_that_arrives_by_the_feed_works_whatever_came_from_its_address() {
    let world = world(FAILURES).await;
    exhaust(&world).await;
    let key = unknown();
    assert_eq!(status(&world, &key).await, 429);
    make(&world, &key).await;
    becomes(&world, &key, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_could_look_up_is_no_failure() {
    let world = world(FAILURES).await;
    world
        .by_hand("alter table api_keys rename to elsewhere")
        .await;
    for _ in 0..FAILURES * 2 {
        assert_eq!(status(&world, &unknown()).await, 503);
    }
    world
        .by_hand("alter table elsewhere rename to api_keys")
        .await;
    let key = unknown();
    becomes(&world, &key, 401).await;
}

/// How long a key is asked to wait, in seconds, by each protocol in turn.
async fn waits(world: &World, key: &ApiKey) -> [u64; 4] {
    let key = ("x-api-key", key.reveal());
    let mut waits = [0; 4];
    let paths = ["/v1/logs", "/api/v1/push", "/loki/api/v1/push"];
    for (wait, path) in waits.iter_mut().zip(paths) {
        let answer = post(world.api, path, &[PROTOBUF[0], key], b"x").await;
        assert_eq!(answer.status, 401, "{path}");
        *wait = answer.header("retry-after").expect(path).parse().unwrap();
    }
    let method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    let headers = [GRPC, &[key]].concat();
    let answer = post2(world.api, method, &headers, &[&[0; 5]]).await;
    assert_eq!(answer.grpc_status(), Some("16"));
    let grpc = routes()
        .into_iter()
        .find(|route| route.form == Form::Grpc && route.path == method)
        .unwrap();
    let expected = Expected {
        status: 401,
        code: "16",
        retry: Retry::Longer,
    };
    check(&grpc, &answer, &expected);
    waits[3] = crate::routes::retry_info_seconds(&answer);
    waits
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_key_is_asked_to_wait_longer_each_time_in_every_protocol() {
    let world = world(1_000_000).await;
    let keys = [
        &world.keys.unknown,
        &world.keys.expired,
        &world.keys.revoked,
    ];
    for key in keys {
        let mut told = Vec::new();
        for _ in 0..3 {
            told.extend(waits(&world, key).await);
        }
        let least = [4, 8, 16, 32, 64, 128, 240, 240, 240, 240, 240, 240];
        for (told, least) in told.iter().zip(least) {
            let allowed = least..=(least + least / 4 + 1).min(300);
            assert!(allowed.contains(told), "{told}, {allowed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_worked_meanwhile_begins_anew() {
    let world = world(1_000_000).await;
    let key = unknown();
    let first = waits(&world, &key).await;
    assert!(first[3] >= 32, "{first:?}");
    make(&world, &key).await;
    becomes(&world, &key, 200).await;
    world
        .by_hand("update api_keys set revoked_at = datetime('now') where tenant_id = 'tenant-a'")
        .await;
    let told = eventually("the revocation", async || {
        let answer = send(world.api, key.reveal()).await;
        let wait = answer.header("retry-after").map(str::to_owned);
        wait.filter(|_| answer.status == 401)
            .ok_or_else(|| format!("status {}", answer.status))
    })
    .await;
    assert!(told.parse::<u64>().unwrap() <= 6, "{told}");
}

/// Gives the first tenant `key`.
async fn make(world: &World, key: &ApiKey) {
    let row = NewKey {
        key_id: key.id(),
        digest: key.digest(),
        name: String::new(),
        scopes: ScopeSet::WRITE,
        expires_at: None,
    };
    let (tenant, actor) = (TenantId::parse(TENANT).unwrap(), Actor::command("test"));
    let made = world
        .store
        .key_insert(&tenant, row, OffsetDateTime::now_utc(), &actor);
    made.await.unwrap();
}

async fn becomes(world: &World, key: &ApiKey, wanted: u16) {
    eventually("the key's new state", async || {
        match status(world, key).await {
            status if status == wanted => Ok(()),
            status => Err(format!("status {status}")),
        }
    })
    .await;
}
