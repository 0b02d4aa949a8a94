//! HTTP/2 frames and HPACK written by hand, right ones and wrong ones alike: a library's client refuses to misbehave. Knows the
//! layout (RFC 9113 section 4.1, RFC 7541 sections 5 and 6), no rules.

/// What a client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest frame a server has to take (RFC 9113 section 4.2).
pub(super) const PAYLOAD_BYTES_MAX: usize = 16_384;
/// Of a frame's header.
pub(super) const HEADER_BYTES: usize = 9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;

pub(super) const INITIAL_WINDOW_SIZE: u16 = 0x4;
/// `CANCEL`, with which a client takes a request back.
pub(super) const CANCEL: u32 = 0x8;

/// Types of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data = 0x0,
    Headers = 0x1,
    Priority = 0x2,
    Reset = 0x3,
    Settings = 0x4,
    Ping = 0x6,
    GoAway = 0x7,
    WindowUpdate = 0x8,
    Continuation = 0x9,
    /// One that nobody knows, which a receiver has to skip.
    Unknown = 0xee,
}

/// Appends a frame. A payload too long for its length field is cut.
pub(super) fn frame(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    let payload = payload.get(..0xff_ffff).unwrap_or(payload);
    let length = u32::try_from(payload.len()).unwrap_or_default();
    out.extend(length.to_be_bytes().iter().skip(1));
    out.extend([kind as u8, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// A header block as HEADERS and as many CONTINUATION frames as it takes.
pub(super) fn headers(out: &mut Vec<u8>, end_stream: bool, stream: u32, block: &[u8]) {
    let mut pieces = block.chunks(PAYLOAD_BYTES_MAX).peekable();
    let mut kind = Kind::Headers;
    let mut flags = if end_stream { END_STREAM } else { 0 };
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            flags |= END_HEADERS;
        }
        frame(out, kind, flags, stream, piece);
        (kind, flags) = (Kind::Continuation, 0);
    }
}

/// A frame whose payload is one number of 32 bits: a code of `RST_STREAM`, an increment of `WINDOW_UPDATE`.
pub(super) fn number(out: &mut Vec<u8>, kind: Kind, stream: u32, value: u32) {
    frame(out, kind, 0, stream, &value.to_be_bytes());
}

/// One setting.
pub(super) fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// An integer with a prefix of `bits` bits; what is before the prefix is in `first`.
fn integer(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let max = (1_usize << bits) - 1;
    if value < max {
        out.push(first | u8::try_from(value).unwrap_or_default());
        return;
    }
    out.push(first | u8::try_from(max).unwrap_or_default());
    let mut rest = value - max;
    while rest >= 128 {
        out.push(0x80 | u8::try_from(rest % 128).unwrap_or_default());
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap_or_default());
}

/// A string, never Huffman coded.
fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer(out, 0, 7, text.len());
    out.extend(text);
}

/// A header that does not enter the table.
pub(super) fn literal(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(0x00);
    string(out, name.as_bytes());
    string(out, value);
}

/// A header that enters the table, where it is number 62 until another one does.
pub(super) fn literal_into_table(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(0x40);
    string(out, name.as_bytes());
    string(out, value);
}

/// A reference to the newest header in the table.
pub(super) const NEWEST: u8 = 0x80 | 0x3e;

/// The pseudo-headers of `POST http://edge{path}`, and `more`.
pub(super) fn request(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    // :method POST and :scheme http are in the static table; of :path and :authority the names are.
    let mut block = vec![0x83, 0x86, 0x04];
    string(&mut block, path.as_bytes());
    block.push(0x01);
    string(&mut block, b"edge");
    for (name, value) in more {
        literal(&mut block, name, value.as_bytes());
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_length_type_flags_stream_and_payload() {
        let mut out = Vec::new();
        frame(&mut out, Kind::Ping, ACK, 0, &[7; 8]);
        assert_eq!(out[..HEADER_BYTES], [0, 0, 8, 6, 1, 0, 0, 0, 0]);
        assert_eq!(out[HEADER_BYTES..], [7; 8]);
        out.clear();
        number(&mut out, Kind::Reset, 0x0102_0305, CANCEL);
        assert_eq!(out, [0, 0, 4, 3, 0, 1, 2, 3, 5, 0, 0, 0, 8]);
        let settings = setting(INITIAL_WINDOW_SIZE, 65_536);
        assert_eq!(settings, [0, 4, 0, 1, 0, 0]);
    }

    #[test]
    fn a_long_header_block_goes_on_in_continuations_and_ends_once() {
        let mut out = Vec::new();
        headers(&mut out, true, 1, &vec![0; 2 * PAYLOAD_BYTES_MAX + 1]);
        let second = HEADER_BYTES + PAYLOAD_BYTES_MAX;
        let third = 2 * second;
        let kind_and_flags = |at: usize| [out[at + 3], out[at + 4]];
        assert_eq!(kind_and_flags(0), [Kind::Headers as u8, END_STREAM]);
        assert_eq!(kind_and_flags(second), [Kind::Continuation as u8, 0]);
        let last = [Kind::Continuation as u8, END_HEADERS];
        assert_eq!(kind_and_flags(third), last);
        assert_eq!(out.len(), third + HEADER_BYTES + 1);
    }

    #[test]
    fn integers_are_those_of_rfc_7541_appendix_c_1() {
        for (value, bits, expected) in [
            (10, 5, &[10][..]),
            (1337, 5, &[31, 154, 10]),
            (42, 8, &[42]),
            (127, 7, &[127, 0]),
            (255, 7, &[127, 128, 1]),
        ] {
            let mut out = Vec::new();
            integer(&mut out, 0, bits, value);
            assert_eq!(out, expected, "{value}");
        }
    }

    /// Somebody else's decoder has to read what is written here.
    #[tokio::test]
    async fn a_server_reads_the_request_as_it_was_meant() {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let mut out = PREFACE.to_vec();
        frame(&mut out, Kind::Settings, 0, 0, &[]);
        let mut block = request("/v1/traces", &[("x-long", &"v".repeat(300))]);
        literal_into_table(&mut block, "x-a", b"b");
        block.extend([NEWEST; 2]);
        headers(&mut out, true, 1, &block);
        let (_from, mut to) = tokio::io::split(client);
        tokio::io::AsyncWriteExt::write_all(&mut to, &out)
            .await
            .unwrap();
        let mut connection = h2::server::handshake(server).await.unwrap();
        let (request, _respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.method(), http::Method::POST);
        assert_eq!(request.uri(), "http://edge/v1/traces");
        assert_eq!(request.headers()["x-long"].len(), 300);
        assert_eq!(request.headers().get_all("x-a").iter().count(), 3);
    }
}
