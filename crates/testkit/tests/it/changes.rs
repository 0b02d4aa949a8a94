//! A change takes effect on every edge in time, whoever makes it: the admin API, or a statement typed by hand.

use std::time::Duration;

use serde_json::json;
use testkit::control::id_of;
use testkit::edge::Edge;
use testkit::key_rows::{fresh_key, insert_key};
use testkit::postgres::Postgres;
use testkit::sender::Sender;

use crate::world::{World, all_accepted, answers_soon};

/// Twice the two seconds that are promised.
const NOTIFIED_MAX: Duration = Duration::from_secs(4);
/// Twice the fifteen seconds that are promised when notifications are lost.
const POLLED_MAX: Duration = Duration::from_secs(30);

/// Makes the triggers write changes as ever, and tell nobody.
const SILENCE: &str = r"do $$
declare it record;
begin
    for it in select p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = current_schema() and p.prosrc like '%pg_notify%'
    loop
        execute regexp_replace(pg_get_functiondef(it.oid), 'perform pg_notify\([^;]*\);', '', 'g');
    end loop;
end $$";

const NOTIFYING: &str = "select count(*) from pg_proc where prosrc like '%pg_notify%'
    and pronamespace = current_schema()::regnamespace";

fn load(edge: &Edge, key: &str) -> Sender {
    Sender::start(&edge.url(), &[key.to_owned()], Duration::from_millis(20))
}

#[test]
fn a_change_by_the_api_or_by_hand_takes_effect_on_every_edge_in_time() {
    let world = World::start();
    let sql = |statement: &str| Postgres::shared().sql(&world.url, statement);
    let steady = world.control.create_tenant("steady");
    let suspended = world.control.create_tenant("suspended");
    let edges = [world.edge(""), world.edge("")];
    let senders = [load(&edges[0], &steady), load(&edges[1], &steady)];
    let soon = |key: &str, status, change: &str| {
        answers_soon(&edges, key, status, NOTIFIED_MAX, change);
    };

    for _ in 0..3 {
        let key = world.control.create_key("steady");
        soon(&key, 200, "created by the API");
        world.control.revoke(&key);
        soon(&key, 401, "revoked by the API");

        let key = world.control.create_key("steady");
        soon(&key, 200, "created by the API");
        let id = id_of(&key);
        sql(&format!(
            "update api_keys set revoked_at = now() where key_id = '{id}'"
        ));
        soon(&key, 401, "revoked by hand");
        sql(&format!(
            "update api_keys set revoked_at = null where key_id = '{id}'"
        ));
        soon(&key, 200, "revocation taken back by hand");
        sql(&format!("delete from api_keys where key_id = '{id}'"));
        soon(&key, 401, "deleted by hand");

        // The edges have learnt that nobody knows it before somebody does.
        let key = fresh_key();
        soon(key.reveal(), 401, "nothing");
        sql(&insert_key("steady", &key));
        soon(key.reveal(), 200, "inserted by hand");
    }
    sql("update tenants set status = 'suspended', suspended_at = now() where id = 'suspended'");
    soon(&suspended, 503, "tenant suspended by hand");
    let active = json!({"status": "active"});
    world
        .control
        .ask("PATCH", "/tenants/suspended", Some(&active));
    soon(&suspended, 200, "tenant resumed by the API");
    world.control.ask("DELETE", "/tenants/suspended", None);
    soon(&suspended, 401, "tenant deleted by the API");

    for sender in senders {
        all_accepted(&sender.stop());
    }
}

#[test]
fn without_notifications_a_change_takes_effect_all_the_same() {
    let world = World::start();
    let sql = |statement: &str| Postgres::shared().sql(&world.url, statement);
    let first = world.control.create_tenant("steady");
    let [by_api, by_hand, deleted] = [0; 3].map(|_| world.control.create_key("steady"));
    let edges = [world.edge(""), world.edge("")];
    for key in [&first, &by_api, &by_hand, &deleted] {
        answers_soon(&edges, key, 200, NOTIFIED_MAX, "nothing");
    }
    sql(SILENCE);
    assert_eq!(sql(NOTIFYING), "0");

    world.control.revoke(&by_api);
    sql(&format!(
        "update api_keys set revoked_at = now() where key_id = '{}'",
        id_of(&by_hand)
    ));
    sql(&format!(
        "delete from api_keys where key_id = '{}'",
        id_of(&deleted)
    ));
    let created = world.control.create_key("steady");
    answers_soon(&edges, &by_api, 401, POLLED_MAX, "revoked by the API");
    answers_soon(&edges, &by_hand, 401, POLLED_MAX, "revoked by hand");
    answers_soon(&edges, &deleted, 401, POLLED_MAX, "deleted by hand");
    answers_soon(&edges, &created, 200, POLLED_MAX, "created by the API");
    answers_soon(&edges, &first, 200, POLLED_MAX, "nothing");
}
