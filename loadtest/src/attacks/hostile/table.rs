//! All attacks there are.

use std::fmt;
use std::time::Duration;

use super::wire::Wire;
use super::{
    Connection, bombs, crowds, floods, guesses, headers, http1, over_tls, posts, resets, slow,
};

/// An attack: what each of its connections does, and how many there are.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// What it is, for people.
    pub(crate) about: &'static str,
    /// Connections at a time.
    pub(super) connections: u16,
    /// Addresses that they come from.
    pub(super) addresses: u16,
    /// How long it takes to open a connection again that has ended.
    pub(super) pause: Duration,
    /// Requests a second in all, where not as many as can be.
    pub(super) per_second: Option<u32>,
    /// Whether no more are opened at a time than wait for an answer: many at once would be more than an upstream takes.
    pub(super) is_answered_first: bool,
    /// Whether it wants a listener with TLS.
    pub(crate) is_over_tls: bool,
    pub(super) connection: fn(Wire) -> Connection,
}

impl fmt::Debug for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Attack {
    /// As fast as it goes, on 16 connections from one address.
    const fn flood(
        name: &'static str,
        about: &'static str,
        connection: fn(Wire) -> Connection,
    ) -> Self {
        Self {
            name,
            about,
            connections: 16,
            addresses: 1,
            pause: Duration::ZERO,
            per_second: None,
            is_answered_first: false,
            is_over_tls: false,
            connection,
        }
    }

    /// Many that hold on to their connection, and open it again a second after it was ended.
    const fn crowd(
        name: &'static str,
        about: &'static str,
        connections: u16,
        connection: fn(Wire) -> Connection,
    ) -> Self {
        Self {
            connections,
            addresses: 250,
            pause: Duration::from_secs(1),
            ..Self::flood(name, about, connection)
        }
    }

    /// Its place among all.
    pub(super) fn place(&self) -> u8 {
        let mut all = ATTACKS.iter().chain(CROWDS);
        let place = all.position(|attack| attack.name == self.name);
        place
            .and_then(|place| u8::try_from(place).ok())
            .unwrap_or(0)
    }

    const fn spread_over(self, addresses: u16) -> Self {
        Self { addresses, ..self }
    }

    const fn answered_first(self) -> Self {
        Self {
            is_answered_first: true,
            ..self
        }
    }

    const fn over_tls(self) -> Self {
        Self {
            is_over_tls: true,
            ..self
        }
    }

    const fn per_second(self, rate: u32) -> Self {
        Self {
            per_second: Some(rate),
            ..self
        }
    }
}

macro_rules! connection {
    ($function:path) => {
        |wire| Box::pin($function(wire))
    };
}

