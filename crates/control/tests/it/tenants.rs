//! The life of a tenant: made, changed, suspended, resumed, deleted.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::harness::{World, new_tenant};

crate::in_both_databases!(
    a_tenant_is_made_with_its_first_key_which_is_shown_once,
    an_id_is_given_once_and_the_tenant_that_has_it_is_shown,
    an_unusual_id_is_made_on_request_and_reachable,
    what_is_asked_for_is_changed_and_nothing_else,
    a_tenant_is_suspended_and_resumed,
    a_deleted_tenant_keeps_its_id_and_has_no_key_that_works,
    names_are_text_whatever_they_look_like,
);

async fn a_tenant_is_made_with_its_first_key_which_is_shown_once(world: World) {
    let made = world.tenant("acme").await;
    assert_eq!(made["id"], "acme");
    assert_eq!(made["status"], "active");
    let key = &made["key"];
    let secret: model::ApiKey = key["key"].as_str().unwrap().parse().unwrap();
    assert_eq!(key["key_id"], secret.id().as_str());
    assert_eq!(key["tenant"], "acme");
    assert_eq!(
        key["scopes"],
        json!([
            "metrics:write",
            "logs:write",
            "traces:write",
            "profiles:write"
        ])
    );
    let grant = world
        .store
        .grant_fetch(&secret.digest())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(grant.tenant.as_str(), "acme");

    let shown = world.get("/api/v1/tenants/acme").await.json();
    let mut expected = made.clone();
    expected.as_object_mut().unwrap().remove("key");
    assert_eq!(shown, expected);
    let keys = world.get("/api/v1/tenants/acme/keys").await;
    assert_eq!(keys.json().as_array().unwrap().len(), 1);
    assert!(!keys.text.contains("obs_"), "{}", keys.text);
}

async fn an_id_is_given_once_and_the_tenant_that_has_it_is_shown(world: World) {
    let mut made = world.tenant("acme").await;
    made.as_object_mut().unwrap().remove("key");
    let before = world.state().await;
    let again = world.post("/api/v1/tenants", new_tenant("acme")).await;
    let problem = again.problem(409);
    assert_eq!(problem["code"], "tenant_exists");
    assert_eq!(problem["existing"], made);
    assert!(!again.text.contains("obs_"), "{}", again.text);
    assert_eq!(world.state().await, before);
}

async fn an_unusual_id_is_made_on_request_and_reachable(world: World) {
    let id = "Team_(1)!*'";
    let problem = world
        .post("/api/v1/tenants", new_tenant(id))
        .await
        .problem(422);
    assert_eq!(problem["errors"][0]["field"], "id");
    let mut tenant = new_tenant(id);
    tenant["allow_any_id"] = true.into();
    assert_eq!(world.post("/api/v1/tenants", tenant).await.status, 201);
    assert_eq!(
        world.get("/api/v1/tenants/Team_(1)!*'").await.json()["id"],
        id
    );
    assert_eq!(
        world
            .get("/api/v1/tenants/Team_%281%29%21%2A%27")
            .await
            .json()["id"],
        id
    );
}

