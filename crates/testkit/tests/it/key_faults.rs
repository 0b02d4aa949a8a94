//! What may go wrong between an edge and its keys, each as it happens: lost connections, the wrong database, a damaged file, a clock
//! that is set back. Never does the edge end, let somebody in who may not, or turn away for good whom it knew.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use testkit::control::{id_of, migrate};
use testkit::edge::{Edge, Settings};
use testkit::key_rows::{fresh_key, insert_key};
use testkit::postgres::Postgres;
use testkit::psql::Psql;
use testkit::sender::Sender;
use testkit::{eventually, okmon, peers};
use tokio::time::Instant;

use crate::world::{World, all_accepted, answers_soon};

const SOON: Duration = Duration::from_secs(4);
const CAUGHT_UP_MAX: Duration = Duration::from_secs(30);
/// All keys are read again several times in the length of a test.
const BUSY: &str = "poll_every = \"500ms\"\nreload_every = \"1s\"";

#[test]
fn connections_cut_in_the_middle_of_changes_lose_none_of_them() {
    const CUT: &str = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()";
    let postgres = Postgres::start();
    let world = World::start_on(&postgres, "info");
    let steady = world.control.create_tenant("steady");
    let keys: Vec<_> = (0..24)
        .map(|_| world.control.create_key("steady"))
        .collect();
    let edge = world.edge("");
    let sender = Sender::start(&edge.url(), &[steady], Duration::from_millis(10));

    let mut by_hand = Psql::open(&postgres, &world.url);
    for (n, key) in keys.iter().enumerate() {
        let id = id_of(key);
        let change = match n % 3 {
            0 => format!("update api_keys set revoked_at = now() where key_id = '{id}'"),
            1 => format!("delete from api_keys where key_id = '{id}'"),
            _ => format!("update api_keys set scopes = 'logs:write' where key_id = '{id}'"),
        };
        // Half of the transactions are cut before their end, the others just after it.
        let mut done = by_hand.try_run(&format!("begin; {change}")).is_some();
        if n % 2 == 0 {
            postgres.sql(&world.url, CUT);
        }
        done = done && by_hand.try_run("commit").is_some();
        postgres.sql(&world.url, CUT);
        assert_eq!(done, n % 2 == 1, "change {n}");
        by_hand = Psql::open(&postgres, &world.url);
    }
    let alive = "select count(*) from api_keys where key_id = '{id}' and revoked_at is null";
    let mut refused = 0;
    for key in &keys {
        let alive = postgres.sql(&world.url, &alive.replace("{id}", &id_of(key)));
        let status = if alive == "1" { 200 } else { 401 };
        refused += u32::from(status == 401);
        answers_soon(
            [&edge],
            key,
            status,
            CAUGHT_UP_MAX,
            "what the database says",
        );
    }
    assert_eq!(refused, 8, "changes that were committed");
    all_accepted(&sender.stop());
}

