//! Operators, and the database's schema: what is done on the database itself, and what the API does for them.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli_harness::{World, okmon, refused, succeeded};

fn create(world: &World, arguments: &[&str]) -> Value {
    let mut command = okmon(world.dir.path());
    command
        .args([
            "operator",
            "create",
            "--json",
            "--database-url",
            &world.database_url,
        ])
        .args(arguments);
    serde_json::from_str(&succeeded(&mut command)).unwrap()
}

#[test]
fn an_operator_is_made_listed_and_revoked() {
    World::everywhere(|world| {
        let made = create(world, &["rita", "--scopes", "read", "--expires-in", "90d"]);
        let id = made["id"].as_str().unwrap();
        let token = made["token"].as_str().unwrap();
        assert_eq!(
            (&made["scopes"], &made["status"]),
            (&json!(["read"]), &json!("active"))
        );
        let ends = OffsetDateTime::parse(made["expires_at"].as_str().unwrap(), &Rfc3339).unwrap();
        let made_at =
            OffsetDateTime::parse(made["created_at"].as_str().unwrap(), &Rfc3339).unwrap();
        assert_eq!((ends - made_at).whole_days(), 90);

        let listed = world.json(&["operator", "list"]);
        let mut shown = made.clone();
        shown.as_object_mut().unwrap().remove("token");
        assert!(
            listed.as_array().unwrap().contains(&shown),
            "{shown} in {listed}"
        );
        let text = world.text(&["operator", "list"]);
        assert!(
            text.starts_with("ID") && text.contains("rita") && text.contains("olga"),
            "{text}"
        );

        let as_rita = |arguments: &[&str]| {
            let mut command = world.command(arguments);
            command.env("OKMON_OPERATOR_TOKEN", token);
            command
        };
        succeeded(&mut as_rita(&["tenant", "list"]));
        let create = ["tenant", "create", "Acme", "ops@acme.example", "acme"];
        let error = refused(&mut as_rita(&create), 1);
        assert!(error.contains("rita") && error.contains("admin"), "{error}");

        let revoked = world.json(&["operator", "revoke", id]);
        assert_eq!(
            (&revoked["id"], &revoked["status"]),
            (&json!(id), &json!("revoked"))
        );
        let error = refused(&mut as_rita(&["tenant", "list"]), 1);
        assert!(error.contains("not valid"), "{error}");
        // Somebody who finds a token where it should not be has the whole of it.
        assert_eq!(world.json(&["operator", "revoke", token])["id"], id);
        let error = refused(
            &mut world.command(&["operator", "revoke", "0123456789ab"]),
            1,
        );
        assert!(error.contains("okmon operator list"), "{error}");
    });
}

#[test]
fn an_operator_without_an_end_works_until_revoked() {
    let world = World::new();
    let made = create(&world, &["otto"]);
    assert_eq!(
        (&made["scopes"], &made["expires_at"], &made["revoked_at"]),
        (&json!(["admin"]), &Value::Null, &Value::Null)
    );
}

#[test]
fn what_makes_no_sense_for_an_operator_is_named_and_makes_none() {
    let world = World::new();
    let database = ["--database-url", world.database_url.as_str()];
    let long = "n".repeat(201);
    for (arguments, status, part) in [
        (&["rita", "--scopes", ""][..], 2, "--scopes"),
        (&["rita", "--scopes", ","], 2, "--scopes"),
        (&["rita", "--scopes", "write"], 2, "admin or read"),
        (&["rita", "--expires-in", "0s"], 2, "--expires-in"),
        (&["rita", "--expires-in", "101y"], 2, "--expires-in"),
        (&["rita", "--expires-in", "36501d"], 2, "100 years"),
        (
            &["rita", "--expires-in", "9999999999999999w"],
            2,
            "--expires-in",
        ),
        (&[""], 1, "name: "),
        (&[" "], 1, "name: "),
        (&[&long], 1, "name: "),
        (&["a\nb"], 1, "name: "),
    ] {
        let mut command = okmon(world.dir.path());
        command
            .args(["operator", "create"])
            .args(arguments)
            .args(database);
        let error = refused(&mut command, status);
        assert!(error.contains(part), "{part:?} in {error}");
    }
    assert_eq!(
        world.json(&["operator", "list"]).as_array().unwrap().len(),
        1
    );
    let error = refused(
        okmon(world.dir.path()).args(["operator", "revoke", "a/b"]),
        2,
    );
    assert!(error.contains("okmon operator list"), "{error}");
}

#[test]
fn a_migration_says_which_schema_it_found_and_reached() {
    World::everywhere(|world| {
        let migrate = |flags: &[&str]| {
            let mut command = okmon(world.dir.path());
            command
                .args(["migrate", "--database-url", &world.database_url])
                .args(flags);
            succeeded(&mut command)
        };
        let again: Value = serde_json::from_str(&migrate(&["--json"])).unwrap();
        let version = again["reached"].as_i64().unwrap();
        assert!(version >= 2);
        assert_eq!(again["found"], version);
        assert_eq!(
            migrate(&[]),
            format!("schema version {version}: up to date\n")
        );
    });
    let dir = tempfile::tempdir().unwrap();
    let new = |name: &str| format!("sqlite://{}", dir.path().join(name).display());
    let first =
        succeeded(okmon(dir.path()).args(["migrate", "--json", "--database-url", &new("a.db")]));
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["found"], 0);
    let text = succeeded(okmon(dir.path()).args(["migrate", "--database-url", &new("b.db")]));
    assert_eq!(
        text,
        format!(
            "schema version {}: made in an empty database\n",
            first["reached"]
        )
    );
}
