//! `[connections]`: what one connection from a sender may do.

use std::time::Duration;

use ops::config::{ByteSize, Section};

use super::longer_than_0;
use crate::listen::http1_head::HEADERS_MAX;
use crate::listen::http2_frames::FrameLimits;

/// Limits of one connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSettings {
    pub(crate) open_max: usize,
    /// How many of those no valid key was shown on.
    pub(crate) strangers_max: usize,
    /// 0 is no limit.
    pub(crate) open_per_address_max: usize,
    /// How long one stays on which no valid key was shown.
    pub(crate) stranger_timeout: Duration,
    /// When it is asked to be opened anew; a tenth more or less by chance.
    pub(crate) age_max: Duration,
    /// How long requests may take after that.
    pub(crate) age_grace: Duration,
    /// 0 is no limit.
    pub(crate) requests_max: u64,
    pub(crate) headers_max: usize,
    pub(crate) frames: FrameLimits,
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
    let count = |key, default: u32| section.or(key, default) as usize;
    let settings = ConnectionSettings {
        open_max: count("open_max", 10_000),
        strangers_max: count("strangers_max", 3_000),
        open_per_address_max: count("open_per_address_max", 2_000),
        stranger_timeout: longer_than_0(section, "stranger_timeout", Duration::from_secs(20)),
        age_max: longer_than_0(section, "age_max", Duration::from_hours(1)),
        age_grace: section.or("age_grace", Duration::from_secs(30)),
        requests_max: section.or("requests_max", 0_u64),
        headers_max: count("headers_max", 100),
        frames: FrameLimits {
            control_frames: section.or("control_frames_max", 1_000),
            resets: section.or("resets_max", 500),
            provoked_resets: section.or("provoked_resets_max", 100),
        },
        head_max: section.or("head_max", ByteSize(32 << 10)),
        head_timeout: longer_than_0(section, "head_timeout", Duration::from_secs(10)),
        idle_timeout: longer_than_0(section, "idle_timeout", Duration::from_secs(400)),
        streams_max: section.or("streams_max", 200),
        stream_window: window("stream_window", 64 << 10),
        connection_window: window("connection_window", 1 << 20),
    };
    if settings.head_max == ByteSize(0) {
        section.problem("head_max", "must be at least 1 B");
    }
    if settings.streams_max == 0 {
        section.problem("streams_max", "must be at least 1");
    }
    if settings.open_max == 0 {
        section.problem("open_max", "must be at least 1");
    }
    if settings.strangers_max == 0 {
        section.problem("strangers_max", "must be at least 1");
    }
    if !(1..=HEADERS_MAX).contains(&settings.headers_max) {
        let message = format!("must be from 1 to {HEADERS_MAX}");
        section.problem("headers_max", message);
    }
    section.finish();
    settings
}
