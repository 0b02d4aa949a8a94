//! The edge as its service manager sees it: signals, a file that changes, sockets that are handed over, and what it tells in turn.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use testkit::edge::Edge;
use testkit::{Process, eventually, okmon};

use crate::world::{World, answers_soon};

const SOON: Duration = Duration::from_secs(20);
/// The log record that [`Edge::post`] sends is longer.
const SMALL: &str = "[limits]\nbody_max = \"3B\"\n\n[auth_failures]";

fn smaller(config: &str) -> String {
    config.replace("[auth_failures]", SMALL)
}

/// Waits until the edge has logged all of this.
#[track_caller]
fn says(edge: &mut Edge, told: &[&str]) {
    edge.wait_until(SOON, &format!("say {told:?}"), |edge| {
        let output = edge.output();
        let missing = told.iter().find(|told| !output.contains(*told));
        missing.map_or(Ok(()), |missing| Err(format!("no {missing}")))
    });
}

/// A request of which the last byte is not sent yet, and which the upstream has begun to see.
fn in_flight(edge: &Edge, key: &str) -> TcpStream {
    let mut stream = TcpStream::connect(edge.address()).unwrap();
    let request = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nauthorization: Bearer {key}\r\ncontent-length: 2\r\n\r\n{{"
    );
    stream.write_all(request.as_bytes()).unwrap();
    eventually(SOON, "a request in flight", || {
        let flying = edge.metric("okmon_edge_requests_in_flight");
        if flying >= 1.0 { Ok(()) } else { Err(flying) }
    });
    stream
}

/// Tells the edge to stop, and waits until it says that it does.
fn stopping(edge: &mut Edge) {
    edge.signal("TERM");
    edge.wait_until(SOON, "say that it stops", |edge| {
        match edge.ops("/readyz") {
            Ok((503, text)) if text.contains("draining") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn a_hangup_has_the_file_taken_over_or_every_mistake_in_it_told() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let mut edge = Edge::new(world.settings());
    edge.rewrite(|config| config.replace("[runtime]", "[runtime]\nreload_on_change = false"));
    edge.start();
    answers_soon([&edge], &key, 200, SOON, "the start");
    let before = edge.config();
    edge.rewrite(smaller);
    edge.signal("HUP");
    answers_soon([&edge], &key, 413, SOON, "SIGHUP");

    let mistakes = "[limits]\nbody_max = \"much\"\nbody_min = 1\n";
    edge.rewrite(|_| before.clone() + mistakes);
    edge.signal("HUP");
    says(
        &mut edge,
        &["limits.body_max", "limits.body_min", "refused"],
    );
    edge.remove_config();
    edge.signal("HUP");
    says(&mut edge, &["cannot read"]);
    assert_eq!(edge.post(&key), Ok(413), "the old one is in force");
    assert!(matches!(edge.ops("/readyz"), Ok((200, _))));

    edge.rewrite(|_| before.clone());
    edge.signal("HUP");
    answers_soon([&edge], &key, 200, SOON, "SIGHUP");
    assert_eq!(edge.stop().status.code(), Some(0));
}

#[test]
fn a_file_that_changes_is_taken_over_by_itself() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let mut edge = Edge::new(world.settings());
    edge.start();
    answers_soon([&edge], &key, 200, SOON, "the start");
    let before = edge.config();
    edge.rewrite(smaller);
    answers_soon([&edge], &key, 413, SOON, "the change");
    edge.rewrite(|_| String::new());
    says(&mut edge, &["listeners", "refused"]);
    assert_eq!(edge.post(&key), Ok(413), "the old one is in force");
    edge.rewrite(|_| before.clone());
    answers_soon([&edge], &key, 200, SOON, "the change");
}

#[test]
fn told_to_stop_an_edge_answers_what_is_in_flight_and_ends_with_status_0() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let mut edge = world.edge("");
    let mut flying = in_flight(&edge, &key);
    stopping(&mut edge);
    flying.write_all(b"}").unwrap();
    let mut answer = String::new();
    flying.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    let ended = edge.ended();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn a_second_signal_ends_an_edge_at_once() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let mut edge = Edge::new(world.settings());
    edge.rewrite(|config| config.replace("[runtime]", "[runtime]\ndrain_max = \"1h\""));
    edge.start();
    let _flying = in_flight(&edge, &key);
    stopping(&mut edge);
    edge.signal("TERM");
    let ended = edge.ended();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("a second signal"), "{ended:?}");
}

#[test]
fn who_sends_while_no_edge_runs_is_answered_by_the_next_one_that_inherits_the_socket() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let mut edge = Edge::new(world.settings());
    let socket = TcpListener::bind(edge.address()).unwrap();
    edge.inherits("all", socket);
    edge.start();
    answers_soon([&edge], &key, 200, SOON, "the start");
    assert_eq!(edge.stop().status.code(), Some(0));

    let mut waiting = in_queue(&edge, &key);
    edge.start();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// A whole request, sent to whoever will be there.
fn in_queue(edge: &Edge, key: &str) -> TcpStream {
    let mut stream = TcpStream::connect(edge.address()).unwrap();
    let request = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\nauthorization: Bearer {key}\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

#[test]
fn an_inherited_socket_that_no_listener_fits_stops_the_start_by_name_and_address() {
    let world = World::start();
    for (name, told) in [
        ("other", "no listener has the name or the address"),
        ("all", "the inherited socket of this name listens on"),
    ] {
        let mut edge = Edge::new(world.settings());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        edge.inherits(name, socket);
        edge.spawn();
        let ended = edge.ended();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        for told in [told, name, &address] {
            assert!(ended.stderr.contains(told), "{told}: {ended:?}");
        }
    }
}

#[test]
fn the_service_manager_is_told_of_readiness_reloads_and_the_end() {
    let world = World::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let next = || {
        let mut message = [0; 4096];
        let length = manager.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let mut settings = world.settings();
    let socket = ("NOTIFY_SOCKET", path.to_str().unwrap());
    settings.environment = vec![(socket.0.to_owned(), socket.1.to_owned())];
    let mut edge = Edge::new(settings);
    edge.start();
    assert!(next().contains("READY=1"));
    edge.signal("HUP");
    let reloading = next();
    for part in ["RELOADING=1", "MONOTONIC_USEC="] {
        assert!(reloading.contains(part), "{reloading}");
    }
    let ready = next();
    for part in ["READY=1", "STATUS=serving"] {
        assert!(ready.contains(part), "{ready}");
    }
    edge.rewrite(|_| String::new());
    edge.signal("HUP");
    assert!(next().contains("RELOADING=1"));
    let ready = next();
    for part in ["READY=1", "refused"] {
        assert!(ready.contains(part), "{ready}");
    }
    edge.stop();
    assert!(next().contains("STOPPING=1"));
}

#[test]
fn systemd_hands_over_its_socket_with_whom_it_was_woken_by() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let mut edge = Edge::new(world.settings());
    edge.activated_by_systemd();
    for _ in 0..2 {
        edge.spawn();
        eventually(SOON, "systemd listens", || {
            TcpStream::connect(edge.address()).map_err(|error| error.to_string())
        });
        // Nobody else has that port: who answers took the socket over.
        answers_soon([&edge], &key, 200, SOON, "a connection");
        edge.stop();
    }
}

#[test]
fn a_probe_tells_by_its_status_whether_an_edge_is_ready_and_why_not() {
    let probe = |url: &str| {
        let mut command = okmon();
        command.args(["probe", url, "--timeout", "20s"]);
        Process::spawn("okmon probe", command).wait(2 * SOON)
    };
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let mut edge = world.edge("");
    let ready = edge.ops_url("/readyz");
    probe(&ready).succeeded();
    let _flying = in_flight(&edge, &key);
    stopping(&mut edge);
    let refused = probe(&ready);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("503") && refused.stderr.contains("draining"),
        "{refused:?}"
    );
    drop(edge);
    let nobody = probe(&ready);
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    assert!(nobody.stderr.contains(&ready), "{nobody:?}");
}
