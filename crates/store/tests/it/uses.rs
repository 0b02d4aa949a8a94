//! Who uses a key: written in batches, added up, and bounded.

use std::time::Duration;

use model::ApiKey;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqliteConnection};
use store::{KeyUse, Seen, USES_PER_KEY_MAX};
use time::OffsetDateTime;

use crate::world::{NOW, World};

const SECOND: Duration = Duration::from_secs(1);

fn seen(value: &str, requests: u64, from: u32, to: u32) -> Seen {
    Seen {
        value: value.to_owned(),
        requests,
        first_at: NOW + SECOND * from,
        last_at: NOW + SECOND * to,
    }
}

fn used(key: &ApiKey, last: u32, user_agents: Vec<Seen>, addresses: Vec<Seen>) -> KeyUse {
    KeyUse {
        key_id: key.id(),
        last_used_at: NOW + SECOND * last,
        user_agents,
        addresses,
    }
}

/// The rows of `key_uses` as `kind value requests`, in order.
async fn rows(world: &World) -> Vec<String> {
    let query = "select kind, value, requests from key_uses order by kind, value";
    let row = |kind: String, value: String, requests: i64| format!("{kind} {value} {requests}");
    if world.is_postgres() {
        let mut shell = PgConnection::connect(&world.url).await.unwrap();
        let rows = sqlx::query(query).fetch_all(&mut shell).await.unwrap();
        rows.iter()
            .map(|r| row(r.get(0), r.get(1), r.get(2)))
            .collect()
    } else {
        let mut shell = SqliteConnection::connect(&world.url).await.unwrap();
        let rows = sqlx::query(query).fetch_all(&mut shell).await.unwrap();
        rows.iter()
            .map(|r| row(r.get(0), r.get(1), r.get(2)))
            .collect()
    }
}

/// Whether a statement that counts gives `expected`.
async fn counts(world: &World, query: &str) -> i64 {
    let query = AssertSqlSafe(query);
    if world.is_postgres() {
        let mut shell = PgConnection::connect(&world.url).await.unwrap();
        sqlx::query_scalar(query)
            .fetch_one(&mut shell)
            .await
            .unwrap()
    } else {
        let mut shell = SqliteConnection::connect(&world.url).await.unwrap();
        sqlx::query_scalar(query)
            .fetch_one(&mut shell)
            .await
            .unwrap()
    }
}

async fn last_used(world: &World, key: &ApiKey) -> Option<OffsetDateTime> {
    let key = world.store.key_fetch(key.id()).await.unwrap();
    key.unwrap().last_used_at
}

async fn what_is_written_adds_up_and_goes_forward_only(world: World) {
    let (_, _, key) = world.tenant("a").await;
    let (_, _, unused) = world.tenant("b").await;
    let first = used(
        &key,
        10,
        vec![seen("agent/1", 5, 1, 10)],
        vec![seen("192.0.2.1", 5, 1, 10)],
    );
    world.store.key_uses_write(&[first]).await.unwrap();
    assert_eq!(last_used(&world, &key).await, Some(NOW + SECOND * 10));
    // Of another edge, and late.
    let second = used(
        &key,
        4,
        vec![seen("agent/1", 2, 0, 4), seen("b", 1, 4, 4)],
        Vec::new(),
    );
    world.store.key_uses_write(&[second]).await.unwrap();
    assert_eq!(last_used(&world, &key).await, Some(NOW + SECOND * 10));
    assert_eq!(last_used(&world, &unused).await, None);
    let expected = [
        "address 192.0.2.1 5",
        "user_agent agent/1 7",
        "user_agent b 1",
    ];
    assert_eq!(rows(&world).await, expected);
    let ordered = "select count(*) from key_uses a join key_uses b on a.value = 'agent/1' and b.value = '192.0.2.1' \
                   and a.first_at < b.first_at and a.last_at = b.last_at";
    assert_eq!(counts(&world, ordered).await, 1, "first and last are kept");
}

