//! A configuration that takes another's place while requests run.

use model::ApiKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{OTHER, World, connect, eventually, head, read_answer};
use crate::upstream::{Reply, Script};

async fn start() -> World {
    World::start(Script::Answer(Reply::new(200))).await
}

fn request(world: &World, tenant: &str, body: &[u8]) -> Vec<u8> {
    let mut headers = vec![
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    if !tenant.is_empty() {
        headers.push(("x-scope-orgid", tenant));
    }
    [head("/v1/traces", &headers, body.len()).as_bytes(), body].concat()
}

/// Sends a small request on an open connection: the status.
async fn ask(world: &World, connection: &mut TcpStream, tenant: &str, body: &[u8]) -> u16 {
    let request = request(world, tenant, body);
    connection.write_all(&request).await.unwrap();
    read_answer(connection).await.expect("an answer").status
}

#[expect(clippy::cast_possible_truncation, reason = "small counts")]
async fn metric(world: &World, name: &str, labels: &str) -> i64 {
    let name = format!("okmon_edge_config_{name}");
    world.metric(&name, labels).await as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_routes_change_for_the_next_request_of_an_open_connection() {
    let mut world = start().await;
    let mut open = connect(world.api).await;
    assert_eq!(ask(&world, &mut open, "", b"four").await, 200);
    let less = |text: String| text.replace("body_max = '16MiB'", "body_max = '3B'");
    world.reload(less).await.unwrap();
    assert_eq!(ask(&world, &mut open, "", b"four").await, 413);
    let no_route = |text: String| {
        text.replace(
            "[routes.otlp_http]\ntraces = 'http'\n",
            "[routes.otlp_http]\n",
        )
    };
    world.reload(no_route).await.unwrap();
    assert_eq!(ask(&world, &mut open, "", b"four").await, 404);
    assert_eq!(metric(&world, "loads_total", "taken").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_stays_keeps_its_connections_and_changes_for_them() {
    let mut world = start().await;
    let mut open = connect(world.api).await;
    assert_eq!(ask(&world, &mut open, OTHER, b"x").await, 403);
    let ignore = |text: String| {
        let strict = "[listeners.api]\naddress = '127.0.0.1:0'\n";
        text.replace(strict, &format!("{strict}tenant_header = 'ignore'\n"))
    };
    world.reload(ignore).await.unwrap();
    assert_eq!(ask(&world, &mut open, OTHER, b"x").await, 200);
    assert_eq!(world.listener("api"), Some(world.api));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_ends_as_it_began() {
    let mut world = start().await;
    let mut open = connect(world.api).await;
    let request = request(&world, "", &[7; 1000]);
    let (begin, rest) = request.split_at(request.len() - 500);
    open.write_all(begin).await.unwrap();
    world.in_flight(1).await;
    let change = |text: String| {
        text.replace("body_max = '16MiB'", "body_max = '3B'")
            .replace(
                "[routes.otlp_http]\ntraces = 'http'\n",
                "[routes.otlp_http]\n",
            )
    };
    world.reload(change).await.unwrap();
    open.write_all(rest).await.unwrap();
    assert_eq!(read_answer(&mut open).await.unwrap().status, 200);
    assert!(world.seen_soon().await.whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_refused_whole_with_every_problem() {
    let mut world = start().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap();
    let change = |text: String| {
        text.replace("body_max = '16MiB'", "body_max = '3B'")
            .replace("workers = 2", "workers = 3")
            .replace("poll_every = '100ms'", "poll_every = '200ms'")
            .replace(
                "[upstreams.loki]\n",
                "[upstreams.bad]\nurl = 'https://a'\nca_file = '/nowhere'\n[upstreams.loki]\n",
            )
            .replace(
                "[ops]\n",
                &format!("[listeners.more]\naddress = '{taken}'\n[ops]\n"),
            )
    };
    let refused = world.reload(change).await.unwrap_err();
    let told: Vec<_> = refused.lines().collect();
    assert_eq!(told.len(), 4, "{refused}");
    for (line, names) in told
        .iter()
        .zip(["keys:", "runtime.workers:", "(more)", "upstreams.bad:"])
    {
        assert!(line.contains(names), "{line}");
    }
    let mut open = connect(world.api).await;
    assert_eq!(
        ask(&world, &mut open, "", b"four").await,
        200,
        "the old one serves"
    );
    assert_eq!(metric(&world, "loads_total", "refused").await, 1);
    assert_eq!(metric(&world, "last_load_successful", "").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_and_go() {
    let mut world = start().await;
    let lenient = "[listeners.lenient]\naddress = '127.0.0.1:0'\ntenant_header = 'ignore'\n";
    let mut idle = connect(world.lenient).await;
    assert_eq!(ask(&world, &mut idle, "", b"x").await, 200);
    let mut busy = connect(world.lenient).await;
    let request = request(&world, "", b"busy");
    let (begin, rest) = request.split_at(request.len() - 2);
    busy.write_all(begin).await.unwrap();
    world.in_flight(1).await;
    let other = |text: String| {
        let more = "[listeners.more]\naddress = '127.0.0.1:0'\n";
        text.replace(lenient, more)
            .replace("workers = 2", "workers = 2\ndrain_idle = '0s'")
    };
    world.reload(other).await.unwrap();
    let mut new = connect(world.listener("more").unwrap()).await;
    assert_eq!(ask(&world, &mut new, "", b"x").await, 200);
    assert_eq!(world.listener("lenient"), None);
    let mut end = Vec::new();
    idle.read_to_end(&mut end).await.unwrap();
    assert!(
        end.is_empty(),
        "an idle connection of a listener that is gone is closed"
    );
    busy.write_all(rest).await.unwrap();
    let answer = read_answer(&mut busy).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    eventually("nobody listens", async || {
        match TcpStream::connect(world.lenient).await {
            Ok(_) => Err("connected".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_under_another_name_goes_on_at_its_address() {
    let mut world = start().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let named = |name: &str| {
        let section = format!("[listeners.{name}]\naddress = '{address}'\n[ops]\n");
        move |text: String| text.replace("[ops]\n", &section)
    };
    world.reload(named("before")).await.unwrap();
    let mut kept = connect(address).await;
    assert_eq!(ask(&world, &mut kept, "", b"x").await, 200);
    world.reload(named("after")).await.unwrap();
    assert_eq!(world.listener("before"), None);
    assert_eq!(world.listener("after"), Some(address));
    assert_eq!(ask(&world, &mut kept, "", b"x").await, 200);
    let mut end = Vec::new();
    kept.read_to_end(&mut end).await.unwrap();
    assert!(end.is_empty(), "the listener it came by has ended");
    let mut new = connect(address).await;
    for _ in 0..2 {
        assert_eq!(ask(&world, &mut new, "", b"x").await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_listeners_cannot_have_one_address() {
    let text =
        "[listeners.a]\naddress = '127.0.0.1:4317'\n[listeners.b]\naddress = '127.0.0.1:4317'\n";
    let problems = edge::Config::parse("test", text).unwrap_err().to_string();
    assert!(
        problems.contains("listeners.b.address: [listeners.a] has this address already"),
        "{problems}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_of_failures_change_without_a_restart() {
    let mut world = start().await;
    let mut open = connect(world.api).await;
    // Who has shown a valid key is not sent away for wrong ones.
    assert_eq!(ask(&world, &mut open, "", b"x").await, 200);
    for burst in ["burst = 1", "burst = 1000000"] {
        let change = |text: String| text.replace("burst = 1000000", burst) + "\n";
        world.reload(change).await.unwrap();
        let mut told = Vec::new();
        for _ in 0..3 {
            let unknown = ApiKey::generate().unwrap();
            let headers = [
                ("content-type", "application/x-protobuf"),
                ("x-api-key", unknown.reveal()),
            ];
            let wrong = head("/v1/traces", &headers, 0);
            open.write_all(wrong.as_bytes()).await.unwrap();
            told.push(read_answer(&mut open).await.unwrap().status);
        }
        assert_eq!(told.contains(&429), burst == "burst = 1", "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_to_an_inherited_socket_is_answered_by_the_edge_that_comes() {
    let mut world = start().await;
    world.stop().await;
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.start_inheriting(&socket).await;
    assert_eq!(world.api, socket.local_addr().unwrap());
    let mut kept = connect(world.api).await;
    assert_eq!(ask(&world, &mut kept, "", b"x").await, 200);
    let without = |text: String| text.replace("[listeners.api]", "[listeners.other]");
    let refused = world.reload(without).await.unwrap_err();
    assert!(refused.contains("(api)"), "{refused}");
    assert_eq!(ask(&world, &mut kept, "", b"x").await, 200);
    drop(kept);

    world.stop().await;
    let mut waiting = connect(world.api).await;
    let request = request(&world, "", b"x");
    waiting.write_all(&request).await.unwrap();
    world.start_inheriting(&socket).await;
    assert_eq!(read_answer(&mut waiting).await.unwrap().status, 200);
}
