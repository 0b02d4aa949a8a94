//! The feed of changes: whatever is done to a key or a tenant, by whom ever, is in it.

use std::fmt::Write as _;
use std::time::Duration;

use model::{ApiKey, TenantId};
use sqlx::{Connection as _, PgConnection};
use store::{Changed, FeedPosition, Key};
use testkit::postgres::Postgres;

use crate::world::{NOW, World, actor, tenant_id};

crate::in_both_databases!(
    everything_the_store_does_to_a_key_is_in_the_feed,
    everything_done_by_hand_is_in_the_feed,
    what_no_cache_holds_is_not_in_the_feed,
    a_changed_digest_names_the_old_key_and_the_new_one,
    more_than_was_asked_for_is_said_to_be_cut_off,
    pruning_the_feed_is_not_taken_for_an_earlier_state,
    a_database_put_back_to_an_earlier_state_is_noticed,
);

fn key_changed(key: &Key, secret: &ApiKey) -> Changed {
    Changed::Key {
        tenant: key.tenant.clone(),
        key_id: key.key_id,
        digest: secret.digest(),
    }
}

/// The digest as SQL writes it.
fn hex(secret: &ApiKey) -> String {
    secret
        .digest()
        .as_bytes()
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
}

/// Follows the feed of `world` from where it was when this was made.
struct Reader<'a> {
    world: &'a World,
    position: FeedPosition,
}

impl<'a> Reader<'a> {
    async fn of(world: &'a World) -> Self {
        let position = world.store.feed_position().await.unwrap();
        Self { world, position }
    }

    async fn read(&mut self) -> Vec<Changed> {
        let read = self.world.store.changes_since(&self.position, 100).await;
        let read = read.unwrap();
        assert!(!read.cut_off && !read.went_back);
        assert!(read.changes.is_sorted_by_key(|change| change.seq));
        self.position = read.next;
        read.changes
            .into_iter()
            .map(|change| change.changed)
            .collect()
    }
}

async fn everything_the_store_does_to_a_key_is_in_the_feed(world: World) {
    let mut reader = Reader::of(&world).await;
    let (_, key, secret) = world.tenant("acme").await;
    let made = [
        Changed::Tenant(tenant_id("acme")),
        key_changed(&key, &secret),
    ];
    assert_eq!(reader.read().await, made);
    assert_eq!(reader.read().await, []);
    world
        .store
        .key_revoke(key.key_id, NOW, &actor())
        .await
        .unwrap();
    assert_eq!(reader.read().await, [key_changed(&key, &secret)]);
}

async fn everything_done_by_hand_is_in_the_feed(world: World) {
    let (_, key, secret) = world.tenant("acme").await;
    let mut reader = Reader::of(&world).await;
    let now = world.now();
    let tenant = Changed::Tenant(TenantId::parse("acme").unwrap());
    for (sql, expected) in [
        (
            format!("update api_keys set revoked_at = {now}"),
            key_changed(&key, &secret),
        ),
        (
            "update api_keys set revoked_at = null".to_owned(),
            key_changed(&key, &secret),
        ),
        (
            format!("update api_keys set expires_at = {now}"),
            key_changed(&key, &secret),
        ),
        (
            "update api_keys set scopes = 'logs:write'".to_owned(),
            key_changed(&key, &secret),
        ),
        (
            "update tenants set status = 'suspended'".to_owned(),
            tenant.clone(),
        ),
        (
            "update tenants set body_max_bytes = 10".to_owned(),
            tenant.clone(),
        ),
        (
            "delete from api_keys".to_owned(),
            key_changed(&key, &secret),
        ),
        ("delete from tenants".to_owned(), tenant),
    ] {
        world.sql(&sql).await.unwrap();
        assert_eq!(reader.read().await, [expected], "{sql}");
    }
    if world.is_postgres() {
        world.sql("truncate api_keys").await.unwrap();
        assert_eq!(reader.read().await, [Changed::Everything]);
    }
}

async fn what_no_cache_holds_is_not_in_the_feed(world: World) {
    world.tenant("acme").await;
    let mut reader = Reader::of(&world).await;
    let now = world.now();
    world
        .sql(&format!("update api_keys set last_used_at = {now}, name = 'new'; update tenants set name = 'new'"))
        .await
        .unwrap();
    assert_eq!(reader.read().await, []);
}

