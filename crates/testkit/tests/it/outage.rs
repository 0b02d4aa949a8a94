//! The database may die, for a minute here and for an hour elsewhere: an edge does not notice, not even across its own restart, and
//! does not fall upon the database when it is back.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use testkit::control::id_of;
use testkit::edge::{Edge, Settings};
use testkit::eventually;
use testkit::key_rows::{fresh_key, insert_key, insert_tenant};
use testkit::postgres::Postgres;
use testkit::sender::Sender;
use tokio::time::Instant;

use crate::world::{World, all_accepted, answers_soon};

const OUTAGE: Duration = Duration::from_mins(1);
/// A restarted edge accepts within two seconds; tests share the machine with others.
const RESTART_MAX: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(4);
/// Until an edge has found the database again and read what it missed.
const CAUGHT_UP_MAX: Duration = Duration::from_secs(30);
const GRPC_UNAVAILABLE: u32 = 14;

/// Waits until the edge has written its snapshot after `since`.
fn snapshot_written(edge: &Edge, since: SystemTime) {
    eventually(SOON, "a new snapshot", || {
        let written = std::fs::metadata(edge.snapshot()).and_then(|it| it.modified());
        match written {
            Ok(written) if written > since => Ok(()),
            other => Err(format!("{other:?}, want later than {since:?}")),
        }
    });
}

/// A key that nobody can know now: temporarily refused, in the sender's own protocol.
fn unknown_keys_wait(edge: &Edge) {
    assert_eq!(edge.post(fresh_key().reveal()), Ok(503));
    assert_eq!(edge.grpc(fresh_key().reveal()), GRPC_UNAVAILABLE);
}

fn queries(postgres: &Postgres, url: &str) -> u64 {
    let commits = postgres.sql(
        url,
        "select xact_commit from pg_stat_database where datname = current_database()",
    );
    commits.parse().unwrap()
}