async fn what_is_asked_for_is_changed_and_nothing_else(world: World) {
    let mut tenant = world.tenant("acme").await;
    tenant.as_object_mut().unwrap().remove("key");
    assert_eq!(tenant["limits"], json!({"body_max_bytes": null}));
    let path = "/api/v1/tenants/acme";
    for (change, limits) in [
        (json!({"name": "Acme & Söhne"}), json!(null)),
        (json!({"email": "neu@acme.example"}), json!(null)),
        (json!({"limits": {"body_max_bytes": 0}}), json!(0)),
        (
            json!({"limits": {"body_max_bytes": 1_u64 << 40}, "name": null}),
            json!(1_u64 << 40),
        ),
        (json!({"limits": {"body_max_bytes": null}}), json!(null)),
    ] {
        let answer = world.patch(path, change.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let changed = answer.json();
        for field in ["name", "email"] {
            if change[field].is_string() {
                tenant[field] = change[field].clone();
            }
        }
        tenant["limits"]["body_max_bytes"] = limits;
        tenant["updated_at"] = changed["updated_at"].clone();
        assert_eq!(changed, tenant);
        assert_eq!(world.get(path).await.json(), tenant);
    }
    let before = world.state().await;
    let same =
        json!({"name": "Acme & Söhne", "status": "active", "limits": {"body_max_bytes": null}});
    let unchanged = world.patch(path, same).await;
    assert_eq!(
        (unchanged.status, unchanged.json()),
        (StatusCode::OK, tenant)
    );
    for nothing in [
        json!({}),
        json!({"name": null}),
        json!({"limits": {}}),
        json!({"limits": null}),
    ] {
        let problem = world.patch(path, nothing).await.problem(422);
        assert_eq!(problem["code"], "nothing_to_change");
    }
    assert_eq!(
        world.state().await,
        before,
        "what changes nothing leaves no trace"
    );
}

async fn a_tenant_is_suspended_and_resumed(world: World) {
    world.tenant("acme").await;
    let path = "/api/v1/tenants/acme";
    let suspend = json!({"status": "suspended"});
    let first = world.patch(path, suspend.clone()).await.json();
    assert_eq!(first["status"], "suspended");
    assert!(first["suspended_at"].is_string());
    assert_eq!(world.patch(path, suspend).await.json(), first);
    let resumed = world.patch(path, json!({"status": "active"})).await.json();
    assert_eq!(
        (&resumed["status"], &resumed["suspended_at"]),
        (&json!("active"), &Value::Null)
    );
}

async fn a_deleted_tenant_keeps_its_id_and_has_no_key_that_works(world: World) {
    let made = world.tenant("acme").await;
    world.post("/api/v1/tenants/acme/keys", json!({})).await;
    let path = "/api/v1/tenants/acme";
    let deleted = world.delete(path).await;
    assert_eq!(deleted.status, StatusCode::OK, "{}", deleted.text);
    assert_eq!(deleted.json()["status"], "inactive");
    let keys = world.get("/api/v1/tenants/acme/keys").await.json();
    let keys = keys.as_array().unwrap();
    assert_eq!(keys.len(), 2);
    assert!(
        keys.iter().all(|key| key["status"] == "revoked"),
        "{keys:?}"
    );
    let secret: model::ApiKey = made["key"]["key"].as_str().unwrap().parse().unwrap();
    let grant = world.store.grant_fetch(&secret.digest()).await.unwrap();
    assert!(grant.unwrap().revoked_at.is_some());

    let state = world.state().await;
    let again = world.delete(path).await;
    assert_eq!(
        (again.status, again.json()),
        (StatusCode::OK, deleted.json())
    );
    let problem = world
        .patch(path, json!({"status": "active"}))
        .await
        .problem(409);
    assert_eq!(problem["code"], "tenant_inactive");
    let problem = world
        .post("/api/v1/tenants", new_tenant("acme"))
        .await
        .problem(409);
    assert_eq!(problem["existing"]["status"], "inactive");
    assert_eq!(world.state().await, state);
    world.delete("/api/v1/tenants/nobody").await.problem(404);
    world
        .patch("/api/v1/tenants/nobody", json!({"name": "x"}))
        .await
        .problem(404);
}

async fn names_are_text_whatever_they_look_like(world: World) {
    world.tenant("acme").await;
    for name in [
        "Robert'); drop table tenants; --",
        "%s {} ${jndi:x} <script>alert(1)</script>",
        "\\ \" ' ` \\x00 \\u0000",
        "日本語 🚀 مرحبا Ωmega",
        "null",
        &"ä".repeat(200),
    ] {
        let changed = world
            .patch("/api/v1/tenants/acme", json!({"name": name}))
            .await;
        assert_eq!(changed.json()["name"], name, "{}", changed.text);
        let key = world
            .post("/api/v1/tenants/acme/keys", json!({"name": name}))
            .await;
        assert_eq!(key.json()["name"], name, "{}", key.text);
    }
    let keys = world.get("/api/v1/tenants/acme/keys").await.json();
    assert_eq!(keys.as_array().unwrap().len(), 7);
    assert_eq!(
        world.get("/api/v1/tenants").await.json()[0]["name"],
        "ä".repeat(200)
    );
}
