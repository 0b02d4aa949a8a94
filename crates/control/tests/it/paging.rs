//! Lists are read page by page, and each page leads to the next.

use serde_json::{Value, json};
use store::OperatorScopes;

use crate::harness::{World, key_id};

crate::in_both_databases!(
    every_list_is_read_page_by_page_through_its_links,
    the_log_of_one_tenant_or_key_stays_that_through_all_pages,
    an_unusual_id_survives_in_a_link,
    a_page_after_what_is_not_there_is_refused,
);

fn values(objects: &[Value], field: &str) -> Vec<Value> {
    objects.iter().map(|object| object[field].clone()).collect()
}

/// Reads the list at `path` in pages of two: all of it, which must be what one page has.
async fn in_pages(world: &World, path: &str) -> Vec<Value> {
    let parted = if path.contains('?') { '&' } else { '?' };
    let pages = world.pages(&format!("{path}{parted}limit=2")).await;
    assert!(pages.iter().all(|page| page.len() <= 2));
    assert!(pages.len() >= 3, "{path} has {} pages", pages.len());
    let whole = world.pages(path).await;
    assert_eq!(whole.len(), 1, "one page without a link has it all");
    assert_eq!(pages.concat(), whole.concat());
    pages.concat()
}

async fn every_list_is_read_page_by_page_through_its_links(world: World) {
    for id in ["c", "a", "e", "b", "d"] {
        world.tenant(id).await;
    }
    let tenants = in_pages(&world, "/api/v1/tenants").await;
    assert_eq!(values(&tenants, "id"), ["a", "b", "c", "d", "e"]);

    for n in 1..5 {
        let wish = json!({"name": format!("key {n}")});
        world.post("/api/v1/tenants/a/keys", wish).await;
    }
    let keys = in_pages(&world, "/api/v1/tenants/a/keys").await;
    let names = values(&keys, "name");
    assert_eq!(names, ["default", "key 1", "key 2", "key 3", "key 4"]);

    for name in ["x", "y", "z"] {
        world.operator(name, OperatorScopes::READ, None).await;
    }
    let operators = in_pages(&world, "/api/v1/operators").await;
    assert_eq!(operators.len(), 5);
    assert!(operators.is_sorted_by_key(|o| o["id"].as_str().unwrap().to_owned()));

    let log = in_pages(&world, "/api/v1/audit").await;
    assert_eq!(log.len(), 5 * 2 + 4 + 5);
    assert!(log.is_sorted_by(|a, b| a["seq"].as_i64() > b["seq"].as_i64()));
}

async fn the_log_of_one_tenant_or_key_stays_that_through_all_pages(world: World) {
    let tenant = world.tenant("acme").await;
    world.tenant("other").await;
    for n in 0..4 {
        for id in ["acme", "other"] {
            let change = json!({"name": format!("name {n}")});
            world.patch(&format!("/api/v1/tenants/{id}"), change).await;
        }
    }
    let acme = in_pages(&world, "/api/v1/audit?tenant=acme").await;
    assert_eq!(acme.len(), 6);
    assert!(acme.iter().all(|entry| entry["tenant"] == "acme"));

    let mut newest = key_id(&tenant["key"]);
    for _ in 0..2 {
        let rotation = json!({"key_id": newest});
        let path = "/api/v1/tenants/acme/keys/rotate";
        newest = key_id(&world.post(path, rotation).await.json());
    }
    let first = key_id(&tenant["key"]);
    let pages = world
        .pages(&format!("/api/v1/audit?limit=1&key_id={first}&tenant=acme"))
        .await;
    let log = pages.concat();
    assert_eq!(values(&log, "action"), ["key.replace", "key.create"]);
    assert!(log.iter().all(|entry| entry["key_id"] == json!(first)));
    let none = format!("/api/v1/audit?key_id={first}&tenant=other");
    assert_eq!(world.get(&none).await.json(), json!([]));
}

async fn an_unusual_id_survives_in_a_link(world: World) {
    for id in ["A!*'()", "B.._-"] {
        let mut tenant = crate::harness::new_tenant(id);
        tenant["allow_any_id"] = true.into();
        assert_eq!(world.post("/api/v1/tenants", tenant).await.status, 201);
    }
    let pages = world.pages("/api/v1/tenants?limit=1").await;
    assert_eq!(values(&pages.concat(), "id"), ["A!*'()", "B.._-"]);
    let pages = world
        .pages("/api/v1/audit?tenant=A%21%2A%27%28%29&limit=1")
        .await;
    assert_eq!(pages.concat().len(), 2);
}

async fn a_page_after_what_is_not_there_is_refused(world: World) {
    world.tenant("acme").await;
    let others = key_id(&world.tenant("other").await["key"]);
    for after in ["0123456789ab", &others] {
        let path = format!("/api/v1/tenants/acme/keys?after={after}");
        let problem = world.get(&path).await.problem(422);
        assert_eq!(problem["errors"][0]["field"], "after");
    }
    // Where the order is that of the ids, any id is a place in it.
    let answer = world.get("/api/v1/tenants?after=b").await;
    assert_eq!(values(answer.json().as_array().unwrap(), "id"), ["other"]);
}
