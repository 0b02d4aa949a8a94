//! The shipped binary: a real control on a database of its own, and commands run against it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use testkit::postgres::Postgres;

/// `okmon` with nothing of our environment in its way.
pub(crate) fn okmon(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okmon"));
    command.current_dir(dir).env_clear().stdin(Stdio::null());
    command
}

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) database_url: String,
    pub(crate) token: String,
    pub(crate) url: String,
    control: Child,
}

impl World {
    /// On a SQLite file.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database_url = format!("sqlite://{}", dir.path().join("okmon.db").display());
        Self::on(dir, database_url)
    }

    /// Holds `promise` on SQLite, then on PostgreSQL.
    pub(crate) fn everywhere(promise: impl Fn(&Self)) {
        promise(&Self::new());
        let postgres = Postgres::shared().database();
        promise(&Self::on(tempfile::tempdir().unwrap(), postgres));
    }

    /// Migrates, makes an operator and starts control, all by the commands that the documentation tells.
    fn on(dir: TempDir, database_url: String) -> Self {
        let database = ["--database-url", &database_url];
        succeeded(okmon(dir.path()).arg("migrate").args(database));
        let operator = succeeded(
            okmon(dir.path())
                .args(["operator", "create", "olga", "--json"])
                .args(database),
        );
        let operator: Value = serde_json::from_str(&operator).unwrap();
        let token = operator["token"].as_str().unwrap().to_owned();

        let config = "listen = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n";
        std::fs::write(dir.path().join("control.toml"), config).unwrap();
        let mut control = okmon(dir.path())
            .args(["control", "--config", "control.toml"])
            .env("OKMON_DATABASE_URL", &database_url)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let url = listening(&mut control);
        Self {
            dir,
            database_url,
            token,
            url,
            control,
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = okmon(self.dir.path());
        command
            .args(arguments)
            .env("OKMON_CONTROL_URL", &self.url)
            .env("OKMON_OPERATOR_TOKEN", &self.token);
        command
    }

    /// What a command that must succeed prints.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        succeeded(&mut self.command(arguments))
    }

    /// The object that a command prints with `--json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let text = self.text(&arguments);
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The object that a command prints with `--json` which reads `input`.
    pub(crate) fn json_with(&self, arguments: &[&str], input: &str) -> Value {
        let mut command = self.command(arguments);
        let output = with_input(command.arg("--json"), input.as_bytes());
        let (stdout, stderr) = texts(&output);
        assert!(output.status.success(), "{command:?}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// A tenant named acme; gives its first key's object.
    pub(crate) fn acme(&self) -> Value {
        self.json(&["tenant", "create", "Acme", "ops@acme.example", "acme"])["key"].take()
    }

    /// Runs a statement on the database by hand.
    pub(crate) fn sql(&self, statement: &str) {
        const SQLITE: &str = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit()";
        let mut client;
        if let Some(file) = self.database_url.strip_prefix("sqlite://") {
            client = Command::new("python3");
            client.args(["-c", SQLITE, file, statement]);
        } else {
            client = Command::new("psql");
            client.args([&self.database_url, "-c", statement]);
        }
        succeeded(&mut client);
    }

    /// Sends SIGTERM to control and gives its exit status.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let pid = self.control.id().to_string();
        Command::new("kill").arg(pid).status().unwrap();
        self.control.wait().unwrap().code()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.control.kill();
        let _ = self.control.wait();
    }
}

/// The address in the line that control logs when it listens. The rest of its log is read and dropped.
fn listening(control: &mut Child) -> String {
    let mut log = BufReader::new(control.stderr.take().unwrap());
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "control ended: {seen}"
        );
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(addr) = event["addr"].as_str() {
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return format!("http://{addr}");
        }
        seen.push_str(&line);
    }
}

/// Runs `command` with `input` on its standard input.
pub(crate) fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read it closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[track_caller]
pub(crate) fn succeeded(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{command:?}: {stdout}{stderr}"
    );
    stdout
}

/// What a command that must fail with `status` says on standard error, which is all it says.
#[track_caller]
pub(crate) fn refused(command: &mut Command, status: i32) -> String {
    refused_with(command, b"", status)
}

/// As [`refused`], of a command that reads `input`.
#[track_caller]
pub(crate) fn refused_with(command: &mut Command, input: &[u8], status: i32) -> String {
    let output = with_input(command, input);
    let (stdout, stderr) = texts(&output);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{command:?}: {stdout}{stderr}"
    );
    assert_eq!(stdout, "", "{command:?}");
    stderr
}

pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}
