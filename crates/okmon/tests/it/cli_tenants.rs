//! A tenant's whole life, by the commands, and what is said about arguments that make no sense.

use std::process::Command;

use serde_json::{Value, json};

use crate::cli_harness::{World, okmon, refused, texts, with_input};

#[test]
fn a_tenant_is_changed_suspended_resumed_and_deleted() {
    World::everywhere(|world| {
        let made = world.json(&["tenant", "create", "Acme", "ops@acme.example", "acme"]);
        assert_eq!(made["limits"], json!({"body_max_bytes": null}));
        world.json(&["key", "create", "acme", "--name", "second"]);

        let set = [
            "tenant",
            "set",
            "acme",
            "--name",
            "Acme Ltd",
            "--email",
            "billing@acme.example",
            "--limit",
            "body_max_bytes=16MiB",
        ];
        let changed = world.json(&set);
        assert_eq!(
            (&changed["name"], &changed["email"], &changed["limits"]),
            (
                &json!("Acme Ltd"),
                &json!("billing@acme.example"),
                &json!({"body_max_bytes": 16 << 20})
            )
        );
        assert_eq!(world.json(&["tenant", "show", "acme"]), changed);
        let shown = world.text(&["tenant", "show", "acme"]);
        assert!(shown.contains("limits body max bytes  16777216"), "{shown}");
        let reset = world.json(&["tenant", "set", "acme", "--limit", "body_max_bytes=default"]);
        assert_eq!(
            (&reset["name"], &reset["limits"]),
            (&json!("Acme Ltd"), &json!({"body_max_bytes": null}))
        );

        let suspended = world.json(&["tenant", "suspend", "acme"]);
        assert_eq!(suspended["status"], "suspended");
        assert!(suspended["suspended_at"].is_string());
        assert_eq!(
            world.json(&["tenant", "suspend", "acme"])["suspended_at"],
            suspended["suspended_at"]
        );
        let resumed = world.json(&["tenant", "resume", "acme"]);
        assert_eq!(
            (&resumed["status"], &resumed["suspended_at"]),
            (&json!("active"), &Value::Null)
        );

        let deleted = world.json(&["tenant", "delete", "acme", "--yes"]);
        assert_eq!(deleted["status"], "inactive");
        assert_eq!(world.json(&["tenant", "delete", "acme", "--yes"]), deleted);
        let keys = world.json(&["key", "list", "acme"]);
        let keys = keys.as_array().unwrap();
        assert_eq!(keys.len(), 2);
        assert!(
            keys.iter().all(|key| key["status"] == "revoked"),
            "{keys:?}"
        );
        for refused_now in [
            &["tenant", "resume", "acme"][..],
            &["tenant", "set", "acme", "--name", "x"],
            &["key", "create", "acme"],
        ] {
            let error = refused(&mut world.command(refused_now), 1);
            assert!(error.contains("inactive"), "{error}");
        }
    });
}

#[test]
fn who_did_what_is_in_the_audit_log() {
    World::everywhere(|world| {
        let key = world.acme();
        let key_id = key["key_id"].as_str().unwrap();
        world.json(&["tenant", "create", "Other", "ops@other.example", "other"]);
        world.json(&["tenant", "suspend", "acme"]);
        world.json(&["key", "revoke", key_id]);

        let all = world.json(&["audit"]);
        let all = all.as_array().unwrap();
        let seqs: Vec<_> = all
            .iter()
            .map(|entry| entry["seq"].as_i64().unwrap())
            .collect();
        assert!(seqs.is_sorted_by(|a, b| a > b), "newest first: {seqs:?}");
        assert!(all.iter().any(|entry| entry["tenant"] == "other"));
        let newest = &all[0];
        assert_eq!(
            (&newest["action"], &newest["tenant"], &newest["key_id"]),
            (&json!("key.revoke"), &json!("acme"), &json!(key_id))
        );
        assert!(
            newest["actor"].as_str().unwrap().contains("olga"),
            "{newest}"
        );

        let one = world.json(&["audit", "--limit", "1"]);
        assert_eq!(one, json!([newest]));
        let tenant = world.json(&["audit", "--tenant", "acme"]);
        let tenant = tenant.as_array().unwrap();
        assert!(tenant.len() >= 3 && tenant.iter().all(|entry| entry["tenant"] == "acme"));
        let of_key = world.json(&["audit", "--key", key_id]);
        let of_key = of_key.as_array().unwrap();
        assert!(!of_key.is_empty() && of_key.iter().all(|entry| entry["key_id"] == key_id));
        let text = world.text(&["audit", "--tenant", "acme"]);
        assert!(
            text.starts_with("SEQ") && text.contains("key.revoke"),
            "{text}"
        );
        assert!(!text.contains("obs_"), "{text}");
    });
}

#[test]
fn an_audit_log_longer_than_a_page_is_printed_as_far_as_asked() {
    let world = World::new();
    world.acme();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let url = world.database_url.parse().unwrap();
        let store = store::Store::connect(&url, 1).await.unwrap();
        let actor = store::Actor::command("test");
        for _ in 0..1005 {
            control::operator_create(&store, "many", store::OperatorScopes::READ, &actor)
                .await
                .unwrap();
        }
    });
    let count = |arguments: &[&str]| world.json(arguments).as_array().unwrap().len();
    assert_eq!(count(&["audit"]), 100);
    assert_eq!(count(&["audit", "--limit", "1003"]), 1003);
    // The first operator, the tenant and its key come on top.
    assert_eq!(count(&["audit", "--limit", "5000"]), 1008);
    assert_eq!(count(&["audit", "--limit", "5000", "--tenant", "acme"]), 2);
    assert_eq!(count(&["operator", "list"]), 1006);
}

