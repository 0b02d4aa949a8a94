//! Upstreams by name: every address that a name has gets requests, as the name comes to have it.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use testkit::edge::{Edge, Settings};
use testkit::upstream::Upstream;
use testkit::{eventually, peers};

use crate::world::World;

const NAME: &str = "backend.test";
const SOON: Duration = Duration::from_secs(20);

/// Has `NAME` have these addresses from now on.
fn resolves_to(hosts: &Path, addresses: &[&Upstream]) {
    let mut lines = String::new();
    for upstream in addresses {
        writeln!(lines, "{} {NAME}", upstream.address.ip()).unwrap();
    }
    // Never half written.
    let new = hosts.with_extension("new");
    fs::write(&new, lines).unwrap();
    fs::rename(new, hosts).unwrap();
}

/// Waits until what is sent comes to `upstreams`, all of them, and to `others` no more. Nothing is refused meanwhile.
#[track_caller]
fn comes_to(edge: &Edge, key: &str, upstreams: &[&Upstream], others: &[&Upstream]) {
    eventually(SOON, "requests at every address and no other", || {
        let before: Vec<_> = others.iter().map(|it| it.seen("acme")).collect();
        let all: Vec<_> = upstreams.iter().map(|it| it.seen("acme")).collect();
        for _ in 0..30 {
            assert_eq!(edge.post(key), Ok(200));
        }
        let after: Vec<_> = others.iter().map(|it| it.seen("acme")).collect();
        let some = upstreams
            .iter()
            .zip(&all)
            .all(|(it, n)| it.seen("acme") > *n);
        if some && before == after {
            Ok(())
        } else {
            Err(format!("{all:?}, others {before:?} {after:?}"))
        }
    });
}

#[test]
fn every_address_of_a_name_gets_requests_as_they_come_and_go() {
    let world = World::start();
    let key = world.control.create_tenant("acme");
    let first = Upstream::start_at((Ipv4Addr::new(127, 0, 0, 2), 0).into());
    let port = first.address.port();
    let [second, third] = [3, 4].map(|n| {
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, n), port));
        Upstream::start_at(address)
    });
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    resolves_to(&hosts, &[&first]);
    let mut edge = Edge::new(Settings {
        environment: [
            ("LD_PRELOAD", peers::library("libnss_wrapper.so")),
            ("NSS_WRAPPER_HOSTS", hosts.display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        ..world.settings()
    });
    let by_address = format!("url = \"http://{}\"", world.upstream.address);
    let by_name = format!("url = \"http://{NAME}:{port}\"\nresolve_every = \"50ms\"");
    edge.rewrite(|config| config.replace(&by_address, &by_name));
    edge.start();
    comes_to(&edge, &key, &[&first], &[&second, &third]);
    resolves_to(&hosts, &[&first, &second, &third]);
    comes_to(&edge, &key, &[&first, &second, &third], &[]);
    resolves_to(&hosts, &[&third, &second]);
    comes_to(&edge, &key, &[&second, &third], &[&first]);
    // A name that is gone keeps the addresses it had.
    resolves_to(&hosts, &[]);
    edge.wait_until(SOON, "say so", |edge| {
        let output = edge.output();
        let told = output.contains("a name cannot be resolved");
        told.then_some(()).ok_or(output)
    });
    comes_to(&edge, &key, &[&second, &third], &[&first]);
    edge.stop();
}
