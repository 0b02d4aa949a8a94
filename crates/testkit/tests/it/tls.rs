//! Senders nobody here wrote, over TLS: they verify the edge, and show it who they are where it asks. Certificates come from files or
//! from a Caddy that renews them.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use testkit::certificates::{Authority, Pair};
use testkit::edge::{Edge, Settings};
use testkit::{Dev, Finished, Process, eventually, peers};

use crate::python_sdk::{GRPC, HTTP};
use crate::world::World;

const RUN_MAX: Duration = Duration::from_mins(1);
/// Caddy renews a certificate of 15 s after about 10 s.
const RENEWED_MAX: Duration = Duration::from_mins(1);

/// An edge with a listener over TLS in front of the sink of `okmon dev`.
struct Secure {
    dev: Dev,
    world: World,
    edge: Edge,
    key: String,
    port: u16,
    folder: TempDir,
}

impl Secure {
    /// `tls` gives the lines of the listener's section, from a folder for whatever it needs.
    fn start(tls: impl FnOnce(&Path) -> String) -> Self {
        let dev = Dev::start();
        let world = World::start();
        // What arrives at the sink is looked up by the tenant that it made.
        let key = world.control.create_tenant(&dev.ready.tenant);
        let folder = tempfile::tempdir().unwrap();
        let port = peers::free_port();
        let sink = dev.ready.sink.strip_prefix("http://").unwrap();
        let mut edge = Edge::new(Settings {
            upstream: sink.parse().unwrap(),
            grpc_upstream: true,
            sections: format!(
                "[listeners.secure]\naddress = \"127.0.0.1:{port}\"\n[listeners.secure.tls]\n{}\n",
                tls(folder.path())
            ),
            ..world.settings()
        });
        edge.start();
        Self {
            dev,
            world,
            edge,
            key,
            port,
            folder,
        }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The Python SDK, which trusts `ca_file` and shows `client` if asked.
    fn sdk(&self, protocol: &str, ca_file: &Path, client: Option<&Pair>) -> Finished {
        let mut command = peers::python("otel_send.py");
        command
            .arg(protocol)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", self.url())
            .env("OTEL_EXPORTER_OTLP_CERTIFICATE", ca_file)
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "5")
            // Where a machine has them set, they would go before what the SDK was told.
            .env_remove("REQUESTS_CA_BUNDLE")
            .env_remove("CURL_CA_BUNDLE")
            .env(
                "OTEL_EXPORTER_OTLP_HEADERS",
                format!("Authorization=Bearer%20{}", self.key),
            );
        if let Some(pair) = client {
            command
                .env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &pair.certificate)
                .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", &pair.key);
        }
        Process::spawn("otel_send.py", command).wait(RUN_MAX)
    }

    /// Sends a log record with curl, which trusts `ca_file`; the status.
    fn curl(&self, ca_file: &Path) -> Result<String, String> {
        let mut command = peers::program("curl");
        command
            .args(["--silent", "--show-error", "--output", "/dev/null"])
            .args(["--write-out", "%{http_code}", "--cacert"])
            .arg(ca_file)
            .args(["--header", "content-type: application/json", "--header"])
            .arg(format!("authorization: Bearer {}", self.key))
            .args(["--data", r#"{"resourceLogs":[]}"#])
            .arg(format!("{}/v1/logs", self.url()));
        let finished = Process::spawn("curl", command).wait(RUN_MAX);
        if finished.status.success() {
            Ok(finished.stdout)
        } else {
            Err(finished.stderr)
        }
    }
}

fn files(authority: &Authority, folder: &Path) -> String {
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    let pair = authority.issue(&["localhost"]).write(folder, "edge");
    format!(
        "certificates = [{{ cert_file = \"{}\", key_file = \"{}\" }}]",
        pair.certificate.display(),
        pair.key.display()
    )
}

#[test]
fn what_the_python_sdk_sends_over_tls_arrives() {
    let authority = Authority::new("servers");
    for (protocol, expected) in [("grpc", GRPC), ("http", HTTP)] {
        let secure = Secure::start(|folder| files(&authority, folder));
        let ca_file = secure.folder.path().join("ca.pem");
        secure.sdk(protocol, &ca_file, None).succeeded();
        expected.arrive_at(&secure.dev);
    }
}

#[test]
fn who_has_to_show_a_certificate_comes_in_with_one_only() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    for (protocol, expected) in [("grpc", GRPC), ("http", HTTP)] {
        let secure = Secure::start(|folder| {
            let authorities = folder.join("clients.pem");
            fs::write(&authorities, clients.pem()).unwrap();
            let ask = format!("client_ca_file = \"{}\"", authorities.display());
            format!("{}\n{ask}", files(&servers, folder))
        });
        let folder = secure.folder.path();
        let ca_file = folder.join("ca.pem");
        let stranger = servers.issue(&["stranger"]).write(folder, "stranger");
        for shown in [None, Some(&stranger)] {
            let refused = secure.sdk(protocol, &ca_file, shown);
            assert!(!refused.status.success(), "{protocol}: {refused:?}");
        }
        assert!(secure.edge.metric("okmon_edge_requests_total") < 0.5);
        let customer = clients.issue(&["customer"]).write(folder, "customer");
        secure.sdk(protocol, &ca_file, Some(&customer)).succeeded();
        expected.arrive_at(&secure.dev);
    }
}

