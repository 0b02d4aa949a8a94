//! Credentials: from headers to a key. The input is lines of `name: value`; bytes 1 and 2 stand for two valid keys, and a value that
//! begins with byte 3 is Basic with what follows, in Base64.
//!
//! - A key is found only if each header that may hold one holds this one: by itself, after `Bearer`, or as the password of Basic.
//! - No such header is `no_credential`, and nothing else is.
//! - The order of the headers does not matter to the key.
//! - A text is a key exactly if prefix, alphabet and checksum say so, and its `Debug` form does not hold its secret.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use libfuzzer_sys::fuzz_target;
use model::ApiKey;

const KEYS: [&str; 2] = [
    "obs_0123456789ABabcdefghijklmnopqrstuvwxyz01234567893UmuqX",
    "obs_MkY4YyKY2ictLyR6DSxpLwENWekeiQVLkfajLHe5ARalpPi603PqOz",
];

fuzz_target!(|input: &[u8]| {
    check_key(input);
    let headers = fuzz::headers(&expand(input));
    let sources: Vec<&[u8]> = ["authorization", "x-api-key"]
        .iter()
        .flat_map(|name| headers.get_all(*name))
        .map(|value| value.as_bytes())
        .collect();
    for value in &sources {
        check_key(value);
    }
    let found = edge::fuzzing::credential(&headers);
    match &found {
        Ok((key, user)) => {
            assert!(is_key(key.reveal().as_bytes()));
            assert!(!sources.is_empty());
            for value in headers.get_all(header::AUTHORIZATION) {
                let value = value.as_bytes();
                assert!(
                    bearer(value, key) || basic(value).is_some_and(|(_, it)| it == key.reveal())
                );
            }
            for value in headers.get_all("x-api-key") {
                assert_eq!(value.as_bytes().trim_ascii(), key.reveal().as_bytes());
            }
            if let Some(user) = user {
                assert!(!user.is_empty() && !user.contains(':'));
                let users = headers.get_all(header::AUTHORIZATION).iter();
                assert!(
                    users
                        .filter_map(|value| basic(value.as_bytes()))
                        .any(|(it, _)| it == *user)
                );
            }
        }
        Err(refused) => {
            let label = refused.label();
            assert_eq!(label == "no_credential", sources.is_empty(), "{label}");
            let (malformed, conflict) = ("malformed_credential", "conflicting_credentials");
            assert!(
                [malformed, conflict, "no_credential"].contains(&label),
                "{label}"
            );
        }
    }
    let turned = edge::fuzzing::credential(&turned(&headers));
    let key = |found: &Result<(ApiKey, _), _>| {
        found.as_ref().ok().map(|(key, _)| key.reveal().to_owned())
    };
    assert_eq!(key(&found), key(&turned));
});

fn check_key(text: &[u8]) {
    match ApiKey::parse(text) {
        Ok(key) => {
            assert!(is_key(text));
            assert_eq!(key.reveal().as_bytes(), text);
            assert!(!format!("{key:?}").contains(&key.reveal()[16..]));
        }
        Err(_) => assert!(!is_key(text)),
    }
}

/// What a key is, said a second time.
fn is_key(text: &[u8]) -> bool {
    if text.len() != 58 || !text.starts_with(b"obs_") {
        return false;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(u64::from(byte - b'0')),
        b'A'..=b'Z' => Some(u64::from(byte - b'A') + 10),
        b'a'..=b'z' => Some(u64::from(byte - b'a') + 36),
        _ => None,
    };
    let (checked, sum) = text.split_at(52);
    let sum = sum
        .iter()
        .try_fold(0, |sum, byte| Some(sum * 62 + digit(*byte)?));
    checked[4..].iter().all(|byte| digit(*byte).is_some())
        && sum == Some(u64::from(crc32fast::hash(checked)))
}

fn bearer(value: &[u8], key: &ApiKey) -> bool {
    let value = value.trim_ascii();
    value.len() > 7
        && value[..7].eq_ignore_ascii_case(b"bearer ")
        && value[7..].trim_ascii() == key.reveal().as_bytes()
}

/// User and password of a Basic credential, however it is padded.
fn basic(value: &[u8]) -> Option<(String, String)> {
    let value = value.trim_ascii();
    if value.len() < 6 || !value[..6].eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let text = value[6..].trim_ascii_start();
    let bare = text
        .iter()
        .position(|byte| *byte == b'=')
        .unwrap_or(text.len());
    let mut text = text[..bare].to_vec();
    while text.len() % 4 != 0 {
        text.push(b'=');
    }
    let decoded = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.trim_ascii().to_owned()))
}

/// Puts keys and Base64 where the input asks for them: the engine would not find either by itself.
fn expand(input: &[u8]) -> Vec<u8> {
    let lines = input.split(|byte| *byte == b'\n').map(|line| {
        let mut text = Vec::new();
        for byte in line {
            match byte {
                1 | 2 => text.extend_from_slice(KEYS[usize::from(byte - 1)].as_bytes()),
                other => text.push(*other),
            }
        }
        match text.iter().position(|byte| *byte == 3) {
            Some(at) => {
                let encoded = STANDARD.encode(&text[at + 1..]);
                [&text[..at], b"Basic ", encoded.as_bytes()].concat()
            }
            None => text,
        }
    });
    lines.collect::<Vec<_>>().join(&b'\n')
}

/// The same headers, those of one name in the opposite order.
fn turned(headers: &HeaderMap) -> HeaderMap {
    let mut pairs: Vec<_> = headers.iter().collect();
    pairs.reverse();
    let mut turned = HeaderMap::new();
    for (name, value) in pairs {
        turned.append(name, value.clone());
    }
    turned
}
