//! `[connections]`: what one connection from a sender may do.

use std::time::Duration;

use ops::config::{ByteSize, Section};

use super::longer_than_0;

/// Limits of one connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSettings {
    pub(crate) head_max: ByteSize,
    pub(crate) head_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) streams_max: u32,
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
}

pub(super) fn connections(section: &Section<'_>) -> ConnectionSettings {
    let window = |key, default| {
        let ByteSize(bytes) = section.or(key, ByteSize(default));
        u32::try_from(bytes)
            .ok()
            .filter(|bytes| (65_535..=0x7fff_ffff).contains(bytes))
            .unwrap_or_else(|| {
                section.problem(
                    key,
                    "must be from 64 KiB to 2 GiB - 1 B (RFC 9113 section 6.9.1)",
                );
                65_535
            })
    };
    let settings = ConnectionSettings {
        head_max: section.or("head_max", ByteSize(32 << 10)),
        head_timeout: longer_than_0(section, "head_timeout", Duration::from_secs(10)),
        idle_timeout: longer_than_0(section, "idle_timeout", Duration::from_secs(400)),
        streams_max: section.or("streams_max", 200),
        stream_window: window("stream_window", 1 << 20),
        connection_window: window("connection_window", 8 << 20),
    };
    if settings.head_max == ByteSize(0) {
        section.problem("head_max", "must be at least 1 B");
    }
    if settings.streams_max == 0 {
        section.problem("streams_max", "must be at least 1");
    }
    section.finish();
    settings
}