#[test]
fn a_minute_without_the_database_is_not_noticed_by_those_with_keys() {
    let postgres = Postgres::start();
    let world = World::start_on(&postgres, "info");
    let mut known = vec![world.control.create_tenant("steady")];
    known.extend((0..5).map(|_| world.control.create_key("steady")));
    let [revoked, ends_later] = [0; 2].map(|_| world.control.create_key("steady"));
    let (steady, mut restarted) = (world.edge(""), world.edge(""));

    // What the edges learn after their start is in the snapshot too.
    let since = SystemTime::now();
    world.control.revoke(&revoked);
    answers_soon([&steady, &restarted], &revoked, 401, SOON, "revoked");
    known.push(world.control.create_key("steady"));
    answers_soon([&steady, &restarted], &known[6], 200, SOON, "created");
    snapshot_written(&restarted, since);
    let sender = Sender::start(&steady.url(), &known, Duration::from_millis(20));

    postgres.kill();
    let started = Instant::now();
    while started.elapsed() < OUTAGE {
        unknown_keys_wait(&steady);
        restarted.kill();
        let took = restarted.start_until_accepted(&known[6]);
        assert!(took < RESTART_MAX, "accepted after {took:?}");
        for key in &known {
            assert_eq!(restarted.post(key), Ok(200));
        }
        unknown_keys_wait(&restarted);
        for edge in [&steady, &restarted] {
            let answer = edge.post(&revoked);
            assert!(matches!(answer, Ok(401 | 503)), "{answer:?}");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(steady.metric("okmon_edge_key_database_up").to_string(), "0");
    assert!(steady.metric("okmon_edge_key_data_age_seconds") > OUTAGE.as_secs_f64() / 2.0);

    let asked = steady.metric("okmon_edge_key_fetches_total");
    postgres.start_again();
    let sql = |statement: &str| postgres.sql(&world.url, statement);
    sql(&format!(
        "update api_keys set revoked_at = now() where key_id = '{}'",
        id_of(&ends_later)
    ));
    let new = fresh_key();
    sql(&insert_key("steady", &new));
    for edge in [&steady, &restarted] {
        answers_soon([edge], &ends_later, 401, CAUGHT_UP_MAX, "revoked by hand");
        answers_soon([edge], new.reveal(), 200, CAUGHT_UP_MAX, "inserted by hand");
    }
    eventually(
        CAUGHT_UP_MAX,
        "an edge that sees its database",
        || match steady.metric("okmon_edge_key_database_up") {
            up if up > 0.5 => Ok(()),
            up => Err(up.to_string()),
        },
    );
    // Statistics begin anew after a crash: these are all queries since then, two edges', control's and this test's.
    let queries = queries(&postgres, &world.url);
    assert!(queries < 200, "{queries} queries after the outage");
    let fetched = steady.metric("okmon_edge_key_fetches_total") - asked;
    assert!(fetched <= 5.0, "{fetched} keys fetched one by one");
    all_accepted(&sender.stop());
}

#[test]
fn an_edge_started_before_its_database_waits_for_it() {
    let postgres = Postgres::start();
    let world = World::start_on(&postgres, "info");
    let key = world.control.create_tenant("steady");
    postgres.kill();
    let mut edge = Edge::new(world.settings());
    edge.spawn();
    edge.wait_until(SOON * 2, "answer", |edge| match edge.post(&key) {
        Ok(503) => Ok(()),
        other => Err(format!("{other:?}, want 503")),
    });
    assert_eq!(edge.grpc(&key), GRPC_UNAVAILABLE);
    assert!(
        !matches!(edge.ops("/readyz"), Ok((200, _))),
        "it has no keys"
    );
    postgres.start_again();
    answers_soon([&edge], &key, 200, CAUGHT_UP_MAX, "the database started");
    let unknown = fresh_key();
    answers_soon([&edge], unknown.reveal(), 401, CAUGHT_UP_MAX, "nothing");
}

#[test]
fn a_restart_with_ten_thousand_keys_in_use_does_not_ask_for_each() {
    const KEYS: usize = 10_000;
    const IN_USE: u16 = 1_000;
    let world = World::start();
    let keys: Vec<_> = (0..KEYS).map(|_| fresh_key()).collect();
    let inserts: Vec<_> = keys.iter().map(|key| insert_key("many", key)).collect();
    let statements = [insert_tenant("many")].into_iter().chain(inserts);
    let file = tempfile::NamedTempFile::new().unwrap();
    let script: Vec<_> = statements.collect();
    std::fs::write(&file, format!("begin;\n{};\ncommit;\n", script.join(";\n"))).unwrap();
    let psql = Postgres::shared()
        .psql(&world.url)
        .arg("-f")
        .arg(file.path())
        .output();
    assert!(psql.unwrap().status.success());

    let mut edge = Edge::new(Settings {
        snapshot: "",
        ..world.settings()
    });
    edge.start();
    let in_use: Vec<_> = keys.iter().map(|key| key.reveal().to_owned()).collect();
    let senders: Vec<_> = in_use[..IN_USE.into()]
        .chunks((IN_USE / 4).into())
        .map(|keys| Sender::start(&edge.url(), keys, Duration::ZERO))
        .collect();
    let rounds = |senders: &[Sender], want: u64| {
        eventually(Duration::from_mins(1), "every sender to send", || {
            let counts: Vec<_> = senders.iter().map(Sender::count).collect();
            let least = counts.iter().min().copied().unwrap_or_default();
            if least >= want {
                Ok(least)
            } else {
                Err(format!("{counts:?}"))
            }
        })
    };
    rounds(&senders, 50);
    edge.stop();
    edge.start();
    // While the keys were loaded, requests asked for theirs: a few of them, one by one.
    let while_loading = edge.metric("okmon_edge_key_fetches_total");
    assert!(
        while_loading < f64::from(IN_USE / 5),
        "{while_loading} fetches"
    );
    let before = senders.iter().map(Sender::count).max().unwrap();
    rounds(&senders, before + u64::from(IN_USE / 4));
    let fetched = edge.metric("okmon_edge_key_fetches_total") - while_loading;
    assert!(fetched < 1.0, "{fetched} keys in memory were fetched");
    let statuses: BTreeSet<_> = senders
        .iter()
        .flat_map(|it| it.answers().into_keys())
        .collect();
    assert!(!statuses.contains("401"), "{statuses:?}");
}
