//! The page for a new customer: readable by nobody else, never over another file, and its settings work as they stand.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use testkit::Dev;

use crate::cli_harness::{World, okmon, refused, succeeded};

const CREATE: [&str; 5] = ["tenant", "create", "Acme", "ops@acme.example", "acme"];

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

fn with_sheet<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    [&CREATE[..], &["--sheet", "acme.md"], flags].concat()
}

#[test]
fn the_sheet_names_the_customer_and_the_endpoints_and_has_no_secret_unless_asked() {
    let world = World::new();
    let url = ["--ingest-url", "https://otlp.example.com/"];
    let made = world.json(&with_sheet(&url));
    let file = world.dir.path().join("acme.md");
    assert_eq!(mode(&file), 0o600);
    let sheet = fs::read_to_string(&file).unwrap();
    let key_id = made["key"]["key_id"].as_str().unwrap();
    for part in [
        "Acme",
        "ops@acme.example",
        "`acme`",
        key_id,
        "https://otlp.example.com/api/v1/push",
        "https://otlp.example.com/loki/api/v1/push",
        "https://otlp.example.com:443",
        "OTEL_EXPORTER_OTLP_ENDPOINT=https://otlp.example.com\n",
        "Bearer%20YOUR_KEY",
        "credentials: YOUR_KEY",
        "bearer_token: YOUR_KEY",
        "bearer_token = \"YOUR_KEY\"",
        "Bearer YOUR_KEY",
    ] {
        assert!(sheet.contains(part), "{part:?} in {sheet}");
    }
    assert!(!sheet.contains("obs_"), "{sheet}");
    let left: Vec<_> = fs::read_dir(world.dir.path())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.contains("sheet"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn with_the_key_every_setting_has_it_and_the_page_says_so() {
    let world = World::new();
    let made = world.json(&with_sheet(&["--with-key"]));
    let file = world.dir.path().join("acme.md");
    assert_eq!(mode(&file), 0o600);
    let sheet = fs::read_to_string(file).unwrap();
    let key = made["key"]["key"].as_str().unwrap();
    assert_eq!(sheet.matches(key).count(), 5, "{sheet}");
    assert!(
        sheet.contains("keep the file secret") && !sheet.contains("YOUR_KEY"),
        "{sheet}"
    );
    // Nobody said where the edge is.
    assert!(sheet.contains("https://localhost/api/v1/push"), "{sheet}");
}

#[test]
fn a_sheet_that_cannot_be_written_is_found_out_before_the_tenant_is_made() {
    let world = World::new();
    let sheet = world.dir.path().join("acme.md");
    fs::write(&sheet, "mine").unwrap();
    let error = refused(&mut world.command(&with_sheet(&[])), 1);
    assert!(
        error.contains("--sheet acme.md is there already"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&sheet).unwrap(), "mine");

    fs::remove_file(&sheet).unwrap();
    symlink("nowhere", &sheet).unwrap();
    refused(&mut world.command(&with_sheet(&[])), 1);
    assert!(!world.dir.path().join("nowhere").exists());

    for file in ["no/such/folder/acme.md", "..", "/"] {
        let arguments = [&CREATE[..], &["--sheet", file]].concat();
        let error = refused(&mut world.command(&arguments), 1);
        assert!(error.contains(&format!("--sheet {file}")), "{error}");
    }
    assert_eq!(world.text(&["tenant", "list", "--json"]), "[]\n");
}

#[test]
fn a_tenant_that_is_refused_leaves_no_sheet() {
    let world = World::new();
    let wrong = [
        "tenant", "create", "", "nowhere", "A b", "--sheet", "acme.md",
    ];
    refused(&mut world.command(&wrong), 1);
    let names: Vec<_> = fs::read_dir(world.dir.path())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.contains("acme") || name.contains("sheet"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn what_a_customer_is_called_does_nothing_to_the_page() {
    let world = World::new();
    let name = "<script>|`x` [a](b) *b* '; drop table tenants; --";
    let create = [
        "tenant",
        "create",
        name,
        "a|b`c@acme.example",
        "acme",
        "--sheet",
        "acme.md",
    ];
    assert_eq!(world.json(&create)["name"], name);
    let sheet = fs::read_to_string(world.dir.path().join("acme.md")).unwrap();
    let rows: Vec<_> = sheet
        .lines()
        .filter(|line| line.starts_with("| C"))
        .collect();
    assert_eq!(
        rows,
        [
            r"| Customer | \<script\>\|\`x\` \[a\](b) \*b\* '; drop table tenants; -- |",
            r"| Contact | a\|b\`c@acme.example |",
        ]
    );
}

#[test]
fn flags_of_the_sheet_that_make_no_sense_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    for (flags, part) in [
        (&["--with-key"][..], "--sheet"),
        (
            &["--sheet", "a.md", "--ingest-url", "otlp.example.com"],
            "--ingest-url",
        ),
        (
            &["--sheet", "a.md", "--ingest-url", "https://a/$(id)"],
            "--ingest-url",
        ),
        (&["--sheet", "a.md", "--sheet", "b.md"], "--sheet"),
    ] {
        let error = refused(okmon(dir.path()).args(CREATE).args(flags), 2);
        assert!(error.contains(part), "{error}");
    }
}

/// The block of `sheet` under a heading that starts with `title`.
fn block<'a>(sheet: &'a str, title: &str) -> &'a str {
    let (_, section) = sheet.split_once(&format!("\n## {title}")).unwrap();
    let (_, block) = section.split_once("\n```sh\n").unwrap();
    block.split_once("\n```").unwrap().0
}

#[test]
fn the_curl_line_of_the_sheet_works_as_it_stands() {
    let dev = Dev::start();
    let dir = tempfile::tempdir().unwrap();
    let mut create = okmon(dir.path());
    create
        .args(with_sheet(&["--with-key", "--ingest-url", &dev.ready.api]))
        .env("OKMON_CONTROL_URL", &dev.ready.control)
        .env("OKMON_OPERATOR_TOKEN", &dev.ready.operator_token);
    succeeded(&mut create);
    let sheet = fs::read_to_string(dir.path().join("acme.md")).unwrap();
    let line = block(&sheet, "A first log line");
    testkit::eventually(
        std::time::Duration::from_secs(20),
        "the new key works",
        || {
            let output = Command::new("sh").args(["-c", line]).output().unwrap();
            let answer = String::from_utf8_lossy(&output.stdout).into_owned();
            if answer.contains("204 No Content") {
                Ok(())
            } else {
                Err(answer)
            }
        },
    );
    assert_eq!(dev.received_by("acme", model::Signal::Logs).len(), 1);
}
