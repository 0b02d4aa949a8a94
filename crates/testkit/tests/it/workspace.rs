//! What the workspace promises about itself: the order of its crates, and the documents that list what it has.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use testkit::{Dev, peers};

/// Which crates of ours each may use in production.
const ORDER: [(&str, &[&str]); 8] = [
    ("model", &[]),
    ("wire", &[]),
    ("ops", &[]),
    ("store", &["model"]),
    ("edge", &["model", "wire", "ops", "store"]),
    ("control", &["model", "wire", "ops", "store"]),
    (
        "okmon",
        &["model", "wire", "ops", "store", "edge", "control"],
    ),
    ("testkit", &["model", "wire"]),
];

/// Which crates may use a library.
const RESERVED: [(&str, &[&str]); 3] = [
    ("sqlx", &["store"]),
    ("clap", &["okmon", "loadtest"]),
    ("axum", &["ops", "control", "okmon"]),
];

#[test]
fn crates_use_only_what_is_below_them() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(peers::root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: Vec<_> = packages
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let used = package["dependencies"].as_array().unwrap().iter();
        let used: Vec<_> = used
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| dependency["name"].as_str().unwrap())
            .collect();
        if let Some((_, allowed)) = ORDER.iter().find(|(known, _)| *known == name) {
            for below in used.iter().filter(|used| ours.contains(used)) {
                assert!(allowed.contains(below), "{name} must not use {below}");
            }
        }
        for (library, users) in RESERVED {
            assert!(
                !used.contains(&library) || users.contains(&name),
                "{name} must not use {library}"
            );
        }
    }
}

#[test]
fn the_documented_metrics_are_those_that_are_served() {
    let dev = Dev::start();
    let mut answer = ureq::get(format!("{}/metrics", dev.ready.ops))
        .call()
        .unwrap();
    let served = answer.body_mut().read_to_string().unwrap();
    let served: BTreeSet<_> = served
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let document = std::fs::read_to_string(peers::root().join("docs/METRICS.md")).unwrap();
    let documented: BTreeSet<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(documented, served);
}
