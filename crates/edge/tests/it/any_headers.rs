//! 100,000 generated header sets over the public socket, and some thousands over gRPC: each is answered as the rules say, and
//! whatever reaches the upstream names one tenant, the key's. Every failure text has the seed.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::HeaderName;
use tokio::io::AsyncWriteExt;

use crate::harness::{OTHER, TENANT, World, collect2, connect, http2, read_pipelined, request2};
use crate::tenant::check;
use crate::upstream::{Reply, Script};

const METHOD: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const PATHS: [&str; 4] = [
    "/v1/metrics",
    "/otlp/v1/logs",
    "/api/v1/push",
    "/loki/api/v1/push",
];
/// Names that may come in any spelling: those that say who asks, and those that could lose or move them.
const NAMES: [&str; 24] = [
    "x-scope-orgid",
    "x-scope-orgid",
    "x-scope-orgid",
    "x-scope-userid",
    "x-scope-org-id",
    "thanos-tenant",
    "accountid",
    "projectid",
    "x-prom-label-policy",
    "x-loki-ingestion-policy",
    "x-grafana-id",
    "x-cluster",
    "x-api-key-2",
    "proxy-authorization",
    "x-forwarded-for",
    "forwarded",
    "cookie",
    "connection",
    "connection",
    "te",
    "trailer",
    "user-agent",
    "traceparent",
    "upgrade",
];
const VALUES: [&str; 12] = [
    TENANT,
    TENANT,
    OTHER,
    "",
    "tenant-a|tenant-b",
    "tenant-a:limit=none",
    "tenant-a, tenant-b",
    "tenant-a,",
    "\"tenant-a\"",
    "X-Scope-OrgID",
    "keep-alive, x-scope-orgid, authorization",
    "ténant-a",
];

/// `SplitMix64`: small, and for one seed the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % n as u64).unwrap()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// A name in either case, letter by letter, its dashes sometimes underscores.
    fn spelling(&mut self, name: &str) -> String {
        let choices = self.roll();
        let underscores = self.below(8) == 0;
        let letters = name.bytes().enumerate().map(|(n, letter)| match letter {
            b'-' if underscores => '_',
            _ if choices >> (n % 64) & 1 == 1 => char::from(letter.to_ascii_uppercase()),
            _ => char::from(letter),
        });
        letters.collect()
    }

    fn value(&mut self) -> String {
        if self.below(4) > 0 {
            return self.pick(&VALUES).to_owned();
        }
        let visible = |letter: u64| char::from(u8::try_from(33 + letter % 94).unwrap());
        let length = self.below(24);
        let value: String = (0..length).map(|_| visible(self.roll())).collect();
        // Not by chance what a key begins with: that may not go upstream.
        value.replace("obs_", "obs-")
    }
}

/// Headers beside those that make a request a good one, and what they come to.
#[derive(Debug)]
struct Set {
    headers: Vec<(String, String)>,
    /// Another key is among them.
    conflicts: bool,
    /// Another tenant is.
    disagrees: bool,
}

impl Set {
    /// The credential in one of its forms and up to six other headers, in any order.
    fn roll(dice: &mut Dice, key: &str, other: &str) -> Self {
        let mut headers = vec![credential(dice, key)];
        for _ in 0..dice.below(7) {
            let name = dice.pick(&NAMES);
            headers.push((dice.spelling(name), dice.value()));
        }
        let conflicts = match dice.below(12) {
            0 => {
                headers.push(credential(dice, other));
                true
            }
            1 => {
                headers.push(credential(dice, key));
                false
            }
            _ => false,
        };
        for n in (1..headers.len()).rev() {
            headers.swap(n, dice.below(n + 1));
        }
        let disagrees = headers
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("x-scope-orgid") && value != TENANT);
        Self {
            headers,
            conflicts,
            disagrees,
        }
    }

    fn status(&self, strict: bool) -> u16 {
        match self {
            Self {
                conflicts: true, ..
            } => 401,
            Self {
                disagrees: true, ..
            } if strict => 403,
            _ => 200,
        }
    }
}

