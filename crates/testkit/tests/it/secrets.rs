//! Nothing that is written down lets anybody in: the dump of the database, the edge's snapshot and all logs, as wordy as they can be,
//! hold no key, no operator token, and no secret part of either.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::control::id_of;
use testkit::edge::{Edge, Settings};
use testkit::eventually;
use testkit::key_rows::fresh_key;
use testkit::postgres::Postgres;

use crate::world::{World, answers_soon};

const SOON: Duration = Duration::from_secs(4);
const CLI_MAX: Duration = Duration::from_mins(1);

/// The secret 36 characters of a key or an operator token.
fn secret(credential: &str) -> &str {
    let digits = credential.split_once('_').unwrap().1;
    &digits[12..48]
}

#[test]
fn dump_snapshot_and_logs_at_trace_level_hold_no_secret() {
    let world = World::start_on(Postgres::shared(), "trace");
    let control = &world.control;
    let mut edge = Edge::new(Settings {
        log: "trace",
        ..world.settings()
    });
    edge.start();
    let mut printed = Vec::new();
    let mut cli = |arguments: &[&str]| {
        let finished = control.cli(arguments);
        printed.push(finished.stderr.clone());
        finished.succeeded().stdout.clone()
    };

    let mut credentials = vec![control.token.clone(), control.create_tenant("acme")];
    let created = cli(&["key", "create", "acme", "--name", "second", "--json"]);
    let created: Value = serde_json::from_str(&created).unwrap();
    credentials.push(created["key"].as_str().unwrap().to_owned());
    let rotate = [
        "key",
        "rotate",
        "acme",
        "--key",
        &id_of(&credentials[2]),
        "--json",
    ];
    let rotated: Value = serde_json::from_str(&cli(&rotate)).unwrap();
    credentials.push(rotated["key"].as_str().unwrap().to_owned());
    let operator = ["operator", "create", "reader", "--scopes", "read", "--json"];
    let operator = [&operator[..], &["--database-url", &world.url]].concat();
    let operator: Value = serde_json::from_str(&cli(&operator)).unwrap();
    credentials.push(operator["token"].as_str().unwrap().to_owned());
    cli(&["key", "list", "acme"]);
    let unknown = fresh_key().reveal().to_owned();
    credentials.push(unknown.clone());

    for key in &credentials[1..4] {
        answers_soon([&edge], key, 200, SOON, "made");
        assert_eq!(edge.grpc(key), 0);
    }
    assert_eq!(edge.post(&unknown), Ok(401));
    assert_eq!(edge.grpc(&unknown), 16);
    control.revoke(&credentials[3]);
    answers_soon([&edge], &credentials[3], 401, SOON, "revoked");
    // A credential in the wrong place is not written down either.
    let (status, _) = control.ask("POST", "/tenants", Some(&json!({"id": credentials[1]})));
    assert_eq!(status, 422);
    let (status, _) = control.ask("GET", &format!("/tenants/{}", credentials[1]), None);
    assert!(status >= 400, "{status}");
    eventually(SOON, "a snapshot", || {
        edge.snapshot().exists().then_some(()).ok_or("none")
    });
    edge.stop();

    let mut dump = Postgres::shared().program("pg_dump");
    dump.arg(&world.url);
    let dump = testkit::Process::spawn("pg_dump", dump).wait(CLI_MAX);
    let dump = dump.succeeded().stdout.clone();
    assert!(dump.contains(&id_of(&credentials[3])), "it is a dump");
    let snapshot = std::fs::read(edge.snapshot()).unwrap();
    let edge_log = edge.output();
    assert!(edge_log.contains("TRACE") || edge_log.contains("trace"));
    let control_log = control.output();
    let places = [
        ("the dump", dump.into_bytes()),
        ("the snapshot", snapshot),
        ("the edge's log", edge_log.into_bytes()),
        ("control's log", control_log.into_bytes()),
        ("what the CLI remarks", printed.concat().into_bytes()),
    ];
    for (place, text) in &places {
        for credential in &credentials {
            let secret = secret(credential).as_bytes();
            assert_eq!(secret.len(), 36);
            let at = text.windows(36).position(|part| part == secret);
            if let Some(at) = at {
                let line = String::from_utf8_lossy(&text[at.saturating_sub(300)..at]);
                panic!("{place} holds the secret of {}…: {line}", &credential[..8]);
            }
        }
    }
}