async fn a_changed_digest_names_the_old_key_and_the_new_one(world: World) {
    let (_, key, old) = world.tenant("acme").await;
    let mut reader = Reader::of(&world).await;
    let new = ApiKey::generate().unwrap();
    let (hex, hex_of_old) = (hex(&new), hex(&old));
    let id = key.key_id;
    let blob = if world.is_postgres() {
        format!("'\\x{hex}'")
    } else {
        format!("x'{hex}'")
    };
    let mut statements = vec![format!("update api_keys set digest = {blob}")];
    if !world.is_postgres() {
        statements.push(format!(
            "insert or replace into api_keys (key_id, tenant_id, digest) values ('{id}', 'acme', {blob})"
        ));
        statements.insert(1, format!("update api_keys set digest = x'{hex_of_old}'"));
    }
    for sql in statements {
        world.sql(&sql).await.unwrap();
        let changes = reader.read().await;
        assert_eq!(changes.len(), 2, "{sql}: {changes:?}");
        assert!(changes.contains(&key_changed(&key, &old)), "{sql}");
        assert!(changes.contains(&key_changed(&key, &new)), "{sql}");
    }
}

async fn more_than_was_asked_for_is_said_to_be_cut_off(world: World) {
    let start = world.store.feed_position().await.unwrap();
    for id in ["a", "b", "c"] {
        world.tenant(id).await;
    }
    let read = world.store.changes_since(&start, 5).await.unwrap();
    assert!(read.cut_off && read.changes.len() == 5);
    assert_eq!(read.next, start, "nothing is passed over");
    let read = world.store.changes_since(&start, 6).await.unwrap();
    assert!(!read.cut_off && read.changes.len() == 6);
}

async fn pruning_the_feed_is_not_taken_for_an_earlier_state(world: World) {
    world.tenant("acme").await;
    let mut reader = Reader::of(&world).await;
    world.sql("delete from changes").await.unwrap();
    assert_eq!(reader.read().await, []);
}

async fn a_database_put_back_to_an_earlier_state_is_noticed(world: World) {
    world.tenant("acme").await;
    let other = if world.is_postgres() {
        // Transactions that the other server has not had.
        let transactions = "begin; select pg_current_xact_id(); commit;".repeat(500);
        world.sql(&transactions).await.unwrap();
        let server = Box::leak(Box::new(Postgres::start()));
        World::at(server.database()).await
    } else {
        World::sqlite().await
    };
    let ahead = world.store.feed_position().await.unwrap();
    let read = other.store.changes_since(&ahead, 10).await.unwrap();
    assert!(read.went_back);
    let (one, two) = (
        world.store.installation().await,
        other.store.installation().await,
    );
    assert_ne!(one.unwrap(), two.unwrap());
}

/// Places in the feed are given before the commit; SQLite has one writer at a time, so there they agree.
#[tokio::test]
async fn a_change_committed_after_one_with_a_later_place_is_not_missed() {
    let world = World::postgres().await;
    let (_, slow_key, slow_secret) = world.tenant("slow").await;
    let (_, fast_key, fast_secret) = world.tenant("fast").await;
    let mut reader = Reader::of(&world).await;
    let mut slow = PgConnection::connect(&world.url).await.unwrap();
    let mut transaction = slow.begin().await.unwrap();
    sqlx::query("update api_keys set revoked_at = now() where tenant_id = 'slow'")
        .execute(&mut *transaction)
        .await
        .unwrap();
    world
        .sql("update api_keys set revoked_at = now() where tenant_id = 'fast'")
        .await
        .unwrap();
    assert_eq!(reader.read().await, [key_changed(&fast_key, &fast_secret)]);
    for _ in 0..3 {
        world.tenant("later").await;
        reader.read().await;
        world.sql("delete from api_keys where tenant_id = 'later'; delete from tenants where id = 'later'").await.unwrap();
        reader.read().await;
    }
    transaction.commit().await.unwrap();
    assert_eq!(reader.read().await, [key_changed(&slow_key, &slow_secret)]);
    assert_eq!(reader.read().await, []);
}

#[tokio::test]
async fn a_commit_wakes_who_listens() {
    let world = World::postgres().await;
    let mut listener = world.store.feed_listen().await.unwrap();
    let mut reader = Reader::of(&world).await;
    world.tenant("acme").await;
    tokio::time::timeout(Duration::from_secs(30), listener.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reader.read().await.len(), 2);
}