async fn of_each_key_few_are_kept_and_the_oldest_give_way(world: World) {
    let (_, _, key) = world.tenant("a").await;
    let (_, _, other) = world.tenant("b").await;
    let one = used(&other, 1, vec![seen("other", 1, 1, 1)], Vec::new());
    world.store.key_uses_write(&[one]).await.unwrap();
    for round in 0..30_u32 {
        let at = round * 10;
        let mut agents = vec![seen("steady", 100, at, at + 1)];
        agents.extend((0..3).map(|n| seen(&format!("agent {round}.{n}"), 1, at, at + 2)));
        let addresses = (0..20).map(|n| seen(&format!("192.0.2.{n}"), 1, at, at));
        let used = used(&key, at, agents, addresses.collect());
        world.store.key_uses_write(&[used]).await.unwrap();
    }
    let rows = rows(&world).await;
    let of = |kind| {
        rows.iter()
            .filter(|row| row.starts_with(kind))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("address").len(), USES_PER_KEY_MAX);
    let agents = of("user_agent");
    assert_eq!(
        agents.len(),
        USES_PER_KEY_MAX + 1,
        "one of the other key: {agents:?}"
    );
    assert!(
        agents.contains(&&"user_agent steady 3000".to_owned()),
        "{agents:?}"
    );
    for recent in ["29.0", "29.1", "29.2", "28.0", "28.1", "28.2"] {
        assert!(
            agents.iter().any(|row| row.contains(recent)),
            "{recent}: {agents:?}"
        );
    }
    // What comes late drives out nothing newer.
    let late = used(&key, 0, vec![seen("late", 1000, 0, 0)], Vec::new());
    world.store.key_uses_write(&[late]).await.unwrap();
    assert!(
        !self::rows(&world)
            .await
            .iter()
            .any(|row| row.contains("late"))
    );
}

async fn writing_it_down_changes_nothing_for_those_who_follow_the_feed(world: World) {
    let (_, _, key) = world.tenant("a").await;
    let before = counts(&world, "select count(*) from changes").await;
    let used = used(
        &key,
        1,
        vec![seen("agent", 1, 1, 1)],
        vec![seen("::1", 1, 1, 1)],
    );
    world.store.key_uses_write(&[used]).await.unwrap();
    assert!(last_used(&world, &key).await.is_some());
    assert_eq!(counts(&world, "select count(*) from changes").await, before);
}

async fn keys_that_are_gone_do_not_stop_the_others(world: World) {
    let (_, _, key) = world.tenant("a").await;
    let gone = ApiKey::generate().unwrap();
    let uses = [
        used(&gone, 1, vec![seen("agent", 1, 1, 1)], Vec::new()),
        used(&key, 2, Vec::new(), Vec::new()),
    ];
    world.store.key_uses_write(&uses).await.unwrap();
    assert_eq!(last_used(&world, &key).await, Some(NOW + SECOND * 2));
}

async fn many_keys_are_written_together_by_several_edges(world: World) {
    let keys: Vec<_> = (0..1200).map(|_| ApiKey::generate().unwrap()).collect();
    let batch = |edge: u32| -> Vec<KeyUse> {
        let of = |key| {
            let agents = (0..6).map(|n| seen(&format!("{edge}.{n}"), 1, edge, edge));
            used(
                key,
                edge,
                agents.collect(),
                vec![seen("::1", 1, edge, edge)],
            )
        };
        keys.iter().map(of).collect()
    };
    let (one, two) = (batch(1), batch(2));
    let (one, two) = tokio::join!(
        world.store.key_uses_write(&one),
        world.store.key_uses_write(&two),
    );
    one.unwrap();
    two.unwrap();
    let addresses = "select count(*) from key_uses where kind = 'address' and requests = 2";
    assert_eq!(counts(&world, addresses).await, 1200);
    let most = "select max(n) from (select count(*) as n from key_uses where kind = 'user_agent' group by key_id) as c";
    assert_eq!(counts(&world, most).await, 10);
}

