//! What an operator does all day, by the commands alone.

use std::os::unix::fs::PermissionsExt as _;

use model::ApiKey;
use serde_json::json;

use crate::cli_harness::World;

#[test]
fn a_tenant_is_made_listed_and_shown() {
    let world = World::new();
    let made = world.json(&["tenant", "create", "Acme Ltd", "ops@acme.example", "acme"]);
    made["key"]["key"]
        .as_str()
        .unwrap()
        .parse::<ApiKey>()
        .unwrap();
    let mut shown = made.clone();
    shown.as_object_mut().unwrap().remove("key");
    assert_eq!(world.json(&["tenant", "show", "acme"]), shown);
    assert_eq!(world.json(&["tenant", "list"]), json!([shown]));
    let list = world.text(&["tenant", "list"]);
    assert!(list.starts_with("ID    NAME"), "{list}");
    assert!(list.contains("acme  Acme Ltd"), "{list}");
}

#[test]
fn a_key_is_made_listed_and_revoked() {
    let world = World::new();
    world.text(&["tenant", "create", "Acme", "ops@acme.example", "acme"]);
    let made = world.json(&[
        "key",
        "create",
        "acme",
        "--name",
        "prod",
        "--scopes",
        "logs:write,metrics:write",
        "--expires-in",
        "90d",
    ]);
    assert_eq!(made["scopes"], json!(["metrics:write", "logs:write"]));
    let secret: ApiKey = made["key"].as_str().unwrap().parse().unwrap();
    let key_id = made["key_id"].as_str().unwrap();
    assert_eq!(secret.id().as_str(), key_id);
    assert!(made["expires_at"].is_string());
    let keys = world.json(&["key", "list", "acme"]);
    assert_eq!(keys.as_array().unwrap().len(), 2);
    assert!(!keys.to_string().contains("obs_"));
    assert_eq!(world.json(&["key", "revoke", key_id])["status"], "revoked");
    // Somebody who finds a key where it should not be has the whole of it.
    assert_eq!(
        world.json(&["key", "revoke", secret.reveal()])["key_id"],
        key_id
    );
    let list = world.text(&["key", "list", "acme"]);
    assert!(
        list.contains("revoked") && list.contains("active"),
        "{list}"
    );
}

#[test]
fn a_list_longer_than_a_page_is_printed_whole() {
    let world = World::new();
    let store = tokio::runtime::Runtime::new().unwrap();
    store.block_on(async {
        let store = store::Store::connect(&world.database_url.parse().unwrap(), 1)
            .await
            .unwrap();
        let actor = store::Actor::command("test");
        let now = time::OffsetDateTime::now_utc();
        let key = || {
            let secret = ApiKey::generate().unwrap();
            store::NewKey {
                key_id: secret.id(),
                digest: secret.digest(),
                name: String::new(),
                scopes: model::ScopeSet::WRITE,
                expires_at: None,
            }
        };
        let tenant = store::NewTenant {
            id: "acme".parse().unwrap(),
            name: "Acme".to_owned(),
            email: "ops@acme.example".to_owned(),
        };
        let (tenant, _) = store
            .tenant_insert(tenant, key(), now, &actor)
            .await
            .unwrap();
        for _ in 0..1000 {
            store
                .key_insert(&tenant.id, key(), now, &actor)
                .await
                .unwrap();
        }
    });
    assert_eq!(
        world
            .json(&["key", "list", "acme"])
            .as_array()
            .unwrap()
            .len(),
        1001
    );
}

#[test]
fn what_a_script_reads_is_not_mixed_with_remarks() {
    let world = World::new();
    let output = world
        .command(&["tenant", "create", "Acme", "ops@acme.example", "acme"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        stderr.contains("shown this once") && !stderr.contains("obs_"),
        "{stderr}"
    );
    assert!(
        stdout.contains("obs_") && !stdout.contains("shown this once"),
        "{stdout}"
    );
    assert!(!stdout.contains('\u{1b}'), "no colour when not a terminal");
}

#[test]
fn the_token_file_of_dev_mode_is_used_where_no_variable_is_set() {
    let world = World::new();
    let data = world.dir.path().join(".okmon");
    std::fs::create_dir(&data).unwrap();
    let file = data.join("operator-token");
    std::fs::write(&file, format!("{}\n", world.token)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = world
        .command(&["tenant", "list", "--json"])
        .env_remove("OKMON_OPERATOR_TOKEN")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "[]\n");
}

#[test]
fn control_ends_well_when_it_is_told_to() {
    assert_eq!(World::new().stop(), Some(0));
}