fn credential(dice: &mut Dice, key: &str) -> (String, String) {
    let (name, value) = match dice.below(4) {
        0 => ("x-api-key", key.to_owned()),
        1 => (
            "authorization",
            format!("BASIC {}", STANDARD.encode(format!(":{key}"))),
        ),
        _ => ("authorization", format!("Bearer {key}")),
    };
    let upper = dice.below(2) == 0;
    let name = if upper {
        name.to_uppercase()
    } else {
        name.to_owned()
    };
    (name, value)
}

/// Sends `batches` times `PIPELINED` sets on one connection, and checks the answers; how many were accepted.
async fn send(world: &World, address: SocketAddr, seed: u64, batches: usize) -> usize {
    const PIPELINED: usize = 50;
    let strict = address == world.api;
    let mut dice = Dice(seed);
    let mut stream = connect(address).await;
    let (mut buffer, mut accepted) = (BytesMut::new(), 0);
    for _ in 0..batches {
        let mut batch = String::new();
        let mut sets = Vec::new();
        for _ in 0..PIPELINED {
            let set = Set::roll(
                &mut dice,
                world.keys.valid.reveal(),
                world.keys.other.reveal(),
            );
            let path = dice.pick(&PATHS);
            batch += &format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n");
            batch += "content-type: application/x-protobuf\r\n";
            for (name, value) in &set.headers {
                write!(batch, "{name}: {value}\r\n").unwrap();
            }
            batch += "\r\n";
            sets.push(set);
        }
        stream.write_all(batch.as_bytes()).await.unwrap();
        for set in sets {
            let answer = read_pipelined(&mut stream, &mut buffer).await;
            let status = answer.map(|answer| answer.status);
            let expected = set.status(strict);
            assert_eq!(
                status,
                Some(expected),
                "seed {seed}, strict {strict}: {set:?}"
            );
            accepted += usize::from(expected == 200);
        }
    }
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn no_set_of_headers_changes_who_is_asking() {
    const CONNECTIONS: u64 = 20;
    const BATCHES: usize = 100;
    let world = Arc::new(World::start(Script::Answer(Reply::new(200))).await);
    let start = getrandom::u64().unwrap() >> 8;
    let senders = (0..CONNECTIONS).map(|n| {
        let world = Arc::clone(&world);
        let address = [world.api, world.lenient][usize::from(n % 2 == 0)];
        tokio::spawn(async move { send(&world, address, start + n, BATCHES).await })
    });
    let (mut accepted, mut arrived) = (0, 0);
    for sender in senders.collect::<Vec<_>>() {
        accepted += sender.await.unwrap();
        for request in world.upstream.take_seen() {
            check(&request, &format!("seed {start}: {request:?}"));
            arrived += 1;
        }
    }
    assert!(accepted > 50_000, "seed {start}: {accepted} were accepted");
    assert_eq!(
        arrived, accepted,
        "seed {start}: what was accepted arrived, and nothing else"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_metadata_change_whose_call_it_is() {
    const SETS: usize = 5_000;
    let world = World::start(Script::Answer(Reply::grpc())).await;
    let start = getrandom::u64().unwrap() >> 8;
    let mut dice = Dice(start);
    let mut client = http2(world.api).await;
    let mut accepted = 0;
    for _ in 0..SETS {
        let set = Set::roll(
            &mut dice,
            world.keys.valid.reveal(),
            world.keys.other.reveal(),
        );
        let mut request = request2(METHOD, &[("content-type", "application/grpc")]);
        // Those that concern a connection have no place in HTTP/2; the library below would refuse to send them.
        for (name, value) in &set.headers {
            let name: HeaderName = name.parse().unwrap();
            if !["connection", "upgrade", "te"].contains(&name.as_str()) {
                request.headers_mut().append(name, value.parse().unwrap());
            }
        }
        client = client.ready().await.unwrap();
        let (response, mut stream) = client.send_request(request, false).unwrap();
        // A refused call may be over by now; its answer tells.
        let _ = stream.send_data([0; 5][..].into(), true);
        let answer = collect2(response).await.unwrap();
        let expected = match set.status(true) {
            401 => "16",
            403 => "7",
            _ => "0",
        };
        assert_eq!(
            answer.grpc_status(),
            Some(expected),
            "seed {start}: {set:?}"
        );
        accepted += usize::from(expected == "0");
    }
    let seen = world.upstream.take_seen();
    assert_eq!(seen.len(), accepted, "seed {start}");
    for request in &seen {
        check(request, &format!("seed {start}: {request:?}"));
    }
}