/// All attacks, by family.
#[rustfmt::skip]
pub(crate) static ATTACKS: &[Attack] = &[
    Attack::crowd("slow-heads", "2,000 connections, HTTP/1.1 heads at a byte a second", 2000, connection!(slow::head)),
    Attack::crowd("slow-prefaces", "2,000 connections, HTTP/2 prefaces at a byte a second", 2000, connection!(slow::preface)),
    Attack::crowd("slow-header-blocks", "2,000 connections, HTTP/2 header blocks at a byte a second", 2000, connection!(slow::header_block)),
    Attack::crowd("slow-bodies", "1,000 connections of a tenant, HTTP/1.1 bodies at a byte a second", 1000, connection!(slow::body)),
    Attack::crowd("slow-bodies-http2", "50 connections of a tenant, 50 HTTP/2 bodies on each at a byte a second", 50, connection!(slow::bodies)),
    Attack::flood("unread-answers", "pipelined HTTP/1.1 requests whose answers nobody reads", connection!(slow::unread)),
    Attack::crowd("zero-window", "200 connections, 50 HTTP/2 requests on each, and no window for their answers", 200, connection!(slow::window)),

    Attack::flood("rapid-reset", "HTTP/2 requests reset at once, no key (CVE-2023-44487)", connection!(resets::rapid_stranger)),
    Attack::flood("rapid-reset-tenant", "the same by a tenant, with its key", connection!(resets::rapid_tenant)),
    Attack::flood("made-you-reset", "HTTP/2 requests that the edge has to reset (CVE-2025-8671)", connection!(resets::made_you_reset)),

    Attack::flood("continuation", "HTTP/2 header blocks that never end, full of headers (CVE-2024-27316)", connection!(floods::continuation_full)),
    Attack::flood("continuation-empty", "the same in empty frames", connection!(floods::continuation_empty)),
    Attack::flood("ping", "PING frames", connection!(floods::ping)),
    Attack::flood("ping-unread", "PING frames, their answers unread", connection!(floods::ping_unread)),
    Attack::flood("settings", "SETTINGS frames", connection!(floods::settings)),
    Attack::flood("priority", "PRIORITY frames", connection!(floods::priority)),
    Attack::flood("window-update", "WINDOW_UPDATE frames of a tenant, a byte each", connection!(floods::window_update)),
    Attack::flood("empty-data", "empty DATA frames of a tenant", connection!(floods::empty_data)),
    Attack::flood("padded-data", "DATA frames of a tenant with padding and no data", connection!(floods::padded_data)),
    Attack::flood("tiny-data", "DATA frames of a tenant with a byte each", connection!(floods::tiny_data)),
    Attack::flood("unknown-frames", "frames of a type that nobody knows", connection!(floods::unknown)),

    Attack::flood("many-headers", "HTTP/1.1 heads with 2,000 headers", connection!(headers::http1_many)),
    Attack::flood("large-headers", "HTTP/1.1 heads of 1 MiB", connection!(headers::http1_large)),
    Attack::flood("many-headers-http2", "HTTP/2 heads with 2,000 headers", connection!(headers::http2_many)),
    Attack::flood("large-headers-http2", "HTTP/2 heads of 1 MiB", connection!(headers::http2_large)),
    Attack::flood("hpack-bomb", "HTTP/2 heads of 16 KB that become 60 MB", connection!(headers::hpack_bomb)),

    Attack::flood("tiny-chunks", "HTTP/1.1 bodies of a tenant in chunks of a byte", connection!(http1::tiny_chunks)),
    Attack::flood("chunk-extension", "HTTP/1.1 chunks of a tenant whose extension never ends", connection!(http1::chunk_extension)),
    Attack::flood("trailers", "HTTP/1.1 trailers of a tenant that never end", connection!(http1::trailers)),
    Attack::flood("empty-lines", "HTTP/1.1 empty lines in the place of a request", connection!(http1::empty_lines)),

    Attack::crowd("idle", "10,000 idle connections from one address", 10_000, connection!(crowds::idle)).spread_over(1),
    Attack::crowd("idle-spread", "10,000 idle connections from 250 addresses", 10_000, connection!(crowds::idle)),
    Attack::flood("churn", "connections opened and reset", connection!(crowds::churn)),

    Attack::flood("guess-malformed", "texts that cannot be keys, HTTP/1.1", connection!(guesses::malformed)),
    Attack::flood("guess-unknown", "keys that nobody was given, HTTP/1.1, one address", connection!(guesses::unknown)),
    Attack::flood("guess-unknown-spread", "the same from 250 addresses", connection!(guesses::unknown)).spread_over(250),
    Attack::flood("guess-grpc", "keys that nobody was given, gRPC", connection!(guesses::unknown_grpc)),

    Attack::flood("bomb-gzip", "gzip 1:1000 of a tenant, 50 a second", connection!(bombs::gzip)).per_second(50),
    Attack::flood("bomb-zstd", "zstd 1:32,000 with a window of 2 TiB of a tenant, 50 a second", connection!(bombs::zstd)).per_second(50),
    Attack::flood("bomb-snappy", "snappy that claims 4 GiB of a tenant, 50 a second", connection!(bombs::snappy)).per_second(50),
    Attack::flood("bombs-no-key", "all three with keys that nobody was given", connection!(bombs::stranger)).per_second(150),

    Attack::flood("post-no-key", "64 MiB posts without a good key, HTTP/1.1", connection!(posts::length)).per_second(50),
    Attack::flood("post-no-key-expect", "the same, expecting 100-continue", connection!(posts::expect)).per_second(50),
    Attack::flood("post-no-key-chunked", "the same, chunked", connection!(posts::chunked)).per_second(50),
    Attack::flood("post-no-key-http2", "the same over HTTP/2", connection!(posts::http2)).per_second(50),
];

/// Those whose memory is measured: connections that do nothing, of one kind each.
#[rustfmt::skip]
pub(crate) static CROWDS: &[Attack] = &[
    Attack::crowd("crowd-http1", "HTTP/1.1 after an accepted request", 10_000, connection!(crowds::http1)).answered_first(),
    Attack::crowd("crowd-http2", "HTTP/2 after an accepted request", 10_000, connection!(crowds::http2)).answered_first(),
    Attack::crowd("crowd-http1-tls", "HTTP/1.1 after an accepted request, over TLS 1.3", 10_000, connection!(over_tls::http1)).answered_first().over_tls(),
    Attack::crowd("crowd-http2-tls", "HTTP/2 after an accepted request, over TLS 1.3", 10_000, connection!(over_tls::http2)).answered_first().over_tls(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let all = || ATTACKS.iter().chain(CROWDS).map(|it| it.name);
        let names: std::collections::BTreeSet<_> = all().collect();
        assert_eq!(names.len(), all().count());
        // They have room in 127.64.0.0/10.
        assert!(names.len() <= 64);
    }
}
