//! HTTP/1.1 heads, beside hyper's reading of the same bytes and a naive one. The first two bytes say where the head is cut.
//!
//! - What is taken for a head, hyper takes for the same: method, target, version, headers, and length of the body. (Not the other way
//!   round: much that hyper takes is refused here.)
//! - The body's length is beyond doubt: at most one `Content-Length`, of digits only, or one `Transfer-Encoding`, `chunked`, never both.
//! - A head ends with an empty line, its lines end with CRLF, no name is followed by a space, no line is folded; with HTTP/1.1 there is
//!   one `Host`. What follows stays in the buffer as it is.
//! - A head cut anywhere is not complete, and not refused.
//! - A limit on its size is kept to.
#![no_main]

use bytes::BytesMut;
use edge::fuzzing::{Head, Length, http1_head};
use fuzz::second_opinion;
use http::{Method, Version};
use libfuzzer_sys::fuzz_target;

const HEAD_MAX: u64 = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((cut, input)) = input.split_first_chunk::<2>() else {
        return;
    };
    let mut buffer = BytesMut::from(input);
    let Ok(Some(head)) = http1_head(&mut buffer, HEAD_MAX) else {
        return;
    };
    assert!(input.ends_with(&buffer));
    let text = &input[..input.len() - buffer.len()];

    let cut = usize::from(u16::from_le_bytes(*cut)) % text.len();
    let mut partial = BytesMut::from(&text[..cut]);
    assert!(
        matches!(http1_head(&mut partial, HEAD_MAX), Ok(None)),
        "cut at {cut}"
    );
    assert_eq!(partial, text[..cut]);
    let length = text.len() as u64;
    assert!(matches!(
        http1_head(&mut BytesMut::from(text), length),
        Ok(Some(_))
    ));
    assert!(http1_head(&mut BytesMut::from(text), length - 1).is_err());

    check_lines(text, &head);
    if let Ok(framing) = &head.framing {
        compare(&head, *framing, text);
    }
});

/// Reads the head in the most naive way and compares.
fn check_lines(text: &[u8], head: &Head) {
    let text = text
        .strip_suffix(b"\r\n\r\n")
        .expect("an empty line at the end");
    // Empty lines before the request are allowed (RFC 9112 section 2.2).
    let mut text = text;
    while let Some(rest) = text.strip_prefix(b"\r\n") {
        text = rest;
    }
    let text: String = text.iter().map(|byte| char::from(*byte)).collect();
    let mut lines = text.split("\r\n");
    let request: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = request[..] else {
        panic!("{request:?} is no request line")
    };
    assert_eq!(method, head.parts.method.as_str());
    assert!(!target.is_empty() && ["HTTP/1.1", "HTTP/1.0"].contains(&version));
    let (mut lengths, mut codings, mut hosts, mut n_headers) = (Vec::new(), Vec::new(), 0, 0);
    for line in lines {
        assert!(
            !line.contains(['\r', '\n']) && !line.starts_with([' ', '\t']),
            "{line:?}"
        );
        let (name, value) = line.split_once(':').expect("a colon");
        assert!(!name.is_empty() && !name.contains([' ', '\t']), "{name:?}");
        let value = value.trim_matches([' ', '\t']);
        n_headers += 1;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(value),
            "transfer-encoding" => codings.push(value.to_ascii_lowercase()),
            "host" => hosts += 1,
            _ => {}
        }
    }
    assert_eq!(n_headers, head.parts.headers.len());
    if head.framing.is_err() {
        assert!(!head.keep_alive);
        return;
    }
    assert!(version == "HTTP/1.0" || hosts == 1);
    match (&lengths[..], &codings[..], head.framing.as_ref().ok()) {
        ([], [], Some(Length::Known(0))) => {}
        ([], [coding], Some(Length::Chunked)) => assert_eq!(coding, "chunked"),
        ([length], [], Some(Length::Known(known))) => {
            assert!(length.bytes().all(|byte| byte.is_ascii_digit()));
            assert_eq!(length.parse(), Ok(*known));
        }
        other => panic!("{other:?}"),
    }
}

fn compare(head: &Head, framing: Length, text: &[u8]) {
    // hyper makes a tunnel of CONNECT and its empty body; we serve none, and answer 404.
    if head.parts.method == Method::CONNECT {
        return;
    }
    let seen = second_opinion::first_request(text).expect("hyper takes it too");
    let (ours, theirs) = (&head.parts, &seen.parts);
    assert_eq!(
        (&ours.method, &ours.uri, ours.version),
        (&theirs.method, &theirs.uri, theirs.version)
    );
    assert_eq!(ours.headers, theirs.headers);
    assert!([Version::HTTP_10, Version::HTTP_11].contains(&ours.version));
    match framing {
        Length::Known(length) => assert_eq!(seen.length, Some(length)),
        Length::Chunked => assert_eq!(seen.length, None),
    }
}
