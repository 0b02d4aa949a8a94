//! HTTP/1.1's chunked coding, beside hyper's reading of the same bytes. The first byte says in how large pieces they come.
//!
//! - A body is the same however its bytes are cut, and what follows it stays in the buffer.
//! - A body that ends, hyper reads as the same body, to its end. (Not the other way round.)
//! - Any bytes, put into chunks, come out again, but for very many chunks with hardly any content.
#![no_main]

use bytes::{BufMut as _, BytesMut};
use fuzz::second_opinion;
use libfuzzer_sys::fuzz_target;
use wire::chunked::{BadChunk, Decoded, Decoder};

/// The body and what follows it; `None` when it does not end.
type Outcome = Result<Option<(Vec<u8>, Vec<u8>)>, BadChunk>;

fuzz_target!(|input: &[u8]| {
    let Some((step, input)) = input.split_first() else {
        return;
    };
    let step = usize::from(*step) + 1;
    let whole = decode(input, input.len() + 1);
    assert_eq!(decode(input, step), whole);
    if let Ok(Some((body, rest))) = &whole {
        assert!(input.ends_with(rest));
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let seen = second_opinion::first_request(&[head, input].concat()).expect("a request");
        assert_eq!(&seen.body, body);
        assert!(seen.complete, "hyper sees its end too");
    }

    if step < 16 && input.len() > 1000 {
        return;
    }
    let mut encoded = BytesMut::new();
    for (n, chunk) in input.chunks(step).enumerate() {
        let extension = if n % 2 == 0 { "" } else { " ;a=b" };
        encoded.put_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        encoded.put_slice(chunk);
        encoded.put_slice(b"\r\n");
    }
    encoded.put_slice(b"0\r\ntrailer: x\r\n\r\nnext");
    let expected = Ok(Some((input.to_vec(), b"next".to_vec())));
    assert_eq!(decode(&encoded, step), expected);
});

fn decode(text: &[u8], step: usize) -> Outcome {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::new();
    let mut body = Vec::new();
    let mut pieces = text.chunks(step);
    loop {
        match decoder.decode(&mut buffer)? {
            Decoded::Data(data) => {
                assert!(!data.is_empty());
                body.extend_from_slice(&data);
            }
            Decoded::End => {
                assert!(decoder.is_end());
                buffer.extend_from_slice(&pieces.collect::<Vec<_>>().concat());
                return Ok(Some((body, buffer.to_vec())));
            }
            Decoded::More => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Ok(None),
            },
        }
    }
}