/// Caddy with an authority of its own, that has a certificate for `localhost` below `folder` and renews it all the time.
fn caddy(folder: &Path) -> Process {
    let storage = folder.join("caddy");
    let config = folder.join("Caddyfile");
    let (http, https) = (peers::free_port(), peers::free_port());
    let text = format!(
        "{{\n admin off\n storage file_system {}\n skip_install_trust\n auto_https disable_redirects\n\
         http_port {http}\n https_port {https}\n renew_interval 1s\n}}\n\
         localhost {{\n tls {{\n issuer internal {{\n lifetime 15s\n }}\n }}\n}}\n",
        storage.display()
    );
    fs::write(&config, text).unwrap();
    let mut command: Command = peers::program("caddy");
    command.args(["run", "--config"]).arg(config);
    Process::spawn("caddy", command)
}

/// The number of the certificate that the edge shows, as openssl reads it.
fn serial_number(secure: &Secure) -> Result<String, String> {
    let mut command = peers::program("sh");
    command.args([
        "-c",
        "openssl s_client -connect \"localhost:$1\" -servername localhost </dev/null 2>/dev/null | openssl x509 -noout -serial",
        "sh",
        &secure.port.to_string(),
    ]);
    let finished = Process::spawn("openssl", command).wait(RUN_MAX);
    if finished.status.success() {
        Ok(finished.stdout)
    } else {
        Err(finished.stderr)
    }
}

#[test]
fn what_caddy_obtains_and_renews_is_what_the_edge_shows() {
    let mut secure = Secure::start(|folder| {
        let found = folder.join("caddy/certificates");
        format!("certificate_folders = [\"{}\"]", found.display())
    });
    // Nothing has been obtained yet, and the edge is there.
    TcpStream::connect(("127.0.0.1", secure.port)).unwrap();
    assert!(serial_number(&secure).is_err());
    let folder = secure.folder.path().to_owned();
    let _caddy = caddy(&folder);
    let root = folder.join("caddy/pki/authorities/local/root.crt");
    let first = eventually(RENEWED_MAX, "the first certificate", || {
        serial_number(&secure)
    });
    secure.sdk("http", &root, None).succeeded();
    HTTP.arrive_at(&secure.dev);
    let mut seen = vec![first];
    while seen.len() < 3 {
        let next = eventually(RENEWED_MAX, "the next certificate", || {
            // Somebody is let in at any time.
            assert_eq!(secure.curl(&root), Ok("200".to_owned()));
            let shown = serial_number(&secure)?;
            if seen.contains(&shown) {
                Err(shown)
            } else {
                Ok(shown)
            }
        });
        seen.push(next);
    }
    secure.edge.stop();
    drop(secure.world);
}
