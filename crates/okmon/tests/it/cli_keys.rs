//! A key's whole life, by the commands. No secret is in any output but the one that made it.

use std::process::Command;

use model::ApiKey;
use serde_json::{Value, json};

use crate::cli_harness::{World, okmon, refused, refused_with, texts, with_input};

fn generated() -> ApiKey {
    ApiKey::generate().unwrap()
}

#[test]
fn a_rotated_key_lives_on_for_the_grace_and_the_new_one_is_like_it() {
    World::everywhere(|world| {
        world.acme();
        let first = world.json(&["key", "list", "acme"])[0].take();
        let first_id = first["key_id"].as_str().unwrap();
        let new = world.json(&["key", "rotate", "acme"]);
        new["key"].as_str().unwrap().parse::<ApiKey>().unwrap();
        assert_eq!(
            (&new["name"], &new["scopes"]),
            (&first["name"], &first["scopes"])
        );
        let old = &new["replaces"];
        assert_eq!(
            (&old["key_id"], &old["replaced_by"], &old["status"]),
            (&first["key_id"], &new["key_id"], &json!("active"))
        );
        assert!(
            old["expires_at"].is_string() && old.get("key").is_none(),
            "{old}"
        );

        // The old one is no candidate any more, so there is one again.
        let output = world
            .command(&["key", "rotate", "acme", "--grace", "0"])
            .output()
            .unwrap();
        let (stdout, stderr) = texts(&output);
        assert!(output.status.success(), "{stderr}");
        assert!(
            stdout.contains("obs_") && !stderr.contains("obs_"),
            "{stderr}"
        );
        let new_id = new["key_id"].as_str().unwrap();
        assert!(stderr.contains(&format!("{new_id} is revoked")), "{stderr}");

        let listed = world.json(&["key", "list", "acme"]);
        let status = |id: &str| {
            let mut keys = listed.as_array().unwrap().iter();
            keys.find(|key| key["key_id"] == id).unwrap()["status"].clone()
        };
        assert_eq!(
            (status(first_id), status(new_id)),
            (json!("active"), json!("revoked"))
        );
        let output = world
            .command(&[
                "key",
                "rotate",
                "acme",
                "--grace",
                "48h",
                "--name",
                "third",
                "--expires-in",
                "90d",
            ])
            .output()
            .unwrap();
        let (_, stderr) = texts(&output);
        assert!(stderr.contains("works until 20"), "{stderr}");
    });
}

#[test]
fn which_key_to_rotate_must_be_clear() {
    let world = World::new();
    world.acme();
    let second = world.json(&["key", "create", "acme", "--name", "second"]);
    let error = refused(&mut world.command(&["key", "rotate", "acme"]), 1);
    let second_id = second["key_id"].as_str().unwrap();
    for part in ["--key", second_id, "second"] {
        assert!(error.contains(part), "{part:?} in {error}");
    }
    let new = world.json(&["key", "rotate", "acme", "--key", second_id]);
    assert_eq!(new["replaces"]["key_id"], second_id);
    let error = refused(
        &mut world.command(&["key", "rotate", "acme", "--key", "0123456789ab"]),
        1,
    );
    assert!(error.contains("0123456789ab"), "{error}");
    world.text(&["tenant", "create", "Other", "ops@other.example", "other"]);
    let other = world.json(&["key", "list", "other"]);
    world.text(&["key", "revoke", other[0]["key_id"].as_str().unwrap()]);
    let error = refused(&mut world.command(&["key", "rotate", "other"]), 1);
    assert!(
        error.contains("none that works") && !error.contains("--key"),
        "{error}"
    );
}

