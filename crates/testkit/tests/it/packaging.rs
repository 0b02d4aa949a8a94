//! What infra/systemd and the Dockerfile repeat of the edge's configuration is what it says.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use testkit::{Process, okmon, peers};

fn read(path: &str) -> String {
    fs::read_to_string(peers::root().join(path)).unwrap()
}

/// The values of every line `key=value` or `key = "value"`.
fn values(text: &str, key: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
        .collect()
}

fn number(text: &str, key: &str) -> u64 {
    let values = values(text, key);
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0].trim_end_matches('s').parse().unwrap()
}

/// Ports of the listeners, in the edge's documented configuration.
fn ports(config: &str) -> BTreeSet<String> {
    let (listeners, _) = config.split_once("[ops]").unwrap();
    let addresses = values(listeners, "address");
    let ports = addresses.iter().map(|it| it.rsplit_once(':').unwrap().1);
    ports.map(str::to_owned).collect()
}

#[test]
fn the_socket_unit_opens_the_ports_of_the_configuration() {
    let wanted = ports(&read("config/edge/edge.toml"));
    let opened = values(&read("infra/systemd/okmon-edge.socket"), "ListenStream");
    assert_eq!(wanted, opened.into_iter().collect());
}

#[test]
fn the_service_unit_leaves_the_edge_what_its_defaults_need() {
    let config = read("config/edge/edge.toml");
    let unit = read("infra/systemd/okmon-edge.service");
    let drain = number(&config, "drain_delay") + number(&config, "drain_max");
    assert!(
        number(&unit, "TimeoutStopSec") > drain,
        "killed while it drains"
    );
    assert!(number(&unit, "LimitNOFILE") >= 2 * number(&config, "open_max"));
    let state = format!("/var/lib/{}/", values(&unit, "StateDirectory")[0]);
    assert!(values(&config, "snapshot_file")[0].starts_with(&state));
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let binary = okmon().get_program().to_str().unwrap().to_owned();
    let mut verify = peers::program("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for unit in [
        "okmon-edge.socket",
        "okmon-edge.service",
        "okmon-control.service",
    ] {
        // The program has to be where the unit says.
        let text = read(&format!("infra/systemd/{unit}"));
        let file = folder.path().join(unit);
        fs::write(&file, text.replace("/usr/local/bin/okmon", &binary)).unwrap();
        verify.arg(file);
    }
    let verified = Process::spawn("systemd-analyze", verify).wait(Duration::from_secs(30));
    assert!(verified.status.success(), "{verified:?}");
    // As docs/DEPLOY.md says of systemd before 253.
    let known = "Failed to parse service type, ignoring: notify-reload";
    let output = format!("{}{}", verified.stdout, verified.stderr);
    let found: Vec<_> = output
        .lines()
        .filter(|line| !line.contains(known))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_image_has_the_ports_and_the_probe_of_the_configuration() {
    let config = read("config/edge/edge.toml");
    let dockerfile = read("Dockerfile");
    let instruction = |name: &str| {
        let mut lines = dockerfile.lines();
        lines.find_map(|line| line.strip_prefix(name)).unwrap()
    };
    let exposed: BTreeSet<_> = instruction("EXPOSE ")
        .split(' ')
        .map(str::to_owned)
        .collect();
    assert_eq!(exposed, ports(&config));
    let (_, ops) = config.split_once("[ops]").unwrap();
    let probed = format!("http://{}/readyz", values(ops, "address")[0]);
    assert!(instruction("HEALTHCHECK ").contains(&probed), "{probed}");
}
