//! The public HTTP/2 conformance suite, strict cases included, finds no deviation in any listener but those that
//! `docs/ARCHITECTURE.md`, "HTTP/2 conformance", explains.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use testkit::certificates::Authority;
use testkit::edge::{Edge, Settings};
use testkit::{Dev, Process, peers};

use crate::world::World;

/// A case may wait two seconds; there are 146.
const SUITE_MAX: Duration = Duration::from_mins(3);
/// How many cases the pinned version has.
const CASES: usize = 146;

/// How often a case is asked that may have come too late.
const ATTEMPTS: usize = 10;

/// Sends a header block in one frame of about 17 KiB, which 64 KiB frames have room for. Asked again with larger headers.
const FRAME_TOO_LARGE: &str = "http2/4.2/3";
/// Sends a line of text in place of the preface, which without TLS is a bad HTTP/1.1 request.
const NO_PREFACE: &str = "http2/3.5/2";

/// What the suite found out about one case.
#[derive(Debug, Deserialize)]
struct Line {
    case: String,
    result: String,
    what: String,
    #[serde(default)]
    detail: String,
}

/// A listener.
#[derive(Clone, Copy)]
struct At {
    port: u16,
    tls: bool,
}

impl At {
    fn suite(self) -> Command {
        let mut suite = peers::h2spec(self.port);
        suite.args(["-path", "/v1/traces"]);
        if self.tls {
            suite.arg("-tls");
        }
        suite
    }
}

fn run(mut suite: Command, arguments: &[&str]) -> BTreeMap<String, Line> {
    suite.args(arguments);
    let finished = Process::spawn("h2spec", suite).wait(SUITE_MAX);
    let lines = finished.succeeded().stdout.lines();
    let lines = lines.map(|line| serde_json::from_str::<Line>(line).unwrap());
    lines.map(|line| (line.case.clone(), line)).collect()
}

/// Runs the suite against a listener, and compares what did not pass with what is explained.
///
/// A case that fails is asked again alone: we answer a request without a key before its body, and an answer that comes before
/// the frame that the case is about ends the stream, after which the frame is rightly ignored (RFC 9113 section 5.1).
fn conforms(at: At, explained: &[&str]) {
    let cases = run(at.suite(), &[]);
    assert_eq!(cases.len(), CASES, "{cases:#?}");
    let not_passed: Vec<_> = cases
        .values()
        .filter(|case| case.result != "passed")
        .filter(|case| explained.contains(&case.case.as_str()) || !passes_alone(at, &case.case))
        .collect();
    let names: Vec<_> = not_passed.iter().map(|case| case.case.as_str()).collect();
    assert_eq!(names, explained, "{not_passed:#?}");

    let large = run(at.suite(), &["-header-bytes", "30000", FRAME_TOO_LARGE]);
    let case = &large[FRAME_TOO_LARGE];
    assert_eq!(case.result, "passed", "{}: {}", case.what, case.detail);
}

fn passes_alone(at: At, case: &str) -> bool {
    (0..ATTEMPTS).any(|_| run(at.suite(), &[case])[case].result == "passed")
}

#[test]
fn every_listener_conforms_to_http2() {
    let dev = Dev::start();
    for listener in [&dev.ready.otlp_grpc, &dev.ready.otlp_http, &dev.ready.api] {
        let port = listener.rsplit(':').next().unwrap().parse().unwrap();
        conforms(At { port, tls: false }, &[NO_PREFACE, FRAME_TOO_LARGE]);
    }
}

#[test]
fn a_listener_with_tls_conforms_to_http2() {
    let world = World::start();
    let folder = tempfile::tempdir().unwrap();
    let issued = Authority::new("h2spec").issue(&["localhost"]);
    let pair = issued.write(folder.path(), "edge");
    let port = peers::free_port();
    let mut edge = Edge::new(Settings {
        sections: format!(
            "[listeners.secure]\naddress = \"127.0.0.1:{port}\"\n[listeners.secure.tls]\n\
             certificates = [{{ cert_file = \"{}\", key_file = \"{}\" }}]\n",
            pair.certificate.display(),
            pair.key.display()
        ),
        ..world.settings()
    });
    edge.start();
    // What is agreed on in the handshake is spoken: no preface is no HTTP/1.1 here.
    conforms(At { port, tls: true }, &[FRAME_TOO_LARGE]);
}
