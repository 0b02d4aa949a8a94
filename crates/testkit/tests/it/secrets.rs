//! Nothing that is written down lets anybody in: the dump of the database, the edge's snapshot and all logs, as wordy as they can be,
//! hold no key, no operator token, and no secret part of either.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::control::{Control, id_of};
use testkit::edge::{Edge, Settings};
use testkit::key_rows::fresh_key;
use testkit::postgres::Postgres;
use testkit::{Process, eventually, okmon};

use crate::world::{World, answers_soon};

const SOON: Duration = Duration::from_secs(4);
const CLI_MAX: Duration = Duration::from_mins(1);

/// Every credential of the test, and what the commands that made them wrote beside their answers.
struct Made {
    /// The first key, then one of each way to make one. The third is the rotated second.
    keys: Vec<String>,
    tokens: Vec<String>,
    remarks: String,
}

/// The secret 36 characters of a key or an operator token.
fn secret(credential: &str) -> &str {
    let digits = credential.split_once('_').unwrap().1;
    &digits[12..48]
}

fn make(world: &World) -> Made {
    let control = &world.control;
    let mut made = Made {
        keys: vec![control.create_tenant("acme")],
        tokens: vec![control.token.clone()],
        remarks: String::new(),
    };
    let mut cli = |arguments: &[&str], secret: &str| {
        let finished = control.cli(arguments);
        made.remarks.push_str(&finished.stderr);
        let made: Value = serde_json::from_str(&finished.succeeded().stdout).unwrap();
        made[secret].as_str().unwrap_or_default().to_owned()
    };
    let create = ["key", "create", "acme", "--name", "second", "--json"];
    let created = cli(&create, "key");
    let id = id_of(&created);
    let rotate = ["key", "rotate", "acme", "--key", &id, "--json"];
    let rotated = cli(&rotate, "key");
    let operator = ["operator", "create", "reader", "--scopes", "read"];
    let operator = [&operator[..], &["--json", "--database-url", &world.url]].concat();
    let token = cli(&operator, "token");
    cli(&["key", "list", "acme", "--json"], "");
    made.keys.extend([created, rotated]);
    made.tokens.push(token);
    import(control, &mut made);
    made
}

/// Imports a key that was made elsewhere.
fn import(control: &Control, made: &mut Made) {
    let key = fresh_key().reveal().to_owned();
    let mut import = Command::new("sh");
    import
        .args(["-c", "printf %s \"$key\" | \"$okmon\" key import acme"])
        .env("key", &key)
        .env("okmon", okmon().get_program())
        .env("OKMON_CONTROL_URL", &control.url)
        .env("OKMON_OPERATOR_TOKEN", &control.token)
        .env("OKMON_LOG", "trace");
    let imported = Process::spawn("okmon key import", import).wait(CLI_MAX);
    let imported = imported.succeeded();
    // A key that somebody has already is not shown again.
    made.remarks.push_str(&imported.stdout);
    made.remarks.push_str(&imported.stderr);
    made.keys.push(key);
}

/// Uses everything, rightly and wrongly, so that there is something to be logged.
fn use_all(world: &World, edge: &Edge, made: &Made, unknown: &str) {
    for key in &made.keys {
        answers_soon([edge], key, 200, SOON, "made");
        assert_eq!(edge.grpc(key), 0);
    }
    assert_eq!(edge.post(unknown), Ok(401));
    assert_eq!(edge.grpc(unknown), 16);
    world.control.revoke(&made.keys[2]);
    answers_soon([edge], &made.keys[2], 401, SOON, "revoked");
    // A credential in the wrong place is not written down either.
    let misplaced = json!({"id": made.keys[0]});
    let (status, _) = world.control.ask("POST", "/tenants", Some(&misplaced));
    assert_eq!(status, 422);
    let path = format!("/tenants/{}", made.keys[0]);
    let (status, _) = world.control.ask("GET", &path, None);
    assert!(status >= 400, "{status}");
}

fn dump(url: &str) -> String {
    let mut dump = Postgres::shared().program("pg_dump");
    dump.arg(url);
    let dump = Process::spawn("pg_dump", dump).wait(CLI_MAX);
    dump.succeeded().stdout.clone()
}

#[test]
fn dump_snapshot_and_logs_at_trace_level_hold_no_secret() {
    let world = World::start_on(Postgres::shared(), "trace");
    let folder = tempfile::tempdir().unwrap();
    let header = folder.path().join("header");
    let exporting = world.control.create_tenant("operator");
    std::fs::write(&header, format!("authorization: Bearer {exporting}\n")).unwrap();
    let taker = Edge::new(world.settings());
    let mut edge = Edge::new(Settings {
        log: "trace",
        log_lines: "accepted_one_in = 1",
        sections: format!(
            "[spans]\nendpoint = \"{}\"\none_in = 1\nheaders_file = \"{}\"",
            taker.url(),
            header.display()
        ),
        ..world.settings()
    });
    let mut taker = taker;
    taker.start();
    edge.start();
    let mut made = make(&world);
    made.keys.push(exporting);
    let unknown = fresh_key().reveal().to_owned();
    use_all(&world, &edge, &made, &unknown);
    eventually(SOON, "a snapshot", || {
        edge.snapshot().exists().then_some(()).ok_or("none")
    });
    eventually(SOON, "spans", || {
        let exported = edge.metric("okmon_edge_spans_exported_total");
        (exported > 0.0).then_some(()).ok_or(exported)
    });
    edge.stop();

    let places = [
        ("the dump", dump(&world.url).into_bytes()),
        ("the snapshot", std::fs::read(edge.snapshot()).unwrap()),
        ("the edge's log", edge.output().into_bytes()),
        ("control's log", world.control.output().into_bytes()),
        ("what the CLI remarks", made.remarks.into_bytes()),
    ];
    let holds = |place: usize, text: &str| {
        let bytes: &[u8] = &places[place].1;
        let found = bytes.windows(text.len());
        found.into_iter().position(|part| part == text.as_bytes())
    };
    // They are what they should be, and would hold it.
    assert!(holds(0, &id_of(&made.keys[0])).is_some());
    for log in [2, 3] {
        assert!(holds(log, "TRACE").is_some(), "{}", places[log].0);
    }
    for line in ["request accepted", "request refused"] {
        assert!(holds(2, line).is_some(), "no {line}");
    }
    assert!(
        holds(2, &id_of(&unknown)).is_some(),
        "key ids are no secrets"
    );
    let credentials = made.keys.iter().chain(&made.tokens).chain([&unknown]);
    for credential in credentials {
        for (n, (place, text)) in places.iter().enumerate() {
            if let Some(at) = holds(n, secret(credential)) {
                let before = String::from_utf8_lossy(&text[at.saturating_sub(300)..at]);
                panic!("{place} holds the secret of {credential:.8}…: {before}");
            }
        }
    }
}
