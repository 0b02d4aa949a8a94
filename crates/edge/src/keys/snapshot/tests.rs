use std::sync::atomic::{AtomicBool, Ordering};

use model::{ApiKey, ScopeSet};
use proptest::prelude::*;
use tempfile::TempDir;
use time::macros::datetime;

use super::*;

const TAKEN_AT: OffsetDateTime = datetime!(2026-01-02 03:04:05.678901234 UTC);
const INSTALLATION: &str = "0a0b0c0d";

fn grant(n: usize) -> Grant {
    Grant {
        tenant: TenantId::parse(&format!("tenant-{n}")).unwrap(),
        key_id: format!("{n:012}").parse().unwrap(),
        scopes: ScopeSet::WRITE,
        expires_at: (n % 2 == 1).then_some(TAKEN_AT),
        revoked_at: None,
        tenant_status: STATUSES[n % 3],
        suspended_at: (n % 3 == 1).then_some(TAKEN_AT),
        body_max_bytes: (n % 5 == 4).then_some(n as u64),
    }
}

fn digest(n: usize) -> KeyDigest {
    let bytes: [u8; 32] = Sha256::digest(n.to_le_bytes()).into();
    KeyDigest::from_slice(&bytes).unwrap()
}

/// A folder, and the place of a copy in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.snapshot");
    (folder, file)
}

fn write_some(file: &Path, keys: usize) -> Vec<u8> {
    let grants = (0..keys).map(|n| (digest(n), grant(n)));
    let bytes = write(file, INSTALLATION, TAKEN_AT, grants).unwrap();
    let written = std::fs::read(file).unwrap();
    assert_eq!(bytes, written.len() as u64);
    written
}

/// What is said about a file with these bytes: one line that names the file, what is wrong and what to do.
fn problem(file: &Path, bytes: &[u8]) -> Problem {
    std::fs::write(file, bytes).unwrap();
    refusal(file)
}

fn refusal(file: &Path) -> Problem {
    let error = read(file).expect_err("a file that is not as it was written");
    let text = error.to_string();
    assert!(text.starts_with(file.to_str().unwrap()), "{text}");
    assert!(!text.contains('\n'), "{text}");
    match error {
        SnapshotError::Bad { problem, .. } => problem,
        SnapshotError::Io { .. } => panic!("{text}"),
    }
}

fn times() -> impl Strategy<Value = Option<OffsetDateTime>> {
    // The years that both databases let in.
    let seconds = -62_135_596_800_i64..253_370_764_800;
    let at = (seconds, 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| {
        let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        at.replace_nanosecond(nanoseconds).unwrap()
    });
    proptest::option::of(at)
}

