//! A key from its making to its end, through the shipped binary, on both databases: what the CLI, the API or a hand-written
//! statement changes reaches the edge.

use std::process::Command;
use std::time::Duration;

use testkit::postgres::Postgres;
use testkit::{Dev, Process, eventually, okmon, peers};

const COMMAND_MAX: Duration = Duration::from_mins(1);
/// Changes are followed by polling once a second.
const FOLLOW_MAX: Duration = Duration::from_secs(15);

const LOG: &str =
    r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hello"}}]}]}]}"#;

/// Runs a command of the CLI against `dev`, and returns what it printed.
fn cli(dev: &Dev, arguments: &[&str]) -> String {
    let mut command = okmon();
    command
        .args(arguments)
        .env("OKMON_CONTROL_URL", &dev.ready.control)
        .env("OKMON_OPERATOR_TOKEN", &dev.ready.operator_token);
    let finished = Process::spawn("okmon", command).wait(COMMAND_MAX);
    finished.succeeded().stdout.clone()
}

/// Posts a log record with `key`; the status.
fn post(dev: &Dev, key: &str) -> u16 {
    let answer = ureq::post(format!("{}/v1/logs", dev.ready.otlp_http))
        .config()
        .http_status_as_error(false)
        .build()
        .header("Authorization", format!("Bearer {key}"))
        .content_type("application/json")
        .send(LOG);
    answer.unwrap().status().as_u16()
}

fn refused_soon(dev: &Dev, key: &str) {
    eventually(FOLLOW_MAX, "the edge to refuse the key", || {
        match post(dev, key) {
            401 => Ok(()),
            status => Err(format!("status {status}")),
        }
    });
}

fn a_key_lives_and_ends(dev: &Dev) {
    cli(
        dev,
        &["tenant", "create", "Acme Inc.", "ops@acme.example", "acme"],
    );
    let made = cli(
        dev,
        &["key", "create", "acme", "--name", "second", "--json"],
    );
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let (key, key_id) = (
        made["key"].as_str().unwrap(),
        made["key_id"].as_str().unwrap(),
    );
    assert!(post(dev, key) < 300);
    let received = dev.received_by("acme", model::Signal::Logs);
    assert_eq!(received.len(), 1);
    received[0].belongs_only_to("acme", key);

    let listed = cli(dev, &["key", "list", "acme", "--json"]);
    assert!(listed.contains(key_id) && !listed.contains(key), "{listed}");
    cli(dev, &["key", "revoke", key_id]);
    refused_soon(dev, key);
    let arrived = dev.received_by("acme", model::Signal::Logs).len();
    assert_eq!(post(dev, key), 401);
    assert_eq!(dev.received_by("acme", model::Signal::Logs).len(), arrived);
    assert!(post(dev, &dev.ready.key) < 300, "other keys go on working");
}

#[test]
fn a_key_works_from_its_making_until_it_is_revoked_on_sqlite() {
    a_key_lives_and_ends(&Dev::start());
}

#[test]
fn a_key_works_from_its_making_until_it_is_revoked_on_postgresql() {
    let url = Postgres::shared().database();
    let dev = Dev::start_with(&["--database-url", &url]);
    a_key_lives_and_ends(&dev);
}

#[test]
fn a_row_changed_by_hand_is_followed_too() {
    let url = Postgres::shared().database();
    let dev = Dev::start_with(&["--database-url", &url]);
    let (by_time, by_deletion) = (
        dev.create_tenant("by-time"),
        dev.create_tenant("by-deletion"),
    );
    assert!(post(&dev, &by_time) < 300);
    assert!(post(&dev, &by_deletion) < 300);
    let mut psql = Command::new(peers::program("psql").get_program());
    psql.arg(&url)
        .args([
            "-c",
            "update api_keys set revoked_at = now() where tenant_id = 'by-time'",
        ])
        .args(["-c", "delete from api_keys where tenant_id = 'by-deletion'"]);
    Process::spawn("psql", psql).wait(COMMAND_MAX).succeeded();
    refused_soon(&dev, &by_time);
    refused_soon(&dev, &by_deletion);
    assert!(post(&dev, &dev.ready.key) < 300);
}

#[test]
fn a_second_start_on_the_same_directory_has_the_same_key_and_token() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("data");
    let first = Dev::start_in(&directory);
    let (key, token) = (first.ready.key.clone(), first.ready.operator_token.clone());
    drop(first);
    let second = Dev::start_in(&directory);
    assert_eq!(
        (
            second.ready.key.as_str(),
            second.ready.operator_token.as_str()
        ),
        (&*key, &*token)
    );
    assert!(post(&second, &key) < 300);
    for file in ["operator-token", "demo-key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = directory
            .join(file)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let database = std::fs::read(directory.join("okmon.db")).unwrap();
    let secret = &key.as_bytes()[16..];
    assert!(
        !database.windows(secret.len()).any(|bytes| bytes == secret),
        "the database holds digests only"
    );
}
