//! Making and listing tenants.

use serde_json::{Value, json};

use crate::harness::{World, new_tenant};

#[tokio::test]
async fn a_tenant_is_made_with_its_first_key_which_is_shown_once() {
    let world = World::new().await;
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

#[tokio::test]
async fn the_operator_who_made_a_tenant_is_in_the_audit_log() {
    let world = World::new().await;
    world.tenant("acme").await;
    let log = world
        .store
        .audit_list(&store::AuditFilter::default(), None, 2)
        .await
        .unwrap();
    let expected = format!("operator {} (olga)", world.admin.id());
    assert!(log.iter().all(|entry| entry.actor == expected), "{log:?}");
    assert_eq!(
        [&log[0].action, &log[1].action],
        ["key.create", "tenant.create"]
    );
}

#[tokio::test]
async fn an_id_is_given_once() {
    let world = World::new().await;
    world.tenant("acme").await;
    let problem = world
        .post("/api/v1/tenants", new_tenant("acme"))
        .await
        .problem(409);
    assert_eq!(problem["code"], "tenant_exists");
}

#[tokio::test]
async fn an_unusual_id_is_made_on_request_and_reachable() {
    let world = World::new().await;
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

#[tokio::test]
async fn a_list_is_read_page_by_page_through_its_links() {
    let world = World::new().await;
    for id in ["a", "b", "c", "d", "e"] {
        world.tenant(id).await;
    }
    let (mut ids, mut pages) = (Vec::new(), 0);
    let mut path = "/api/v1/tenants?limit=2".to_owned();
    loop {
        let answer = world.get(&path).await;
        pages += 1;
        let page = answer.json();
        ids.extend(
            page.as_array()
                .unwrap()
                .iter()
                .map(|tenant| tenant["id"].clone()),
        );
        let Some(next) = answer.header("link").strip_prefix('<') else {
            break;
        };
        path = next.split_once('>').unwrap().0.to_owned();
    }
    assert_eq!(Value::from(ids), json!(["a", "b", "c", "d", "e"]));
    assert_eq!(pages, 3);
}