#[test]
fn a_key_made_offline_is_imported_from_standard_input() {
    World::everywhere(|world| {
        world.acme();
        let made: Value =
            serde_json::from_str(&world.text(&["key", "generate", "--json"])).unwrap();
        let key = made["key"].as_str().unwrap();
        let import = [
            "key",
            "import",
            "acme",
            "--name",
            "ci",
            "--scopes",
            "logs:write",
        ];
        let imported = world.json_with(&import, &format!("  {key}\r\n"));
        assert_eq!(imported["key_id"], made["key_id"]);
        assert_eq!(
            (&imported["name"], &imported["scopes"]),
            (&json!("ci"), &json!(["logs:write"]))
        );
        assert!(!imported.to_string().contains(key), "{imported}");
        // A pipeline that runs again.
        assert_eq!(world.json_with(&import, key)["key_id"], made["key_id"]);
        assert_eq!(
            world
                .json(&["key", "list", "acme"])
                .as_array()
                .unwrap()
                .len(),
            2
        );

        // The edge finds it by the digest of the whole of it.
        let digest = key.parse::<ApiKey>().unwrap().digest();
        let found = tokio::runtime::Runtime::new().unwrap().block_on(async {
            let url = world.database_url.parse().unwrap();
            let store = store::Store::connect(&url, 1).await.unwrap();
            store.grant_fetch(&digest).await.unwrap()
        });
        assert!(found.is_some());

        world.text(&["key", "revoke", key]);
        let error = refused_with(&mut world.command(&import), key.as_bytes(), 1);
        assert!(error.contains("revoked") && !error.contains(key), "{error}");
    });
}