#[test]
fn nothing_is_deleted_unless_somebody_says_so() {
    let world = World::new();
    world.acme();
    let delete = ["tenant", "delete", "acme"];
    let output = with_input(&mut world.command(&delete), b"acme\n");
    let (_, error) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("--yes"), "{error}");

    // At a terminal, which `script` is.
    let at_terminal = |typed: &[u8]| {
        let line = format!("{} tenant delete acme", env!("CARGO_BIN_EXE_okmon"));
        let mut script = Command::new("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .current_dir(world.dir.path())
            .env("OKMON_CONTROL_URL", &world.url)
            .env("OKMON_OPERATOR_TOKEN", &world.token);
        let output = with_input(&mut script, typed);
        (output.status.code(), texts(&output).0)
    };
    let (status, text) = at_terminal(b"no\n");
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains("Type acme to go on") && text.contains("nothing was deleted"),
        "{text}"
    );
    assert_eq!(world.json(&["tenant", "show", "acme"])["status"], "active");
    let (status, text) = at_terminal(b"acme\n");
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(
        world.json(&["tenant", "show", "acme"])["status"],
        "inactive"
    );
}

#[test]
fn a_change_of_nothing_is_a_usage_error_that_names_the_flags() {
    let dir = tempfile::tempdir().unwrap();
    let error = refused(okmon(dir.path()).args(["tenant", "set", "acme"]), 2);
    for flag in ["--name", "--email", "--limit"] {
        assert!(error.contains(flag), "{flag} in {error}");
    }
}

#[test]
fn arguments_that_make_no_sense_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let long = "a".repeat(151);
    for (arguments, part) in [
        (
            &["tenant", "set", "acme", "--limit", "body_max_bytes=1MB"][..],
            "--limit",
        ),
        (
            &["tenant", "set", "acme", "--limit", "body_max_bytes=-1"],
            "--limit",
        ),
        (
            &[
                "tenant",
                "set",
                "acme",
                "--limit",
                "body_max_bytes=99999999999GiB",
            ],
            "--limit",
        ),
        (
            &["tenant", "set", "acme", "--limit", "rate=5"],
            "body_max_bytes",
        ),
        (
            &[
                "tenant",
                "set",
                "acme",
                "--limit",
                "body_max_bytes=1",
                "--limit",
                "body_max_bytes=2",
            ],
            "given twice",
        ),
        (&["tenant", "show", &long], "151"),
        (&["tenant", "suspend", "acm\u{435}"], "may not contain"),
        (&["tenant", "suspend", "acme\u{200b}"], "may not contain"),
        (&["tenant", "resume", "../acme"], "may not contain"),
        (&["tenant", "delete", ".."], "reserved"),
        (&["tenant", "show", ""], "1 to 150"),
        (&["audit", "--limit", "0"], "--limit"),
        (&["audit", "--limit", "all"], "--limit"),
        (&["audit", "--tenant", "a b"], "--tenant"),
        (&["audit", "--key", "short"], "--key"),
    ] {
        let mut command = okmon(dir.path());
        command.args(arguments).env("OKMON_OPERATOR_TOKEN", "x");
        let error = refused(&mut command, 2);
        assert!(error.contains(part), "{part:?} in {error}");
    }
}

#[test]
fn what_the_api_finds_wrong_is_named_and_changes_nothing() {
    let world = World::new();
    world.acme();
    let before = world.json(&["tenant", "show", "acme"]);
    let long = "n".repeat(201);
    for (arguments, part) in [
        (&["tenant", "set", "acme", "--name", ""][..], "name: "),
        (&["tenant", "set", "acme", "--name", &long], "name: "),
        (
            &["tenant", "set", "acme", "--name", "a\u{1b}[31mb"],
            "name: ",
        ),
        (&["tenant", "set", "acme", "--email", "nowhere"], "email: "),
        (
            &[
                "tenant",
                "set",
                "acme",
                "--name",
                "Better",
                "--email",
                "no where@x",
            ],
            "email: ",
        ),
        (
            &[
                "tenant",
                "set",
                "acme",
                "--limit",
                "body_max_bytes=18446744073709551615",
            ],
            "--limit body_max_bytes: ",
        ),
        (&["tenant", "set", "nobody", "--name", "x"], "nobody"),
        (&["tenant", "suspend", "nobody"], "nobody"),
        (&["tenant", "delete", "nobody", "--yes"], "nobody"),
        (&["tenant", "show", "acme'--"], "acme'--"),
    ] {
        let error = refused(&mut world.command(arguments), 1);
        assert!(error.contains(part), "{part:?} in {error}");
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }
    assert_eq!(world.json(&["tenant", "show", "acme"]), before);
}

#[test]
fn a_tenant_that_is_there_is_shown_to_who_makes_it_again() {
    let world = World::new();
    world.acme();
    let again = ["tenant", "create", "Other", "other@acme.example", "acme"];
    let error = refused(&mut world.command(&again), 1);
    for part in ["acme", "Acme", "ops@acme.example", "active"] {
        assert!(error.contains(part), "{part:?} in {error}");
    }
    assert_eq!(error.lines().count(), 1, "{error}");
}
