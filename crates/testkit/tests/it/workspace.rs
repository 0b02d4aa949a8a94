//! What the workspace promises about itself: the order of its crates.

use std::process::Command;

use serde_json::Value;
use testkit::peers;

/// Which crates of ours each may use in production. Every member of the workspace has a line.
const ORDER: [(&str, &[&str]); 10] = [
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
    ("benches", &[]),
    ("loadtest", &["model", "testkit"]),
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
        let (_, allowed) = ORDER
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("{name} has no place in the order of the crates"));
        for below in used.iter().filter(|used| ours.contains(used)) {
            assert!(allowed.contains(below), "{name} must not use {below}");
        }
        for (library, users) in RESERVED {
            assert!(
                !used.contains(&library) || users.contains(&name),
                "{name} must not use {library}"
            );
        }
    }
}