/// For as long as several reloads take, the edge serves what it knew.
fn serves_what_it_knew(edge: &Edge, known: &str, revoked: &str) {
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        assert_eq!(edge.post(known), Ok(200));
        assert_eq!(edge.post(fresh_key().reveal()), Ok(503), "an unknown key");
        let answer = edge.post(revoked);
        assert!(matches!(answer, Ok(401 | 503)), "a revoked key: {answer:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_empty_database_in_the_place_of_the_right_one_turns_nobody_away() {
    let postgres = Postgres::start();
    let world = World::start_on(&postgres, "info");
    let known = world.control.create_tenant("steady");
    let revoked = world.control.create_key("steady");
    let mut edge = world.edge(BUSY);
    world.control.revoke(&revoked);
    answers_soon([&edge], &revoked, 401, SOON, "revoked");
    eventually(SOON, "a snapshot", || {
        edge.snapshot().exists().then_some(()).ok_or("none")
    });

    postgres.replace_by_empty();
    serves_what_it_knew(&edge, &known, &revoked);
    migrate(okmon().get_program().as_ref(), &world.url);
    serves_what_it_knew(&edge, &known, &revoked);
    // Somebody begins to fill the wrong one.
    postgres.sql(&world.url, &testkit::key_rows::insert_tenant("other"));
    let other = fresh_key();
    postgres.sql(&world.url, &insert_key("other", &other));
    serves_what_it_knew(&edge, &known, &revoked);

    for _ in 0..10 {
        edge.kill();
        edge.start_until_accepted(&known);
    }
    serves_what_it_knew(&edge, &known, &revoked);
    assert!(edge.is_running());
}

/// The edges that look at the damaged files, so many at a time.
const AT_ONCE: usize = 4;

/// Starts an edge on a copy of a snapshot and a database that is away, and asks for a key of the snapshot and for two that nobody may
/// be let in with.
fn with_snapshot(settings: &Settings, content: &[u8], keys: [&str; 3], intact: bool, damage: &str) {
    let [known, revoked, unknown] = keys;
    let mut edge = Edge::new(settings.clone());
    fs::write(edge.snapshot(), content).unwrap();
    edge.spawn();
    let status = edge.wait_until(SOON * 5, "answer", |edge| match edge.post(known) {
        // It listens before it has read its snapshot, if it does.
        Ok(503) if intact => Err("503".to_owned()),
        answer => answer,
    });
    assert_eq!(status, if intact { 200 } else { 503 }, "{damage}");
    assert_eq!(edge.post(revoked), Ok(503), "{damage}");
    assert_eq!(edge.post(unknown), Ok(503), "{damage}");
    assert!(edge.is_running(), "{damage}");
    if !intact {
        let file = edge.snapshot().display().to_string();
        eventually(SOON, &format!("a line about it, {damage}"), || {
            let output = edge.output();
            if output.contains(&file) {
                Ok(())
            } else {
                Err(output)
            }
        });
    }
}

#[test]
fn a_damaged_snapshot_lets_nobody_in_and_stops_nothing() {
    let world = World::start();
    let known = world.control.create_tenant("steady");
    let revoked = world.control.create_key("steady");
    (0..10).for_each(|_| drop(world.control.create_key("steady")));
    world.control.revoke(&revoked);
    let mut edge = world.edge("");
    eventually(SOON, "a snapshot", || {
        edge.snapshot().exists().then_some(()).ok_or("none")
    });
    edge.stop();
    let whole = fs::read(edge.snapshot()).unwrap();

    let mut cases = vec![("whole".to_owned(), whole.clone())];
    for part in 0..50 {
        let length = whole.len() * part / 50;
        cases.push((format!("cut at {length}"), whole[..length].to_vec()));
    }
    for part in 0..25 {
        let at = whole.len() * part / 25;
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (part % 8);
        cases.push((format!("a bit flipped at {at}"), flipped));
    }
    let mut longer = whole.clone();
    longer.extend_from_slice(&whole);
    cases.push(("twice".to_owned(), longer));

    let away = Settings {
        database_url: "postgres:///none?host=/nonexistent&user=none".to_owned(),
        ..world.settings()
    };
    let unknown = fresh_key();
    std::thread::scope(|scope| {
        for share in 0..AT_ONCE {
            let (cases, away) = (&cases, &away);
            let keys = [&*known, &*revoked, unknown.reveal()];
            scope.spawn(move || {
                for (damage, content) in cases.iter().skip(share).step_by(AT_ONCE) {
                    with_snapshot(away, content, keys, damage == "whole", damage);
                }
            });
        }
    });
}

fn set_clock(file: &Path, offset: &str) {
    // Never half written.
    let new = file.with_extension("new");
    fs::write(&new, offset).unwrap();
    fs::rename(new, file).unwrap();
}

#[test]
fn a_clock_set_back_does_not_bring_an_expired_key_back() {
    let world = World::start();
    let steady = world.control.create_tenant("steady");
    let hour = json!({"expires_in_seconds": 3600});
    let expiring = world.control.post("/tenants/steady/keys", &hour);
    let expiring = expiring["key"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    set_clock(&clock, "+0s");
    let mut edge = Edge::new(Settings {
        keys: BUSY.to_owned(),
        environment: [
            ("LD_PRELOAD", peers::library("faketime/libfaketimeMT.so.1")),
            ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        ..world.settings()
    });
    edge.start();
    assert_eq!(edge.post(expiring), Ok(200));

    set_clock(&clock, "+3700s");
    answers_soon([&edge], expiring, 401, SOON, "an hour passed");
    set_clock(&clock, "+100s");
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert_eq!(edge.post(expiring), Ok(401), "once expired, always expired");
        assert_eq!(edge.post(&steady), Ok(200));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(edge.is_running());
}