fn grants() -> impl Strategy<Value = (KeyDigest, Grant)> {
    let names = ("[a-z0-9!_.*'()-]{1,150}", "[0-9A-Za-z]{12}");
    let names = names.prop_filter("reserved", |(tenant, _)| TenantId::parse(tenant).is_ok());
    let sizes = proptest::option::of(any::<u64>());
    let rest = (any::<[u8; 32]>(), 0..128_u8, 0..3_usize, sizes);
    let all = (names, rest, times(), times(), times());
    all.prop_map(
        |((tenant, key_id), rest, expires_at, revoked_at, suspended_at)| {
            let (digest, scopes, status, body_max_bytes) = rest;
            let scopes = Scope::ALL
                .into_iter()
                .enumerate()
                .filter(|(n, _)| scopes >> n & 1 == 1);
            let grant = Grant {
                tenant: tenant.parse().unwrap(),
                key_id: key_id.parse().unwrap(),
                scopes: scopes.map(|(_, scope)| scope).collect(),
                expires_at,
                revoked_at,
                tenant_status: STATUSES[status],
                suspended_at,
                body_max_bytes,
            };
            (KeyDigest::from_slice(&digest).unwrap(), grant)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_was_written(
        installation in ".{0,40}",
        taken_at in times(),
        grants in proptest::collection::vec(grants(), 0..20),
    ) {
        let (_folder, file) = place();
        let taken_at = taken_at.unwrap_or(TAKEN_AT);
        let rows = grants.iter().map(|(digest, grant)| (*digest, grant));
        write(&file, &installation, taken_at, rows).unwrap();
        let contents = read(&file).unwrap().unwrap();
        prop_assert_eq!(contents.installation, installation);
        prop_assert_eq!(contents.taken_at, taken_at);
        prop_assert!(contents.grants == grants);
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in any::<Vec<u8>>(), is_ours in any::<bool>()) {
        let mut whole = if is_ours { [&MAGIC[..], &VERSION.to_le_bytes()].concat() } else { Vec::new() };
        whole.extend(bytes);
        prop_assert!(contents(&whole).is_err());
    }

    #[test]
    fn rows_that_are_summed_rightly_are_checked_all_the_same(row in any::<Vec<u8>>()) {
        let mut whole = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        put_time(&mut whole, TAKEN_AT);
        whole.extend([0, 0]);
        whole.extend(&row);
        whole.extend(1_u64.to_le_bytes());
        let sum = Sha256::digest(&whole);
        whole.extend(sum);
        whole.extend(END);
        // Random bytes are no key id, so nothing of this can be a row.
        let is_truncated_or_invalid =
            matches!(contents(&whole), Err(Problem::Truncated | Problem::Invalid(_)));
        prop_assert!(is_truncated_or_invalid);
    }
}

#[test]
fn the_same_keys_make_the_same_bytes_and_these_never_change() {
    let (_folder, file) = place();
    let written = write_some(&file, 5);
    assert_eq!(
        Sha256::digest(&written)[..4],
        [0x57, 0x55, 0xd7, 0x31],
        "another format needs another version, or old copies are read wrongly"
    );
    assert_eq!(write_some(&file, 5), written);
    assert!(written.len() < 5 * 100 + 100, "about 100 bytes a key");
}

#[test]
fn no_file_is_no_copy_and_no_keys_are_a_copy() {
    let (folder, file) = place();
    assert!(read(&file).unwrap().is_none());
    assert!(read(&folder.path().join("none/keys")).unwrap().is_none());
    write_some(&file, 0);
    assert!(read(&file).unwrap().unwrap().grants.is_empty());
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let (_folder, file) = place();
    let small = write_some(&file, 7);
    for length in 0..small.len() {
        let problem = problem(&file, &small[..length]);
        assert_eq!(problem, Problem::Truncated, "{length} of {}", small.len());
    }
    let large = write_some(&file, 5000);
    for part in 0..50 {
        let length = large.len() * part / 50;
        assert_eq!(problem(&file, &large[..length]), Problem::Truncated);
    }
    assert_eq!(problem(&file, &large[1..]), Problem::NotOurs);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (_folder, file) = place();
    let mut bytes = write_some(&file, 3);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            let expected = match at {
                0..8 => Problem::NotOurs,
                8..12 => Problem::Version(u32::from_le_bytes(bytes[8..12].try_into().unwrap())),
                _ if at + END.len() >= bytes.len() => Problem::Truncated,
                _ => Problem::Checksum,
            };
            assert_eq!(contents(&bytes).unwrap_err(), expected, "bit {bit} of {at}");
            bytes[at] ^= 1 << bit;
        }
    }
    std::fs::write(&file, &bytes).unwrap();
    assert!(read(&file).is_ok());
}

#[test]
fn bytes_after_the_end_are_refused() {
    let (_folder, file) = place();
    let mut bytes = write_some(&file, 3);
    bytes.extend(b"and more");
    assert_eq!(problem(&file, &bytes), Problem::Truncated);
}

#[test]
fn what_is_no_regular_file_or_too_large_is_refused_without_being_read() {
    let (folder, file) = place();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(refusal(&file), Problem::NotRegular);
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    assert_eq!(refusal(&pipe), Problem::NotRegular);
    let large = folder.path().join("large");
    let sparse = File::create(&large).unwrap();
    sparse.set_len(FILE_BYTES_MAX + 1).unwrap();
    assert_eq!(refusal(&large), Problem::TooLarge(FILE_BYTES_MAX + 1));
}

