//! Certificates in files: which one is shown, and what becomes of connections when they change.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use testkit::certificates::{Authority, Issued};
use time::OffsetDateTime;

use crate::harness::{World, eventually};
use crate::tls_client::{Client, HOST, ask, certificates, count, reload, shown, start};
use crate::upstream::{Reply, Script};

const ERRORS: &str = "okmon_edge_tls_certificate_errors_total";

/// The certificate that a client of this name is shown.
async fn shown_to(client: &Client, address: SocketAddr, host: &str) -> Result<Vec<u8>, String> {
    let connected = client.connect(address, host).await;
    connected
        .map(|stream| shown(&stream))
        .map_err(|error| error.to_string())
}

/// Waits until new connections are shown this certificate.
async fn soon_shown(client: &Client, address: SocketAddr, issued: &Issued) {
    eventually("the new certificate", async || {
        let found = shown_to(client, address, HOST).await?;
        (found == issued.der)
            .then_some(())
            .ok_or_else(|| "the old one".to_owned())
    })
    .await;
}

async fn errors(world: &World, expected: i64) {
    eventually("errors", async || match count(world, ERRORS, "").await {
        n if n >= expected => Ok(()),
        n => Err(n.to_string()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_chosen_by_the_name_asked_for() {
    let authority = Authority::new("root");
    let first = authority.issue(&["first.example.com", "127.0.0.1"]);
    let exact = authority.issue(&["a.example.com", "b.example.net"]);
    let wildcard = authority.issue(&["*.example.com"]);
    let (_world, address) = start(|world| {
        let write = |issued: &Issued, name| issued.write(world.folder(), name);
        let pairs = [
            write(&first, "first"),
            write(&exact, "exact"),
            write(&wildcard, "wildcard"),
        ];
        certificates(&pairs.each_ref())
    })
    .await;
    let client = Client::new(&authority);
    for (host, expected) in [
        ("a.example.com", &exact),
        ("A.EXAMPLE.com", &exact),
        ("b.example.net", &exact),
        ("first.example.com", &first),
        ("c.example.com", &wildcard),
        // No name is sent with an address.
        ("127.0.0.1", &first),
    ] {
        let found = shown_to(&client, address, host).await.unwrap();
        assert!(found == expected.der, "{host}");
    }
    for host in ["c.a.example.com", "example.com", "b.example.org"] {
        let error = shown_to(&client, address, host).await.unwrap_err();
        assert!(error.contains("first.example.com"), "{host}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_change_are_for_new_connections_and_open_ones_go_on() {
    let authority = Authority::new("root");
    let first = authority.issue(&[HOST]);
    let (world, address) = start(|world| {
        let pair = first.write(world.folder(), "edge");
        certificates(&[&pair])
    })
    .await;
    let client = Client::new(&authority);
    let (_, mut open) = client.ask(&world, address, HOST).await.unwrap();
    assert!(shown(&open) == first.der);
    for _ in 0..2 {
        let next = authority.issue(&[HOST]);
        next.write(world.folder(), "edge");
        soon_shown(&client, address, &next).await;
        assert_eq!(ask(&world, &mut open).await.unwrap().status, 200);
    }
    assert_eq!(count(&world, ERRORS, "").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_changed_files_at_once() {
    let authority = Authority::new("root");
    let first = authority.issue(&[HOST]);
    let (mut world, address) = start(|world| {
        let pair = first.write(world.folder(), "edge");
        certificates(&[&pair])
    })
    .await;
    let client = Client::new(&authority);
    for _ in 0..3 {
        let next = authority.issue(&[HOST]);
        let pair = next.write(world.folder(), "edge");
        reload(&mut world, &certificates(&[&pair])).await.unwrap();
        let found = shown_to(&client, address, HOST).await.unwrap();
        assert!(found == next.der);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_new_pair_leaves_the_old_one_in_use() {
    let authority = Authority::new("root");
    let first = authority.issue(&[HOST]);
    let (mut world, address) = start(|world| {
        let pair = first.write(world.folder(), "edge");
        certificates(&[&pair])
    })
    .await;
    let client = Client::new(&authority);
    let next = authority.issue(&[HOST]);
    let folder = world.folder().to_owned();
    let (certificate, key) = (folder.join("edge.crt"), folder.join("edge.key"));
    fs::write(&certificate, &next.chain).unwrap();
    errors(&world, 1).await;
    for half in [
        &next.chain[..100],
        "",
        &next.chain[..next.chain.len() - 100],
    ] {
        let before = count(&world, ERRORS, "").await;
        fs::write(&certificate, half).unwrap();
        errors(&world, before + 1).await;
        let found = shown_to(&client, address, HOST).await.unwrap();
        assert!(found == first.der);
    }
    fs::remove_file(&certificate).unwrap();
    // A reload while it is so is not refused: the configuration has not become wrong.
    let pair = testkit::certificates::Pair { certificate, key };
    let section = certificates(&[&pair]) + "min_version = '1.3'";
    reload(&mut world, &section).await.unwrap();
    assert!(shown_to(&client, address, HOST).await.unwrap() == first.der);
    fs::write(&pair.key, &next.key).unwrap();
    fs::write(&pair.certificate, &next.chain).unwrap();
    soon_shown(&client, address, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_may_be_empty_until_something_obtains_a_certificate() {
    let authority = Authority::new("root");
    let (world, address) = start(|world| {
        let folder = world.folder().join("caddy/certificates");
        format!("certificate_folders = ['{}']", folder.display())
    })
    .await;
    let client = Client::new(&authority);
    assert!(client.connect(address, HOST).await.is_err());
    let failures = "okmon_edge_tls_handshake_failures_total";
    let labels = "failure=\"no_certificate\"";
    // The client may know of it before it is counted.
    eventually("a failed handshake", async || {
        match count(&world, failures, labels).await {
            1 => Ok(()),
            n => Err(n.to_string()),
        }
    })
    .await;
    // As Caddy lays it out.
    let caddy = world.folder().join("caddy/certificates/acme-v02.api");
    let first = authority.issue(&[HOST]);
    first.write(&caddy.join(HOST), HOST);
    authority
        .issue(&["other.example.com"])
        .write(&caddy.join("other.example.com"), "other.example.com");
    soon_shown(&client, address, &first).await;
    assert!(client.connect(address, "other.example.com").await.is_ok());
    // Renewed in its place, half of it first.
    let second = authority.issue(&[HOST]);
    let at = caddy.join(HOST).join(HOST);
    fs::write(at.with_extension("com.crt"), &second.chain).unwrap();
    errors(&world, 1).await;
    assert!(shown_to(&client, address, HOST).await.unwrap() == first.der);
    fs::write(at.with_extension("com.key"), &second.key).unwrap();
    soon_shown(&client, address, &second).await;
    // From another authority; the old one is left to expire.
    let later = OffsetDateTime::now_utc() + Duration::from_hours(24 * 90);
    let third = authority.issue_until(&[HOST], later);
    let other = world.folder().join("caddy/certificates/zerossl");
    third.write(&other.join(HOST), HOST);
    soon_shown(&client, address, &third).await;
    fs::remove_dir_all(other).unwrap();
    soon_shown(&client, address, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_refuses_a_configuration_with_its_file_and_key() {
    let authority = Authority::new("root");
    let mut world = World::start(Script::Answer(Reply::new(200))).await;
    let folder = world.folder().to_owned();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = authority.issue(&[HOST]).write(&folder, "good");
    let other = authority.issue(&[HOST]).write(&folder, "other");
    let (good_crt, good_key) = (good.certificate.display(), good.key.display());
    let (empty, text) = (file("empty", ""), file("text", "not PEM"));
    let other = other.key.display();
    let pair = |certificate: &str, key: &str| {
        format!("certificates = [{{ cert_file = '{certificate}', key_file = '{key}' }}]")
    };
    let ca = certificates(&[&good]);
    for (section, expected) in [
        (
            pair("/nowhere.crt", "/nowhere.key"),
            "certificates[0]: /nowhere.crt: cannot be read: No such file or directory (os error 2): is the path right?".to_owned(),
        ),
        (
            pair(&good_crt.to_string(), "/nowhere.key"),
            "certificates[0]: /nowhere.key: cannot be read".to_owned(),
        ),
        (
            pair(&text, &good_key.to_string()),
            format!("certificates[0]: {text}: has no certificate in PEM in it"),
        ),
        (
            pair(&good_crt.to_string(), &empty),
            format!("certificates[0]: {empty}: has no private key in it that can be used"),
        ),
        (
            pair(&good_crt.to_string(), &other.to_string()),
            format!("certificates[0]: {other}: is not the key of {good_crt}"),
        ),
        (
            format!("certificate_folders = ['{empty}']"),
            format!("certificate_folders: {empty}: cannot be read: Not a directory"),
        ),
        (
            format!("{ca}client_ca_file = '{text}'"),
            format!("client_ca_file: {text}: has no certificate in PEM in it"),
        ),
        (
            format!("{ca}client_ca_file = '/nowhere'"),
            "client_ca_file: /nowhere: cannot be read".to_owned(),
        ),
    ] {
        let told = reload(&mut world, &section).await.unwrap_err();
        let expected = format!("listeners.secure.tls.{expected}");
        assert!(told.starts_with(&expected), "{told}\n{expected}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    assert_eq!(world.listener("secure"), None);
    reload(&mut world, &ca).await.unwrap();
    assert!(world.listener("secure").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_may_hold_both_certificate_and_key() {
    let authority = Authority::new("root");
    let issued = authority.issue(&[HOST]);
    let (_world, address) = start(|world| {
        let file = world.folder().join("both.pem");
        fs::write(&file, issued.chain.clone() + &issued.key).unwrap();
        format!("certificates = [{{ cert_file = '{}' }}]", file.display())
    })
    .await;
    let client = Client::new(&authority);
    let found = shown_to(&client, address, HOST).await.unwrap();
    assert!(found == issued.der);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_when_certificates_expire() {
    let authority = Authority::new("root");
    let until = OffsetDateTime::now_utc() + Duration::from_hours(24 * 9);
    let (world, _) = start(|world| {
        let folder = world.folder().join("certificates");
        authority.issue_until(&[HOST], until).write(&folder, "a");
        authority.issue(&["b.example.com"]).write(&folder, "b");
        format!("certificate_folders = ['{}']", folder.display())
    })
    .await;
    let expiry = "okmon_edge_tls_certificate_expiry_timestamp_seconds";
    let label = format!("name=\"{HOST}\"");
    let expected = until.unix_timestamp();
    assert_eq!(count(&world, expiry, &label).await, expected);
    let held = "okmon_edge_tls_certificates";
    assert_eq!(count(&world, &format!("{held} "), "").await, 2);
    fs::remove_file(world.folder().join("certificates/a.key")).unwrap();
    eventually("it is gone", async || {
        let left = count(&world, &format!("{held} "), "").await;
        let expiry = world.metric(expiry, &label).await;
        (left == 1 && expiry.is_nan())
            .then_some(())
            .ok_or(format!("{left} left, {expiry}"))
    })
    .await;
}
