//! `scripts/tenant-management`, run as they are.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli_harness::{World, refused, succeeded};

const ACME: [&str; 3] = ["Acme Ltd", "ops@acme.example", "acme"];

fn script(name: &str, dir: &Path) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/tenant-management");
    let mut command = Command::new(scripts.join(name));
    command
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("OKMON", env!("CARGO_BIN_EXE_okmon"))
        .env("TENANTS_DIR", dir.join("tenants"))
        .stdin(Stdio::null());
    command
}

/// A script as an operator of `world`.
fn ours(world: &World, name: &str) -> Command {
    let mut command = script(name, world.dir.path());
    command
        .env("OKMON_CONTROL_URL", &world.url)
        .env("OKMON_OPERATOR_TOKEN", &world.token);
    command
}

fn sheet(world: &World) -> PathBuf {
    world.dir.path().join("tenants/acme.md")
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_tenant_made_by_script_has_its_page_and_no_secret_in_it() {
    let world = World::new();
    let mut create = ours(&world, "create-tenant.sh");
    let printed = succeeded(create.args(ACME).env("DOMAIN", "obs.example.com"));
    assert!(printed.contains("obs_"), "{printed}");
    let text = fs::read_to_string(sheet(&world)).unwrap();
    assert!(
        text.contains("https://obs.example.com/api/v1/push"),
        "{text}"
    );
    assert!(!text.contains("obs_"), "{text}");
    assert_eq!(mode(&sheet(&world)), 0o600);
    assert_eq!(mode(sheet(&world).parent().unwrap()), 0o700);

    let listed = succeeded(ours(&world, "list-tenants.sh").arg("--json"));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&listed[0]["id"], &listed[0]["name"]),
        (&"acme".into(), &"Acme Ltd".into())
    );
    let listed = succeeded(&mut ours(&world, "list-tenants.sh"));
    assert!(listed.contains("acme  Acme Ltd"), "{listed}");

    // The page is there: not a second tenant, not another page.
    let error = refused(ours(&world, "create-tenant.sh").args(ACME), 1);
    assert!(error.contains("is there already"), "{error}");
}

#[test]
fn a_page_has_the_key_where_it_is_asked_for() {
    let world = World::new();
    let mut create = ours(&world, "create-tenant.sh");
    let made = succeeded(create.args(ACME).args(["--with-key", "--json"]));
    let made: Value = serde_json::from_str(&made).unwrap();
    let text = fs::read_to_string(sheet(&world)).unwrap();
    assert!(
        text.contains(made["key"]["key"].as_str().unwrap()),
        "{text}"
    );
    assert_eq!(mode(&sheet(&world)), 0o600);
}

#[test]
fn a_key_is_rotated_and_a_tenant_deleted_by_script() {
    let world = World::new();
    let first = world.acme();
    let mut rotate = ours(&world, "rotate-api-key.sh");
    let new = succeeded(rotate.args(["acme", "--grace", "1h", "--json"]));
    let new: Value = serde_json::from_str(&new).unwrap();
    assert_eq!(new["replaces"]["key_id"], first["key_id"]);

    let mut delete = ours(&world, "delete-tenant.sh");
    let error = refused(delete.arg("acme"), 2);
    assert!(error.contains("--yes"), "{error}");
    let deleted = succeeded(ours(&world, "delete-tenant.sh").args(["acme", "--yes", "--json"]));
    let deleted: Value = serde_json::from_str(&deleted).unwrap();
    assert_eq!(deleted["status"], "inactive");
}

#[test]
fn a_script_used_wrongly_says_how_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (name, arguments) in [
        ("create-tenant.sh", &[][..]),
        ("create-tenant.sh", &["Acme", "ops@acme.example"]),
        (
            "create-tenant.sh",
            &["--with-key", "Acme", "ops@acme.example", "acme"],
        ),
        (
            "create-tenant.sh",
            &["Acme", "ops@acme.example", "../../etc/acme"],
        ),
        ("create-tenant.sh", &["Acme", "ops@acme.example", "Acme"]),
        (
            "create-tenant.sh",
            &["Acme", "ops@acme.example", "acm\u{e9}"],
        ),
        ("create-tenant.sh", &["Acme", "ops@acme.example", "a\nb"]),
        ("create-tenant.sh", &["Acme", "ops@acme.example", ""]),
        (
            "create-tenant.sh",
            &["Acme", "ops@acme.example", "acme", "--nonsense"],
        ),
        ("rotate-api-key.sh", &[]),
        ("rotate-api-key.sh", &["--grace", "1h"]),
        ("rotate-api-key.sh", &["acme", "--grace", "soon"]),
        ("delete-tenant.sh", &[]),
        ("delete-tenant.sh", &["--yes"]),
        ("list-tenants.sh", &["--nonsense"]),
    ] {
        let error = refused(script(name, dir.path()).args(arguments), 2);
        assert!(error.contains("--help"), "{name} {arguments:?}: {error}");
    }
    let made: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    // The one whose flags okmon refuses has made the folder by then.
    assert!(made.len() <= 1, "{made:?}");
}

#[test]
fn every_script_has_help_and_finds_the_program_in_the_path() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "create-tenant.sh",
        "list-tenants.sh",
        "rotate-api-key.sh",
        "delete-tenant.sh",
    ] {
        let help = succeeded(script(name, dir.path()).arg("--help"));
        assert!(help.contains(&format!("\n  {name} ")), "{help}");
    }
    let program = Path::new(env!("CARGO_BIN_EXE_okmon"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut list = script("list-tenants.sh", dir.path());
    let error = refused(list.env_remove("OKMON").env("PATH", path), 1);
    assert!(error.contains("no operator token"), "{error}");
    let mut list = script("list-tenants.sh", dir.path());
    let error = refused(list.env("OKMON", "/no/such/program"), 1);
    assert!(error.contains("/no/such/program"), "{error}");
}
