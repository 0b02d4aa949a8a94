//! HTTP/1.1's chunked coding (RFC 9112 section 7.1), strictly: CRLF only, bounded extensions and trailers, both discarded, and no
//! bodies cut into crumbs. Decodes data as it comes, never waiting for a chunk to be whole.

use bytes::{Bytes, BytesMut};

/// The longest chunk-size line, extensions included, in bytes.
const LINE_MAX: usize = 256;
/// The longest trailer section, in bytes.
const TRAILER_MAX: usize = 8 * 1024;

/// A smaller chunk costs many times its bytes to take, and no good sender cuts its bodies so small.
const CHUNK_BYTES_MIN: u64 = 16;
/// So many smaller ones are taken all the same, and one more for each of these many bytes that came in larger ones.
const SMALL_CHUNKS_MAX: u64 = 1000;
const FORGIVING_BYTES: u64 = 1024;

/// One step of decoding.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Some of the body; never empty.
    Data(Bytes),
    /// The buffer holds nothing more that can be told: read on.
    More,
    /// The body and its trailers are over; what is left in the buffer belongs to the next message.
    End,
}

/// Bytes that are no chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad chunked coding: {0}")]
pub struct BadChunk(&'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailer { seen: usize },
    End,
}

/// Where in a chunked body a connection is.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    small_chunks: u64,
    /// In chunks that are not small.
    bytes: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            state: State::Size,
            small_chunks: 0,
            bytes: 0,
        }
    }
}

impl Decoder {
    /// Takes what can be taken from the front of `buffer`.
    ///
    /// # Errors
    /// [`BadChunk`] when the bytes break the coding; the connection cannot be used any further.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, BadChunk> {
        loop {
            self.state = match self.state {
                State::Size => match line(buffer, LINE_MAX)? {
                    None => return Ok(Decoded::More),
                    Some(line) => match chunk_size(&line)? {
                        0 => State::Trailer { seen: 0 },
                        size => {
                            self.admit(size)?;
                            State::Data(size)
                        }
                    },
                },
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Decoded::More);
                    }
                    let take =
                        usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
                    let data = buffer.split_to(take).freeze();
                    self.state = match left - take as u64 {
                        0 => State::DataEnd,
                        left => State::Data(left),
                    };
                    return Ok(Decoded::Data(data));
                }
                State::DataEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        let _ = buffer.split_to(2);
                        State::Size
                    }
                    Some(_) => return Err(BadChunk("a chunk is not followed by CRLF")),
                    None => return Ok(Decoded::More),
                },
                State::Trailer { seen } => match line(buffer, TRAILER_MAX - seen)? {
                    None => return Ok(Decoded::More),
                    Some(line) if line.is_empty() => State::End,
                    Some(line) if !is_field(&line) => {
                        return Err(BadChunk("a trailer is not a header field"));
                    }
                    Some(line) => State::Trailer {
                        seen: seen + line.len() + 2,
                    },
                },
                State::End => return Ok(Decoded::End),
            }
        }
    }

    /// Whether the body and its trailers are over.
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Judges a chunk by its size.
    fn admit(&mut self, size: u64) -> Result<(), BadChunk> {
        if size >= CHUNK_BYTES_MIN {
            // What is declared need not come: then no small one comes behind it either.
            self.bytes = self.bytes.saturating_add(size);
            return Ok(());
        }
        self.small_chunks += 1;
        if self.small_chunks > SMALL_CHUNKS_MAX + self.bytes / FORGIVING_BYTES {
            return Err(BadChunk("too many chunks have hardly any content"));
        }
        Ok(())
    }
}

/// Splits the next line off, without its CRLF; `None` when it is not complete yet.
fn line(buffer: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, BadChunk> {
    let Some(end) = buffer.iter().take(max + 1).position(|b| *b == b'\n') else {
        if buffer.len() > max {
            return Err(BadChunk("a line is too long"));
        }
        return Ok(None);
    };
    let mut line = buffer.split_to(end + 1);
    if !line.ends_with(b"\r\n") {
        return Err(BadChunk("a line ends without CR"));
    }
    line.truncate(end - 1);
    Ok(Some(line))
}

/// Whether a line is `name: value` (RFC 9110 section 5): nothing of it is used, but what is no field may be the next request
/// to somebody else.
fn is_field(line: &[u8]) -> bool {
    let mut parts = line.splitn(2, |byte| *byte == b':');
    let (name, value) = (parts.next().unwrap_or_default(), parts.next());
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_token) && value.is_some_and(is_text)
}

