//! `okmon control` as a process of its own, with an operator to ask it things.
#![expect(
    clippy::expect_used,
    reason = "a control plane that tests cannot have fails them"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::edge::agent;
use crate::{Finished, Process, peers};

const START_MAX: Duration = Duration::from_secs(30);
const COMMAND_MAX: Duration = Duration::from_mins(1);

/// Makes the tables in the database at `url`.
///
/// # Panics
/// When `okmon migrate` fails.
pub fn migrate(okmon: &Path, url: &str) {
    let mut command = Command::new(okmon);
    command.args(["migrate", "--database-url", url]);
    Process::spawn("okmon migrate", command)
        .wait(COMMAND_MAX)
        .succeeded();
}

/// A running control plane.
#[derive(Debug)]
pub struct Control {
    /// Where its API is, without a path.
    pub url: String,
    /// The token of an operator who may do everything.
    pub token: String,
    okmon: PathBuf,
    log: &'static str,
    process: Process,
    _folder: TempDir,
}

impl Control {
    /// Makes the tables and an operator in the database, starts control, and waits until it answers. `log` is as `RUST_LOG`
    /// would say it.
    ///
    /// # Panics
    /// When any of these fails.
    pub fn start(okmon: &Path, database_url: &str, log: &'static str) -> Self {
        migrate(okmon, database_url);
        let mut command = Command::new(okmon);
        command
            .args(["operator", "create", "test", "--json", "--database-url"])
            .arg(database_url);
        let made = Process::spawn("okmon operator create", command).wait(COMMAND_MAX);
        let made: Value = serde_json::from_str(&made.succeeded().stdout).expect("JSON");
        let token = made.get("token").and_then(Value::as_str);
        let token = token.expect("a token").to_owned();

        let folder = tempfile::tempdir().expect("a temporary directory");
        let address = format!("127.0.0.1:{}", peers::free_port());
        let config = format!(
            "listen = \"{address}\"\n[database]\nurl = \"{database_url}\"\n[log]\nlevel = \"{log}\"\n"
        );
        let file = folder.path().join("control.toml");
        std::fs::write(&file, config).expect("a place to write to");
        let mut command = Command::new(okmon);
        command
            .args(["control", "--config"])
            .arg(&file)
            .env_remove("OKMON_DATABASE_URL")
            .env_remove("OKMON_LOG");
        let mut process = Process::spawn("okmon control", command);
        let url = format!("http://{address}");
        process.wait_until(START_MAX, "be ready", |_| {
            let answer = agent().get(format!("{url}/readyz")).call().ok()?;
            (answer.status() == 200).then_some(())
        });
        Self {
            url,
            token,
            okmon: okmon.to_owned(),
            log,
            process,
            _folder: folder,
        }
    }

    /// Asks the API: status and JSON.
    ///
    /// # Panics
    /// When it gives no answer.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let url = format!("{}/api/v1{path}", self.url);
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(&url)
            .header("Authorization", format!("Bearer {}", self.token))
            .header("Content-Type", "application/json");
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(body).expect("a request");
        let mut answer = match agent().run(request) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {url}: {error}; {}", self.output()),
        };
        let json = answer.body_mut().read_json().unwrap_or(Value::Null);
        (answer.status().as_u16(), json)
    }

    /// Posts to the API what it cannot refuse.
    ///
    /// # Panics
    /// When it refuses all the same.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask("POST", path, Some(body));
        assert!(status < 300, "POST {path}: {status} {answer}");
        answer
    }

    /// Creates a tenant: its first key.
    #[track_caller]
    pub fn create_tenant(&self, id: &str) -> String {
        let tenant = json!({"id": id, "name": id, "email": "operator@example.com"});
        let made = self.post("/tenants", &tenant);
        text(&made, "/key/key")
    }

    /// Creates a key: its text.
    #[track_caller]
    pub fn create_key(&self, tenant: &str) -> String {
        text(
            &self.post(&format!("/tenants/{tenant}/keys"), &json!({})),
            "/key",
        )
    }

    /// Revokes a key.
    #[track_caller]
    pub fn revoke(&self, key: &str) {
        self.post(&format!("/keys/{}/revoke", id_of(key)), &json!({}));
    }

    /// Runs a command of the CLI as the operator, and waits for its end.
    pub fn cli(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(&self.okmon);
        command
            .args(arguments)
            .env("OKMON_CONTROL_URL", &self.url)
            .env("OKMON_OPERATOR_TOKEN", &self.token)
            .env("OKMON_LOG", self.log)
            .env("RUST_LOG", self.log);
        Process::spawn("okmon", command).wait(COMMAND_MAX)
    }

    /// Everything it has printed.
    pub fn output(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }
}

/// The public id of a key.
///
/// # Panics
/// When it is not a key.
pub fn id_of(key: &str) -> String {
    key.get(4..16).expect("a key").to_owned()
}

#[track_caller]
fn text(json: &Value, pointer: &str) -> String {
    match json.pointer(pointer).and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => panic!("no {pointer} in {json}"),
    }
}