#[test]
fn what_others_could_write_is_not_believed() {
    let (_folder, file) = place();
    write_some(&file, 1);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(refusal(&file), Problem::WritableByAll);
}

#[test]
fn nobody_else_may_read_it_whatever_was_there_before() {
    let (_folder, file) = place();
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    write_some(&file, 1);
    assert_eq!(mode(), 0o600);
    for left in [&file, &beside(&file)] {
        std::fs::write(left, "left over").unwrap();
        std::fs::set_permissions(left, std::fs::Permissions::from_mode(0o644)).unwrap();
        write_some(&file, 1);
        assert_eq!(mode(), 0o600);
        assert!(!beside(&file).exists());
    }
}

#[test]
fn what_was_put_in_the_way_is_not_followed() {
    let (folder, file) = place();
    let elsewhere = folder.path().join("elsewhere");
    std::fs::write(&elsewhere, "precious").unwrap();
    std::os::unix::fs::symlink(&elsewhere, beside(&file)).unwrap();
    write_some(&file, 1);
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"precious");
}

#[test]
fn a_copy_that_cannot_be_written_leaves_the_old_one_and_says_why() {
    let (folder, file) = place();
    let before = write_some(&file, 2);
    std::fs::create_dir(beside(&file)).unwrap();
    let none = std::iter::empty::<(KeyDigest, Grant)>();
    let error = write(&file, INSTALLATION, TAKEN_AT, none).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(file.to_str().unwrap()) && text.contains("keys.snapshot_file"),
        "{text}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let nowhere = folder.path().join("none/keys");
    let none = std::iter::empty::<(KeyDigest, Grant)>();
    let text = write(&nowhere, INSTALLATION, TAKEN_AT, none)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("No such file") && !text.contains('\n'),
        "{text}"
    );
}

#[test]
fn a_reader_sees_the_old_copy_or_the_new_one() {
    let (_folder, file) = place();
    write_some(&file, 100);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) || reads == 0 {
                let keys = read(&file).unwrap().unwrap().grants.len();
                assert!(keys == 100 || keys == 3000, "{keys}");
                reads += 1;
            }
        });
        for keys in [3000, 100].into_iter().cycle().take(20) {
            write_some(&file, keys);
        }
        done.store(true, Ordering::Relaxed);
        reading.join().unwrap();
    });
}

#[test]
fn no_part_of_a_secret_is_in_it() {
    let (_folder, file) = place();
    let key = ApiKey::generate().unwrap();
    let grant = Grant {
        key_id: key.id(),
        ..grant(0)
    };
    write(
        &file,
        INSTALLATION,
        TAKEN_AT,
        [(key.digest(), grant)].into_iter(),
    )
    .unwrap();
    let written = std::fs::read(&file).unwrap();
    let (_, secret) = key.reveal().as_bytes().split_at(16);
    assert!(
        written
            .windows(12)
            .any(|part| part == key.id().as_str().as_bytes())
    );
    for part in secret.windows(6) {
        assert!(!written.windows(6).any(|written| written == part));
    }
}

/// `cargo test --release -p edge --lib a_million_keys -- --ignored --nocapture`
#[test]
#[ignore = "measures; takes memory and time"]
fn a_million_keys() {
    let (_folder, file) = place();
    let grants: Vec<_> = (0..1_000_000).map(|n| (digest(n), grant(n))).collect();
    let rows = grants.iter().map(|(digest, grant)| (*digest, grant));
    let began = tokio::time::Instant::now();
    let bytes = write(&file, INSTALLATION, TAKEN_AT, rows).unwrap();
    let wrote = began.elapsed();
    let began = tokio::time::Instant::now();
    let read = read(&file).unwrap().unwrap().grants.len();
    println!(
        "{read} keys, {bytes} bytes: written in {wrote:?}, read in {:?}",
        began.elapsed()
    );
}
