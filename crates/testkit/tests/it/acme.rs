//! Certificates that the edge obtains by itself, from pebble: Let's Encrypt's own small authority, which verifies names as they do.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use testkit::certificates::{Authority, Pair};
use testkit::edge::{Edge, Settings};
use testkit::{Process, eventually, peers};
use time::OffsetDateTime;

use crate::world::World;

const NAME: &str = "otlp.example.test";
const RUN_MAX: Duration = Duration::from_mins(1);
/// An authority that was away is asked again after ten seconds.
const SOON: Duration = Duration::from_mins(1);
const ORDERS: &str = "okmon_edge_acme_orders_total";

/// An authority, the name server that it asks, and an edge whose port it connects to.
struct Place {
    folder: TempDir,
    directory_port: u16,
    management_port: u16,
    /// Where names are proven.
    port: u16,
    world: World,
    key: String,
}

impl Place {
    fn new() -> Self {
        let world = World::start();
        let folder = tempfile::tempdir().unwrap();
        // What pebble itself shows, not what it issues.
        let itself = Authority::new("pebble itself");
        itself.issue(&["localhost"]).write(folder.path(), "pebble");
        fs::write(folder.path().join("ca.pem"), itself.pem()).unwrap();
        Self {
            key: world.control.create_tenant("acme"),
            world,
            folder,
            directory_port: peers::free_port(),
            management_port: peers::free_port(),
            port: peers::free_port(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where this authority's certificates are kept.
    fn kept(&self) -> PathBuf {
        self.file(&format!("acme/localhost-{}-dir", self.directory_port))
    }

    /// Starts the authority, and a name server for which every name leads here.
    fn authority(&self) -> [Process; 2] {
        self.authority_for(Duration::from_hours(24 * 90))
    }

    /// One that issues for so long.
    fn authority_for(&self, validity: Duration) -> [Process; 2] {
        let names = peers::free_port();
        let mut command = peers::program("pebble-challtestsrv");
        command
            .args(["-defaultIPv6", "", "-http01", "", "-https01", ""])
            .args(["-tlsalpn01", "", "-dns01"])
            .arg(format!("127.0.0.1:{names}"))
            .arg("-management")
            .arg(format!("127.0.0.1:{}", peers::free_port()));
        let name_server = Process::spawn("pebble-challtestsrv", command);
        let config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.directory_port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management_port),
            "certificate": self.file("pebble.crt"),
            "privateKey": self.file("pebble.key"),
            "httpPort": peers::free_port(),
            "tlsPort": self.port,
            "certificateValidityPeriod": validity.as_secs(),
        }});
        fs::write(self.file("pebble.json"), config.to_string()).unwrap();
        let mut command = peers::program("pebble");
        command
            .args(["-strict", "-dnsserver"])
            .arg(format!("127.0.0.1:{names}"))
            .arg("-config")
            .arg(self.file("pebble.json"))
            .env("PEBBLE_VA_NOSLEEP", "1");
        [name_server, Process::spawn("pebble", command)]
    }

    /// An edge with one port more, over TLS with these lines besides.
    fn edge(&self, tls: &str) -> Edge {
        self.edge_on(self.port, tls)
    }

    fn edge_on(&self, port: u16, tls: &str) -> Edge {
        let sections = format!(
            "[listeners.secure]\naddress = \"127.0.0.1:{}\"\n[listeners.secure.tls]\nacme = true\n{tls}\n\
             [acme]\nnames = [\"{NAME}\"]\nterms_agreed = true\nemails = [\"operator@example.test\"]\n\
             directory = \"https://localhost:{}/dir\"\nca_file = \"{}\"\nfolder = \"{}\"\n",
            port,
            self.directory_port,
            self.file("ca.pem").display(),
            self.file("acme").display(),
        );
        let mut edge = Edge::new(Settings {
            sections,
            ..self.world.settings()
        });
        edge.start();
        edge
    }

    /// The certificate to trust for what the authority issues.
    fn root(&self) -> PathBuf {
        let file = self.file("root.pem");
        let mut command = peers::program("curl");
        let url = format!("https://localhost:{}/roots/0", self.management_port);
        command.args(["--silent", "--show-error", "--fail", "--cacert"]);
        command.arg(self.file("ca.pem")).arg("--output").arg(&file);
        command.arg(url);
        Process::spawn("curl", command).wait(RUN_MAX).succeeded();
        file
    }

    /// curl, as it sends a log record to a port here and verifies the name.
    fn sending(&self, port: u16, root: &Path) -> Command {
        let mut command = peers::program("curl");
        command
            .args(["--silent", "--show-error", "--output", "/dev/null"])
            .arg("--resolve")
            .arg(format!("{NAME}:{port}:127.0.0.1"))
            .arg("--cacert")
            .arg(root)
            .args(["--header", "content-type: application/json", "--header"])
            .arg(format!("authorization: Bearer {}", self.key))
            .args(["--data", r#"{"resourceLogs":[]}"#]);
        command
    }

    /// Sends a log record; the status.
    fn send(&self, root: &Path, client: Option<&Pair>) -> Result<String, String> {
        self.send_to(self.port, root, client)
    }

    fn send_to(&self, port: u16, root: &Path, client: Option<&Pair>) -> Result<String, String> {
        let mut command = self.sending(port, root);
        command.args(["--write-out", "%{http_code}"]);
        command.arg(url(port));
        if let Some(pair) = client {
            command.arg("--cert").arg(&pair.certificate);
            command.arg("--key").arg(&pair.key);
        }
        let finished = Process::spawn("curl", command).wait(RUN_MAX);
        if finished.status.success() {
            Ok(finished.stdout)
        } else {
            Err(finished.stderr)
        }
    }

    #[track_caller]
    fn is_shown_soon(&self, client: Option<&Pair>) {
        eventually(SOON, "a certificate of the authority", || {
            // The authority may not be there yet.
            let answered = TcpStream::connect(("127.0.0.1", self.management_port));
            answered.map_err(|error| error.to_string())?;
            match self.send(&self.root(), client)?.as_str() {
                "200" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
    }
}

fn url(port: u16) -> String {
    format!("https://{NAME}:{port}/v1/logs")
}

fn orders(edge: &Edge, result: &str) -> f64 {
    edge.metric(&format!("{ORDERS}{{result=\"{result}\"}}"))
}

#[test]
fn a_name_is_proven_and_its_certificate_kept_and_shown() {
    let place = Place::new();
    let _authority = place.authority();
    let mut edge = place.edge("");
    place.is_shown_soon(None);
    assert!((orders(&edge, "obtained") - 1.0).abs() < 0.1);
    for file in [&format!("{NAME}.key"), "account.json"] {
        let mode = fs::metadata(place.kept().join(file)).unwrap();
        let mode = mode.permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}: {mode:o}");
    }
    edge.stop();
    edge.start();
    place.is_shown_soon(None);
    for result in ["obtained", "failed"] {
        assert!(orders(&edge, result) < 0.5, "nothing is asked for");
    }
    // Nobody but an authority that looks is spoken to like one.
    let port = place.port.to_string();
    let mut command = peers::program("openssl");
    command.args(["s_client", "-alpn", "acme-tls/1", "-servername", NAME]);
    command.args(["-connect", &format!("127.0.0.1:{port}")]);
    let finished = Process::spawn("openssl", command).wait(RUN_MAX);
    assert!(!finished.status.success(), "{finished:?}");
    edge.stop();
}

#[test]
fn a_certificate_with_little_time_left_is_renewed_and_clients_show_theirs_to_nobody_but_us() {
    let place = Place::new();
    let _authority = place.authority();
    let before = Authority::new("before");
    // It is for two days, and a day is over.
    let ends = OffsetDateTime::now_utc() + Duration::from_hours(12);
    let ending = before.issue_until(&[NAME], ends);
    ending.write(&place.kept(), NAME);
    let clients = Authority::new("clients");
    let authorities = place.file("clients.pem");
    fs::write(&authorities, clients.pem()).unwrap();
    let client = clients
        .issue(&["customer"])
        .write(place.folder.path(), "customer");
    let ask = format!("client_ca_file = \"{}\"", authorities.display());
    let mut edge = place.edge(&ask);
    place.is_shown_soon(Some(&client));
    assert!((orders(&edge, "obtained") - 1.0).abs() < 0.1);
    assert!(place.send(&place.root(), None).is_err(), "we ask for one");
    edge.stop();
}

#[test]
fn an_authority_that_is_away_or_refuses_keeps_nothing_else_from_being_served() {
    let place = Place::new();
    let mut edge = place.edge("");
    let failed = |place: &Place, edge: &mut Edge, reason: &str| {
        edge.wait_until(SOON, "tell why there is no certificate", |edge| {
            let output = edge.output();
            let told = output.contains("a certificate was not obtained") && output.contains(reason);
            told.then_some(()).ok_or(output)
        });
        assert_eq!(edge.post(&place.key), Ok(200));
    };
    failed(&place, &mut edge, "refused");
    let authority = place.authority();
    place.is_shown_soon(None);
    edge.stop();
    drop(authority);

    // Another place, to whose port the name does not lead.
    let mut place = Place::new();
    let here = std::mem::replace(&mut place.port, peers::free_port());
    let _authority = place.authority();
    place.port = here;
    let mut edge = place.edge("");
    failed(&place, &mut edge, "Failed to connect to 127.0.0.1");
    assert!(orders(&edge, "failed") > 0.5);
    assert!(!place.kept().join(format!("{NAME}.crt")).exists());
    edge.stop();
}

#[test]
fn two_edges_with_one_folder_obtain_once_and_the_second_takes_over() {
    let place = Place::new();
    let _authority = place.authority();
    let mut first = place.edge("");
    place.is_shown_soon(None);
    let port = peers::free_port();
    let mut second = place.edge_on(port, "");
    second.wait_until(SOON, "leave it to the first", |edge| {
        let output = edge.output();
        let told = output.contains("another process obtains certificates there");
        told.then_some(()).ok_or(output)
    });
    let shown = |port| place.send_to(port, &place.root(), None);
    assert_eq!(shown(port).as_deref(), Ok("200"), "it reads what is there");
    assert!(orders(&second, "obtained") + orders(&second, "failed") < 0.5);

    first.stop();
    fs::remove_file(place.kept().join(format!("{NAME}.crt"))).unwrap();
    // Its port is not the one that the authority connects to, but that may remember what it has seen.
    second.wait_until(SOON, "try to obtain what is missing", |edge| {
        let tried = orders(edge, "obtained") + orders(edge, "failed");
        (tried > 0.5).then_some(()).ok_or(tried.to_string())
    });
    second.stop();
}

#[test]
fn an_authority_that_forgot_the_account_is_given_another_while_connections_stay_open() {
    let place = Place::new();
    let authority = place.authority();
    let mut edge = place.edge("");
    place.is_shown_soon(None);
    edge.stop();
    drop(authority);
    let account = fs::read(place.kept().join("account.json")).unwrap();
    let before = Authority::new("before");
    let ends = OffsetDateTime::now_utc() + Duration::from_hours(12);
    before.issue_until(&[NAME], ends).write(&place.kept(), NAME);
    fs::write(place.file("before.pem"), before.pem()).unwrap();

    edge.start();
    // It trusts the certificate before only: with another connection it would fail.
    let mut command = place.sending(place.port, &place.file("before.pem"));
    command.args(["--fail-early", "--rate", "5/s"]);
    command.args(["--write-out", "%{stderr}%{num_connects} %{http_code}\\n"]);
    command.arg(format!("{}#[1-1000]", url(place.port)));
    let mut open = Process::spawn("curl", command);
    let is_answered = |open: &mut Process, more_than: usize| {
        open.wait_until(SOON, "be answered", |open| {
            let answers = open.stderr().lines().count();
            (answers > more_than).then_some(answers)
        })
    };
    is_answered(&mut open, 0);
    // Nothing is left of what it issued and knew.
    let _authority = place.authority();
    place.is_shown_soon(None);
    let answers = is_answered(&mut open, 0);
    is_answered(&mut open, answers + 1);
    let told = open.stderr();
    let good = |(n, line): (usize, &str)| line == if n == 0 { "1 200" } else { "0 200" };
    assert!(told.lines().enumerate().all(good), "{told}");
    let after = fs::read(place.kept().join("account.json")).unwrap();
    assert_ne!(account, after);
    edge.stop();
}

#[test]
fn what_is_due_as_soon_as_it_is_issued_is_not_asked_for_over_and_over() {
    let place = Place::new();
    // From one second to the same, which is what a clock that is wrong makes of others.
    let _authority = place.authority_for(Duration::from_secs(1));
    let mut edge = place.edge("");
    edge.wait_until(SOON, "tell that it is of no use", |edge| {
        let output = edge.output();
        let told = output.contains("is this machine's clock right");
        told.then_some(()).ok_or(output)
    });
    assert!(orders(&edge, "obtained") < 0.5);
    // A reload that changes nothing here: what failed is tried once more.
    edge.signal("HUP");
    edge.wait_until(SOON, "try again", |edge| {
        let failed = orders(edge, "failed");
        (failed > 1.5).then_some(()).ok_or(failed.to_string())
    });
    assert!(
        orders(&edge, "failed") < 2.5,
        "once for each time it was told"
    );
    edge.stop();
}
