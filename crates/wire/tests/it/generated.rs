//! `src/generated/` is what `proto/` says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use prost_build::Config;

const FILES: [&str; 5] = [
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
    "prometheus/remote_write_v1.proto",
    "io/prometheus/write/v2/types.proto",
    "loki/push.proto",
];

/// File name and text of everything that `proto/` generates.
fn generate() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let descriptors = protox::compile(FILES, [root]).expect("proto/ does not compile");
    let out = tempfile::tempdir().unwrap();
    Config::new()
        .out_dir(out.path())
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .compile_fds(descriptors)
        .unwrap();
    read(out.path())
}

fn read(dir: &Path) -> BTreeMap<String, String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn generated_code_is_what_proto_says() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    let wanted = generate();
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(&dir).unwrap();
        for name in read(&dir).keys().filter(|name| !wanted.contains_key(*name)) {
            fs::remove_file(dir.join(name)).unwrap();
        }
        for (name, text) in &wanted {
            fs::write(dir.join(name), text).unwrap();
        }
    }
    let committed = read(&dir);
    let differing: Vec<_> = wanted
        .keys()
        .chain(committed.keys())
        .filter(|name| wanted.get(*name) != committed.get(*name))
        .collect();
    assert!(
        differing.is_empty(),
        "{differing:?} in crates/wire/src/generated differ from proto/: run `UPDATE=1 cargo test -p wire generated` and commit"
    );
}