crate::in_both_databases!(
    what_is_written_adds_up_and_goes_forward_only,
    of_each_key_few_are_kept_and_the_oldest_give_way,
    writing_it_down_changes_nothing_for_those_who_follow_the_feed,
    keys_that_are_gone_do_not_stop_the_others,
    many_keys_are_written_together_by_several_edges,
);

/// A store that has the rights of an edge and no others.
async fn edge_of(world: &World) -> String {
    // Roles belong to the whole server, which other tests share.
    let name = format!("edge_{}", ApiKey::generate().unwrap().id()).to_lowercase();
    world
        .sql(&format!("create role {name} login in role okmon_edge"))
        .await
        .unwrap();
    assert!(world.url.contains("user=okmon"), "{}", world.url);
    world.url.replace("user=okmon", &format!("user={name}"))
}

#[tokio::test]
async fn an_edge_may_read_keys_and_write_down_their_use() {
    let world = World::postgres().await;
    let (tenant, _, key) = world.tenant("a").await;
    let edge = crate::world::connect(&edge_of(&world).await).await;
    edge.schema_check().await.unwrap();
    edge.installation().await.unwrap();
    assert!(edge.grant_fetch(&key.digest()).await.unwrap().is_some());
    assert_eq!(
        edge.grants_fetch(&[key.digest()]).await.unwrap().good.len(),
        1
    );
    assert_eq!(
        edge.grants_of_tenant(&tenant.id).await.unwrap().good.len(),
        1
    );
    assert_eq!(
        edge.grants_page(None, 10).await.unwrap().grants.good.len(),
        1
    );
    assert!(edge.tenant_fetch(&tenant.id).await.unwrap().is_some());
    let position = edge.feed_position().await.unwrap();
    edge.changes_since(&position, 10).await.unwrap();
    edge.feed_listen().await.unwrap();
    for at in 1..=12 {
        let used = used(
            &key,
            at,
            vec![seen(&format!("agent {at}"), 1, at, at)],
            Vec::new(),
        );
        edge.key_uses_write(&[used]).await.unwrap();
    }
    assert_eq!(last_used(&world, &key).await, Some(NOW + SECOND * 12));
    assert_eq!(rows(&world).await.len(), 10);
}

#[tokio::test]
async fn an_edge_may_do_nothing_else() {
    let world = World::postgres().await;
    world.tenant("a").await;
    let mut shell = PgConnection::connect(&edge_of(&world).await).await.unwrap();
    for statement in [
        "insert into tenants (id, name, email) values ('x', 'x', 'x')",
        "update tenants set status = 'active'",
        "delete from tenants",
        "truncate tenants cascade",
        "insert into api_keys (key_id, tenant_id, digest) values ('0123456789ab', 'a', decode(repeat('00', 32), 'hex'))",
        "update api_keys set revoked_at = null",
        "update api_keys set expires_at = null",
        "update api_keys set scopes = 'logs:read'",
        "update api_keys set tenant_id = 'a'",
        "update api_keys set digest = decode(repeat('00', 32), 'hex')",
        "delete from api_keys",
        "select * from operators",
        "insert into operators (id, name, digest) values ('x', 'x', decode(repeat('00', 32), 'hex'))",
        "select * from audit",
        "insert into audit (actor, action) values ('x', 'x')",
        "insert into changes (kind) values ('all')",
        "delete from changes",
        "update installation set id = 'x'",
        "delete from key_uses",
        "delete from usage_hourly",
        "update _sqlx_migrations set version = 1",
        "create table mine (id text)",
        "alter table api_keys disable trigger all",
        "set role okmon",
    ] {
        let refused = sqlx::raw_sql(statement).execute(&mut shell).await;
        let error = refused.expect_err(statement);
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
    }
}
