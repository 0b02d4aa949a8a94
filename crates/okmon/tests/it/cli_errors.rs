//! A command that fails says in one line what to do, and its exit status says whose fault it was.

use crate::cli_harness::{World, okmon, refused};

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    assert_eq!(error.lines().count(), 1, "one line: {error}");
    for part in parts {
        assert!(error.contains(part), "{part:?} in {error}");
    }
}

#[test]
fn a_control_that_does_not_run_is_named_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let mut list = okmon(dir.path());
    list.args(["tenant", "list", "--control-url", "http://127.0.0.1:1"])
        .env("OKMON_OPERATOR_TOKEN", "x");
    says(
        &refused(&mut list, 1),
        &["http://127.0.0.1:1", "okmon control", "OKMON_CONTROL_URL"],
    );
    let mut list = okmon(dir.path());
    list.args(["tenant", "list", "--control-url", "nonsense here"])
        .env("OKMON_OPERATOR_TOKEN", "x");
    says(
        &refused(&mut list, 1),
        &["nonsense here", "OKMON_CONTROL_URL"],
    );
}

#[test]
fn a_missing_or_wrong_token_is_named_with_the_fix() {
    let world = World::new();
    let mut list = world.command(&["tenant", "list"]);
    says(
        &refused(list.env_remove("OKMON_OPERATOR_TOKEN"), 1),
        &[
            "OKMON_OPERATOR_TOKEN",
            "okmon operator create",
            ".okmon/operator-token",
        ],
    );
    let mut list = world.command(&["tenant", "list"]);
    says(
        &refused(list.env("OKMON_OPERATOR_TOKEN", "okop_wrong"), 1),
        &["not valid", "OKMON_OPERATOR_TOKEN"],
    );
}

#[test]
fn what_the_api_refuses_is_said_in_its_words() {
    let world = World::new();
    let create = ["tenant", "create", "Acme", "ops@acme.example", "acme"];
    world.text(&create);
    says(
        &refused(&mut world.command(&create), 1),
        &["tenant acme exists already"],
    );
    let wrong = ["tenant", "create", "Acme", "nowhere", "A b"];
    let error = refused(&mut world.command(&wrong), 1);
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 3, "{error}");
    assert_eq!(lines[0], "okmon: 2 things are wrong:");
    assert!(lines[1].starts_with("  email: "), "{error}");
    assert!(lines[2].starts_with("  id: "), "{error}");
    let unusual = ["tenant", "create", "Acme", "ops@acme.example", "Acme_1"];
    says(
        &refused(&mut world.command(&unusual), 1),
        &["--allow-any-id"],
    );
    let mut allowed = unusual.to_vec();
    allowed.push("--allow-any-id");
    world.text(&allowed);
    says(
        &refused(&mut world.command(&["tenant", "show", "nobody"]), 1),
        &["nobody", "okmon tenant list"],
    );
    says(
        &refused(&mut world.command(&["key", "list", "nobody"]), 1),
        &["nobody"],
    );
    says(
        &refused(&mut world.command(&["key", "revoke", "0123456789ab"]), 1),
        &["0123456789ab"],
    );
}

#[test]
fn a_mistyped_argument_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (
            &["tenant", "show", "a|b"][..],
            "a tenant id may not contain '|'",
        ),
        (&["key", "revoke", "short"], "12 letters and digits"),
        (
            &["key", "create", "acme", "--scopes", "logs:delete"],
            "unknown scope",
        ),
        (&["key", "create", "acme", "--expires-in", "soon"], "90d"),
        (
            &[
                "key",
                "create",
                "acme",
                "--expires-in",
                "1d",
                "--expires-at",
                "x",
            ],
            "cannot be used with",
        ),
        (
            &[
                "operator",
                "create",
                "olga",
                "--database-url",
                "mysql://u:hunter2@h/d",
            ],
            "sqlite://PATH",
        ),
        (&["frobnicate"], "unrecognized subcommand"),
    ] {
        let error = refused(okmon(dir.path()).args(arguments), 2);
        assert!(error.contains(part), "{part:?} in {error}");
    }
}

#[test]
fn a_database_that_was_not_migrated_names_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let create = [
        "operator",
        "create",
        "olga",
        "--database-url",
        "sqlite://new.db",
    ];
    says(
        &refused(okmon(dir.path()).args(create), 1),
        &["okmon migrate"],
    );
    let config = "listen = \"127.0.0.1:0\"\n[database]\nurl = \"sqlite://new.db\"\n";
    std::fs::write(dir.path().join("control.toml"), config).unwrap();
    let control = ["control", "--config", "control.toml"];
    says(
        &refused(okmon(dir.path()).args(control), 1),
        &["okmon migrate"],
    );
}

#[test]
fn every_command_has_an_example_in_its_help() {
    let dir = tempfile::tempdir().unwrap();
    for command in [
        &["control"][..],
        &["edge"],
        &["check"],
        &["migrate"],
        &["tenant", "create"],
        &["tenant", "list"],
        &["tenant", "show"],
        &["key", "create"],
        &["key", "list"],
        &["key", "revoke"],
        &["key", "generate"],
        &["operator", "create"],
    ] {
        let output = okmon(dir.path())
            .args(command)
            .arg("--help")
            .output()
            .unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert!(
            help.contains(&format!("Example:\n  okmon {}", command.join(" "))),
            "{help}"
        );
    }
}

#[test]
fn a_key_made_offline_is_well_formed() {
    let dir = tempfile::tempdir().unwrap();
    let output = okmon(dir.path())
        .args(["key", "generate"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim_end().parse::<model::ApiKey>().unwrap();
}
