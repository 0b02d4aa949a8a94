//! Client certificates: another gate before the key, and none that a ticket leads around.

use std::net::SocketAddr;

use testkit::certificates::Authority;

use crate::harness::{World, eventually, head, read_answer};
use crate::tls_client::{Client, HOST, certificates, count, reload, resumed, start};

/// Lines of a listener that asks for certificates of `clients`.
fn section(world: &World, servers: &Authority, clients: &Authority, auth: &str) -> String {
    let pair = servers.issue(&[HOST]).write(world.folder(), "edge");
    let ca_file = world.folder().join("clients.crt");
    std::fs::write(&ca_file, clients.pem()).unwrap();
    let ca_file = ca_file.display();
    let certificates = certificates(&[&pair]);
    format!("{certificates}client_ca_file = '{ca_file}'\nclient_auth = '{auth}'\n")
}

async fn with_client_auth(
    servers: &Authority,
    clients: &Authority,
    auth: &str,
) -> (World, SocketAddr) {
    start(|world| section(world, servers, clients, auth)).await
}

async fn refused(world: &World) -> i64 {
    let name = "okmon_edge_tls_handshake_failures_total";
    count(world, name, "failure=\"client_certificate\"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_a_certificate_of_the_authority_comes_in() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (world, address) = with_client_auth(&servers, &clients, "required").await;
    let anybody = Client::new(&servers);
    let customer = anybody.clone().showing(clients.issue(&["customer"]));
    let stranger = anybody.clone().showing(servers.issue(&["stranger"]));
    let expired = time::OffsetDateTime::now_utc() - std::time::Duration::from_secs(5);
    let expired = clients.issue_until(&["customer"], expired);
    let expired = anybody.clone().showing(expired);
    for (n, client) in [&anybody, &stranger, &expired].into_iter().enumerate() {
        for client in [client.clone(), client.clone().only_tls12()] {
            client.ask(&world, address, HOST).await.unwrap_err();
        }
        let expected = 2 * (i64::try_from(n).unwrap() + 1);
        eventually("counted", async || match refused(&world).await {
            n if n >= expected => Ok(()),
            n => Err(n.to_string()),
        })
        .await;
    }
    assert!(world.upstream.take_seen().is_empty());
    for client in [customer.clone(), customer.only_tls12()] {
        let (answer, _) = client.ask(&world, address, HOST).await.unwrap();
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_no_key() {
    use tokio::io::AsyncWriteExt as _;
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (_world, address) = with_client_auth(&servers, &clients, "required").await;
    let tenant = clients.issue(&[crate::harness::TENANT]);
    let client = Client::new(&servers).showing(tenant);
    let client = client.offering(&["http/1.1"]);
    let mut stream = client.connect(address, HOST).await.unwrap();
    let head = head("/v1/traces", &[("content-type", "application/json")], 0);
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_certificate_may_be_missing_and_not_bad() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (world, address) = with_client_auth(&servers, &clients, "optional").await;
    let anybody = Client::new(&servers);
    let customer = anybody.clone().showing(clients.issue(&["customer"]));
    let stranger = anybody.clone().showing(servers.issue(&["stranger"]));
    assert!(anybody.ask(&world, address, HOST).await.is_ok());
    assert!(customer.ask(&world, address, HOST).await.is_ok());
    assert!(stranger.ask(&world, address, HOST).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_another_listener_or_authority_opens_no_door() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (mut world, address) = with_client_auth(&servers, &clients, "required").await;
    let gated = section(&world, &servers, &clients, "required");
    let listener = "[listeners.open]\naddress = '127.0.0.1:0'\n[listeners.open.tls]\n";
    let pair = servers.issue(&[HOST]).write(world.folder(), "edge");
    let both = format!("{gated}{listener}{}", certificates(&[&pair]));
    reload(&mut world, &both).await.unwrap();
    let open = world.listener("open").unwrap();
    for tls12 in [false, true] {
        let mut anybody = Client::new(&servers);
        if tls12 {
            anybody = anybody.only_tls12();
        }
        let anybody = anybody.resuming();
        anybody.ask(&world, open, HOST).await.unwrap();
        let (_, again) = anybody.ask(&world, open, HOST).await.unwrap();
        assert!(resumed(&again), "there is a ticket");
        anybody.ask(&world, address, HOST).await.unwrap_err();
    }

    let customer = Client::new(&servers)
        .showing(clients.issue(&["customer"]))
        .resuming();
    customer.ask(&world, address, HOST).await.unwrap();
    let (_, again) = customer.ask(&world, address, HOST).await.unwrap();
    assert!(resumed(&again), "there is a ticket");
    // The authority is exchanged, in its file alone.
    let others = Authority::new("others");
    std::fs::write(world.folder().join("clients.crt"), others.pem()).unwrap();
    reload(&mut world, &both).await.unwrap();
    customer.ask(&world, address, HOST).await.unwrap_err();
    let other = Client::new(&servers).showing(others.issue(&["other"]));
    assert!(other.ask(&world, address, HOST).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_are_read_again_when_their_file_changes_and_kept_when_it_breaks() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (world, address) = with_client_auth(&servers, &clients, "required").await;
    let file = world.folder().join("clients.crt");
    let others = Authority::new("others");
    let customer = Client::new(&servers).showing(clients.issue(&["customer"]));
    let other = Client::new(&servers).showing(others.issue(&["other"]));
    assert!(other.ask(&world, address, HOST).await.is_err());
    std::fs::write(&file, clients.pem() + &others.pem()).unwrap();
    eventually("the other authority", async || {
        other.ask(&world, address, HOST).await.map(|_| ())
    })
    .await;
    assert!(customer.ask(&world, address, HOST).await.is_ok());
    let errors = "okmon_edge_tls_certificate_errors_total";
    assert_eq!(count(&world, errors, "").await, 0);
    std::fs::write(&file, "nothing").unwrap();
    eventually("an error", async || match count(&world, errors, "").await {
        1 => Ok(()),
        n => Err(n.to_string()),
    })
    .await;
    assert!(customer.ask(&world, address, HOST).await.is_ok());
    assert!(other.ask(&world, address, HOST).await.is_ok());
}
