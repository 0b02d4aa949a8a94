//! What targets share: requests written as text, and hyper as a second opinion on HTTP/1.

pub mod second_opinion;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Reads lines of `name: value`, passing over what no header can be.
pub fn headers(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = &value[1..];
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.strip_prefix(b" ").unwrap_or(value)),
        ) {
            headers.append(name, value);
        }
    }
    headers
}

/// Splits off what comes before the first line feed.
pub fn line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, b""),
    }
}
