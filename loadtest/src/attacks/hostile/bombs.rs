//! Bodies that are small until somebody inflates them. The edge has no reason to, for who has no key; for who has one it may count
//! items, within bounds.

use std::io;
use std::sync::LazyLock;

use flate2::{Compress, Compression, FlushCompress};

use super::guesses::fresh_key;
use super::wire::Wire;

/// What a bomb becomes.
const INFLATED: usize = 64 << 20;
/// The CRC-32 of so many zeros.
const GZIP_CRC: u32 = 0xb2eb_30ed;

struct Bomb {
    path: &'static str,
    encoding: &'static str,
    body: &'static LazyLock<Vec<u8>>,
}

static GZIP_BODY: LazyLock<Vec<u8>> = LazyLock::new(gzip_body);
static ZSTD_BODY: LazyLock<Vec<u8>> = LazyLock::new(zstd_body);
static SNAPPY_BODY: LazyLock<Vec<u8>> = LazyLock::new(snappy_body);

const GZIP: Bomb = Bomb {
    path: "/v1/traces",
    encoding: "gzip",
    body: &GZIP_BODY,
};
const ZSTD: Bomb = Bomb {
    path: "/v1/traces",
    encoding: "zstd",
    body: &ZSTD_BODY,
};
const SNAPPY: Bomb = Bomb {
    path: "/api/v1/push",
    encoding: "snappy",
    body: &SNAPPY_BODY,
};

/// Zeros, a thousandth of their size: one piece, compressed so that it needs nothing before it, again and again.
fn gzip_body() -> Vec<u8> {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xff, 0xff];
    let zeros = vec![0; 1 << 20];
    let mut piece = Vec::with_capacity(8192);
    // Room for all there is makes this succeed; a bomb that is none would fail its test.
    let _ = Compress::new(Compression::best(), false).compress_vec(
        &zeros,
        &mut piece,
        FlushCompress::Full,
    );
    let mut body = HEADER.to_vec();
    body.extend(piece.repeat(INFLATED / zeros.len()));
    body.extend(LAST_BLOCK);
    body.extend(GZIP_CRC.to_le_bytes());
    body.extend(u32::try_from(INFLATED).unwrap_or_default().to_le_bytes());
    body
}

/// RFC 8878 by hand: a window of 2 TiB, then blocks of four bytes that stand for 128 KiB each.
fn zstd_body() -> Vec<u8> {
    const BLOCK: u32 = 128 << 10;
    const RUN_LENGTH: u32 = 1 << 1;
    let mut body = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8];
    let blocks = INFLATED / BLOCK as usize;
    for n in 1..=blocks {
        let last = u32::from(n == blocks);
        let header = last | RUN_LENGTH | BLOCK << 3;
        body.extend(header.to_le_bytes().iter().take(3));
        body.push(0);
    }
    body
}

/// A length of 4 GiB announced, and copies of one byte that never come so far.
fn snappy_body() -> Vec<u8> {
    const COPY_64_BYTES: [u8; 3] = [0xfe, 1, 0];
    let mut body = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x0a];
    for _ in 0..20_000 {
        body.extend(COPY_64_BYTES);
    }
    body
}

async fn send(wire: &mut Wire, bomb: &Bomb, key: &str) -> io::Result<()> {
    let body: &[u8] = bomb.body;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {key}\r\n\
         content-type: application/x-protobuf\r\ncontent-encoding: {}\r\n\
         x-prometheus-remote-write-version: 0.1.0\r\ncontent-length: {}\r\n\r\n",
        bomb.path,
        bomb.encoding,
        body.len()
    );
    wire.attacker.turn().await;
    wire.exchange(&[head.as_bytes(), body].concat()).await
}

async fn of_tenant(mut wire: Wire, bomb: Bomb) -> io::Result<()> {
    let key = wire.attacker.key.clone();
    loop {
        send(&mut wire, &bomb, &key).await?;
    }
}

pub(super) async fn gzip(wire: Wire) -> io::Result<()> {
    of_tenant(wire, GZIP).await
}

pub(super) async fn zstd(wire: Wire) -> io::Result<()> {
    of_tenant(wire, ZSTD).await
}

pub(super) async fn snappy(wire: Wire) -> io::Result<()> {
    of_tenant(wire, SNAPPY).await
}

/// All of them, by somebody without a key.
pub(super) async fn stranger(mut wire: Wire) -> io::Result<()> {
    loop {
        for bomb in [GZIP, ZSTD, SNAPPY] {
            send(&mut wire, &bomb, &fresh_key()?).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bombs_are_small_and_what_they_say_they_become() {
        for body in [&*GZIP_BODY, &ZSTD_BODY, &SNAPPY_BODY] {
            assert!(body.len() <= 70_000, "{} bytes", body.len());
        }
        let mut inflated = Vec::new();
        io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(&GZIP_BODY[..]),
            &mut inflated,
        )
        .unwrap();
        assert_eq!(inflated.len(), INFLATED);
        assert_eq!(
            snap::raw::decompress_len(&SNAPPY_BODY).unwrap(),
            u32::MAX as usize
        );
    }
}
