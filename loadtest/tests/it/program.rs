//! Starts the program, and small servers that misbehave in one way each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

pub(crate) fn loadtest(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

/// A short run; its report, and whether it ended with success.
pub(crate) fn run(arguments: &[&str]) -> (Value, bool) {
    let output = loadtest(&[&["run", "--json", "--duration", "0.3"], arguments].concat());
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.success())
}

pub(crate) fn run_against(upstream: &Upstream, arguments: &[&str]) -> Value {
    let target = ["--target", &upstream.address, "--connections", "4"];
    let (report, success) = run(&[&target, arguments].concat());
    assert!(success, "{report}");
    report
}

pub(crate) fn keys_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// A running `loadtest upstream`.
pub(crate) struct Upstream {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    pub(crate) address: String,
}

impl Upstream {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["upstream", "--json", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let address = first["listening"].as_str().unwrap().to_owned();
        Self {
            child,
            lines,
            address,
        }
    }

    /// Sends text, says no more, and reads until the upstream closes.
    pub(crate) fn exchange(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Asks it to end; its last line, and whether it ended with success.
    pub(crate) fn stop(mut self) -> (Value, bool) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let last = self.lines.next().unwrap().unwrap();
        let success = self.child.wait().unwrap().success();
        (serde_json::from_str(&last).unwrap(), success)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Only matters when a test fails before `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves connections on a free port, each on a thread of its own, for as long as the test runs.
fn serve(connection: impl Fn(TcpStream) + Send + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = connection.clone();
            std::thread::spawn(move || connection(stream));
        }
    });
    address
}

/// Reads one request; its head.
fn read_request(from: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().unwrap()];
    from.read_exact(&mut body).ok()?;
    Some(head)
}

/// Answers the first request of a connection after `first`, each later one after `later`.
fn answer_each(answer: &'static str, first: Duration, later: Duration) -> String {
    serve(move |stream| {
        let mut to = stream.try_clone().unwrap();
        let mut from = BufReader::new(stream);
        let mut wait = first;
        while read_request(&mut from).is_some() {
            // Being slow is what this server is for.
            std::thread::sleep(wait);
            wait = later;
            if to.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// A server that gives everybody the same answer.
pub(crate) fn answer_all(answer: &'static str) -> String {
    answer_each(answer, Duration::ZERO, Duration::ZERO)
}

/// A server that takes its time.
pub(crate) fn answer_slowly(after: Duration) -> String {
    answer_each(NO_CONTENT, after, after)
}

/// A server that takes its time once, then none.
pub(crate) fn stall_first(after: Duration) -> String {
    answer_each(NO_CONTENT, after, Duration::ZERO)
}

/// A server that answers a head at once, then neither reads nor closes.
pub(crate) fn refuse_unread(answer: &'static str) -> String {
    let held = Arc::new(Mutex::new(Vec::new()));
    serve(move |mut stream| {
        let mut some = [0; 512];
        if stream.read(&mut some).is_ok() && stream.write_all(answer.as_bytes()).is_ok() {
            held.lock().unwrap().push(stream);
        }
    })
}

/// A server for one connection that keeps the first `count` heads.
pub(crate) fn record_heads(count: usize) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut to = stream.try_clone().unwrap();
        let mut from = BufReader::new(stream);
        let mut heads = Vec::new();
        while let Some(head) = read_request(&mut from) {
            if heads.len() < count {
                heads.push(head);
            }
            if to.write_all(NO_CONTENT.as_bytes()).is_err() {
                break;
            }
        }
        heads
    });
    (address, heads)
}