fn is_text(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}

fn chunk_size(line: &[u8]) -> Result<u64, BadChunk> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    // Fifteen digits stay below 2^60: no sum of sizes can overflow.
    if digits == 0 || digits > 15 {
        return Err(BadChunk("a chunk size is not 1 to 15 hexadecimal digits"));
    }
    let (digits, extension) = line.split_at(digits);
    let at = extension.iter().position(|b| !b" \t".contains(b));
    let begins = at.and_then(|at| extension.get(at));
    if begins.is_some_and(|b| *b != b';') || !is_text(extension) {
        return Err(BadChunk("a chunk size is followed by something else"));
    }
    Ok(digits.iter().fold(0, |size, digit| {
        size * 16 + u64::from(char::from(*digit).to_digit(16).unwrap_or_default())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body, and what was left behind it.
    type BodyAndRest = (Vec<u8>, Vec<u8>);

    /// Decodes `text` given in pieces of `step` bytes; `None` if it does not end.
    fn decode(text: &[u8], step: usize) -> Result<Option<BodyAndRest>, BadChunk> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        let mut pieces = text.chunks(step);
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::End => {
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

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let text = b"5;name=value\r\nhello\r\n6 ; x\r\n world\r\n0\r\nTrailer: gone\r\n\r\nGET /";
        for step in 1..text.len() {
            assert_eq!(
                decode(text, step),
                Ok(Some((b"hello world".to_vec(), b"GET /".to_vec()))),
                "{step}"
            );
        }
    }

    #[test]
    fn a_body_cut_into_crumbs_is_refused_and_one_with_crumbs_in_it_is_not() {
        let crumbs = |count| b"f\r\n123456789012345\r\n".repeat(count);
        let end = b"0\r\n\r\n";
        assert!(decode(&[&crumbs(1000)[..], end].concat(), 999).is_ok());
        assert!(decode(&[&crumbs(1001)[..], end].concat(), 999).is_err());
        // 16 bytes are no crumb; and a megabyte forgives a thousand.
        let small = b"10\r\n1234567890123456\r\n".repeat(10_000);
        assert!(decode(&[&small[..], end].concat(), 999).is_ok());
        let large = [&b"100000\r\n"[..], &vec![7; 1 << 20], b"\r\n"].concat();
        assert!(decode(&[&large[..], &crumbs(2024), end].concat(), 9999).is_ok());
        assert!(decode(&[&large[..], &crumbs(2025), end].concat(), 9999).is_err());
    }

    #[test]
    fn a_body_cut_short_never_ends() {
        let text = b"5\r\nhello\r\n0\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(decode(&text[..end], 3), Ok(None), "{end}");
        }
    }

    #[test]
    fn what_parsers_disagree_about_is_refused() {
        for text in [
            &b"5\nhello\r\n"[..],
            b"5\r\nhelloX\r\n",
            b"\r\nhello",
            b"-1\r\n",
            b"0x5\r\nhello\r\n",
            b"5 5\r\nhello\r\n",
            b"1234567890123456\r\n",
            b"0\r\nTrailer: x\n\r\n",
            b"0\r\nGET / HTTP/1.1\r\n\r\n",
            b"0\r\n: x\r\n\r\n",
            b"0\r\nTrailer : x\r\n\r\n",
            b"0\r\nTrailer: \0\r\n\r\n",
            b"5;a\r\r\nhello\r\n",
            b"5\r;a\r\nhello\r\n",
            b"5\x0c;a\r\nhello\r\n",
            b"5;\0\r\nhello\r\n",
            &[b'1'; 300],
        ] {
            assert!(
                decode(text, 1).is_err(),
                "{}",
                String::from_utf8_lossy(text)
            );
        }
        let mut endless = b"0\r\n".to_vec();
        endless.extend(b"a: b\r\n".repeat(2000));
        assert!(decode(&endless, 100).is_err());
    }
}