#[test]
fn what_is_no_key_is_not_imported_and_not_repeated() {
    let world = World::new();
    world.acme();
    let key = generated();
    let key = key.reveal();
    let last = if key.ends_with('0') { '1' } else { '0' };
    let changed = format!("{}{last}", &key[..57]);
    let two = format!("{key}\n{}\n", generated().reveal());
    let long = "x".repeat(1 << 20);
    for (input, part) in [
        ("", "empty"),
        (" \n\t\n", "empty"),
        (&two, "more than one line"),
        (&changed, "checksum"),
        (&key[..40], "no key"),
        (&long, "no key"),
        (&world.token, "no key"),
    ] {
        let import = &mut world.command(&["key", "import", "acme"]);
        let error = refused_with(import, input.as_bytes(), 1);
        assert!(error.contains(part), "{part:?} in {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(
            !error.contains("obs_") || error.contains("expected obs_"),
            "{error}"
        );
        assert!(
            !error.contains(&key[16..]) && !error.contains(&world.token),
            "{error}"
        );
    }
    let import = &mut world.command(&["key", "import", "acme"]);
    let error = refused_with(import, &[0xff, 0xfe], 1);
    assert!(error.contains("not text"), "{error}");
    let error = refused(&mut world.command(&["key", "import", "acme", key]), 2);
    assert!(
        error.contains("standard input") && !error.contains(key),
        "{error}"
    );
    assert_eq!(
        world
            .json(&["key", "list", "acme"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn at_a_terminal_the_key_is_asked_for() {
    let world = World::new();
    world.acme();
    let key = generated();
    let line = format!(
        "{} key import acme --json 2>prompt",
        env!("CARGO_BIN_EXE_okmon")
    );
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .current_dir(world.dir.path())
        .env("OKMON_CONTROL_URL", &world.url)
        .env("OKMON_OPERATOR_TOKEN", &world.token);
    let output = with_input(&mut script, format!("{}\n", key.reveal()).as_bytes());
    let (text, _) = texts(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains(key.id().as_str()), "{text}");
    let prompt = std::fs::read_to_string(world.dir.path().join("prompt")).unwrap();
    assert_eq!(prompt, "Paste the key and press Enter:\n");
}

#[test]
fn who_uses_a_key_is_shown() {
    World::everywhere(|world| {
        let made = world.acme();
        let key_id = made["key_id"].as_str().unwrap();
        let shown = world.json(&["key", "show", key_id]);
        assert_eq!(
            (&shown["user_agents"], &shown["addresses"]),
            (&json!([]), &json!([]))
        );
        let text = world.text(&["key", "show", made["key"].as_str().unwrap()]);
        assert!(text.contains("user agents: none seen"), "{text}");

        for (kind, value) in [("user_agent", "otel\u{1b}/1.0"), ("address", "192.0.2.7")] {
            world.sql(&format!(
                "insert into key_uses (key_id, kind, value, requests, first_at, last_at) values ('{key_id}', '{kind}', \
                 '{value}', 12, '2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z')"
            ));
        }
        let shown = world.json(&["key", "show", key_id]);
        assert_eq!(
            (
                &shown["addresses"][0]["value"],
                &shown["addresses"][0]["requests"]
            ),
            (&json!("192.0.2.7"), &json!(12))
        );
        let text = world.text(&["key", "show", key_id]);
        assert!(
            text.contains("192.0.2.7") && text.contains("otel\u{fffd}/1.0"),
            "{text}"
        );
        assert!(!text.contains("obs_"), "{text}");
    });
}

#[test]
fn arguments_about_keys_that_make_no_sense_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (&["key", "show", "short"][..], "12 letters and digits"),
        (&["key", "rotate", "acme", "--grace", "soon"], "--grace"),
        (&["key", "rotate", "acme", "--grace", "-1h"], "--grace"),
        (
            &["key", "rotate", "acme", "--grace", "99999999999999999999w"],
            "--grace",
        ),
        (&["key", "rotate", "acme", "--key", "nonsense"], "--key"),
        (&["key", "rotate", "a|b"], "may not contain"),
        (&["key", "import", "a b"], "may not contain"),
        (
            &["key", "import", "acme", "--scopes", "logs:delete"],
            "--scopes",
        ),
        (
            &[
                "key",
                "import",
                "acme",
                "--expires-in",
                "1d",
                "--expires-at",
                "x",
            ],
            "cannot be used with",
        ),
        (&["key", "list", "\u{ff41}cme"], "may not contain"),
    ] {
        let error = refused(okmon(dir.path()).args(arguments), 2);
        assert!(error.contains(part), "{part:?} in {error}");
    }
    let world = World::new();
    let made = world.acme();
    let long = "n".repeat(201);
    for (arguments, part) in [
        (&["key", "create", "acme", "--scopes", ""][..], "--scopes: "),
        (
            &["key", "create", "acme", "--expires-in", "0"],
            "--expires-in: ",
        ),
        (
            &[
                "key",
                "create",
                "acme",
                "--expires-in",
                "101w",
                "--name",
                &long,
            ],
            "name: ",
        ),
        (
            &["key", "create", "acme", "--expires-at", "yesterday"],
            "--expires-at: ",
        ),
        (&["key", "rotate", "acme", "--grace", "366d"], "--grace: "),
        (
            &[
                "key",
                "rotate",
                "acme",
                "--expires-at",
                "2001-01-01T00:00:00Z",
            ],
            "--expires-at: ",
        ),
        (&["key", "rotate", "nobody"], "nobody"),
        (&["key", "show", "0123456789ab"], "0123456789ab"),
    ] {
        let error = refused(&mut world.command(arguments), 1);
        assert!(error.contains(part), "{part:?} in {error}");
    }
    let listed = world.json(&["key", "list", "acme"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "nothing half-written");
    assert_eq!(listed[0]["key_id"], made["key_id"]);
}

#[test]
fn a_secret_is_in_no_output_but_the_one_that_made_it() {
    World::everywhere(|world| {
        let first = world.acme();
        let second = world.json(&["key", "rotate", "acme"]);
        let secrets = [&first, &second].map(|key| key["key"].as_str().unwrap());
        let key_id = second["key_id"].as_str().unwrap();
        world.text(&["tenant", "suspend", "acme"]);
        for command in [
            &["tenant", "list"][..],
            &["tenant", "show", "acme"],
            &["tenant", "set", "acme", "--name", "Acme"],
            &["tenant", "suspend", "acme"],
            &["tenant", "resume", "acme"],
            &["key", "list", "acme"],
            &["key", "show", key_id],
            &["key", "show", secrets[0]],
            &["operator", "list"],
            &["audit"],
            &["key", "revoke", secrets[1]],
            &["tenant", "delete", "acme", "--yes"],
        ] {
            for json in [&[][..], &["--json"]] {
                let output = world.command(&[command, json].concat()).output().unwrap();
                let (stdout, stderr) = texts(&output);
                assert!(output.status.success(), "{command:?}: {stderr}");
                for secret in secrets.into_iter().chain([world.token.as_str()]) {
                    let shown = [&stdout, &stderr].map(|text| text.contains(&secret[17..]));
                    assert_eq!(shown, [false; 2], "{command:?}: {stdout}{stderr}");
                }
            }
        }
    });
}
