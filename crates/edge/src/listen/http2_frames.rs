//! Watches the frames of an HTTP/2 connection as their bytes pass, in both directions, and says when one side does what no good
//! sender does. Looks at the nine bytes before each payload (RFC 9113 section 4.1) and never copies or keeps one; the protocol
//! itself, and the limits that need it, are `h2`'s.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// A frame's head: length, type, flags, stream.
const HEAD_BYTES: usize = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
/// What one request forgives: frames that good senders send along with it, such as the pings by which gRPC measures the path.
const FORGIVEN_PER_REQUEST: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// So many streams that were answered whole are remembered: more than can be under way at a time by default.
const ANSWERED_MAX: usize = 256;

/// How much of what is no request is taken from one connection in a minute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLimits {
    /// Frames that carry neither a request nor a body, beyond ten for each request.
    pub(crate) control_frames: u32,
    /// Streams that the sender resets.
    pub(crate) resets: u32,
    /// Streams that we have to reset because the sender broke the protocol.
    pub(crate) provoked_resets: u32,
}

/// What a connection is ended for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abuse {
    /// Streams begun and reset (CVE-2023-44487).
    Resets,
    /// Streams that we are made to reset (CVE-2025-8671).
    ProvokedResets,
    Pings,
    Settings,
    Priorities,
    WindowUpdates,
    EmptyData,
    Continuations,
    UnknownFrames,
}

/// Counts up to a limit each minute; reads the clock only when the limit is reached.
#[derive(Debug)]
struct Budget {
    used: u32,
    since: Instant,
}

impl Budget {
    /// Whether one more is within `limit`.
    fn take(&mut self, limit: u32) -> bool {
        self.used += 1;
        if self.used <= limit {
            return true;
        }
        let now = Instant::now();
        let is_new = now.duration_since(self.since) >= WINDOW;
        if is_new {
            self.used = 1;
            self.since = now;
        }
        is_new
    }

    fn forgive(&mut self, count: u32) {
        self.used = self.used.saturating_sub(count);
    }
}

/// Where one direction is: in a frame's head or in its payload.
#[derive(Debug, Default)]
struct Walk {
    head: [u8; HEAD_BYTES],
    head_filled: usize,
    payload_left: usize,
    /// The first bytes of the payload of a reset: why.
    code: u32,
    code_left: usize,
}

/// A frame's head as far as it matters here.
#[derive(Clone, Copy)]
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;

impl Walk {
    /// Walks over `bytes`, calling `seen` at each frame's head, and with the error code at the end of a reset.
    fn over(
        &mut self,
        mut bytes: &[u8],
        mut seen: impl FnMut(Frame, Option<u32>) -> Option<Abuse>,
    ) -> Option<Abuse> {
        let mut found = None;
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let take = self.payload_left.min(bytes.len());
                let (payload, rest) = bytes.split_at(take);
                bytes = rest;
                self.payload_left -= take;
                if self.code_left > 0 {
                    for byte in payload.iter().take(self.code_left) {
                        self.code = (self.code << 8) | u32::from(*byte);
                    }
                    self.code_left -= self.code_left.min(take);
                    if self.code_left == 0 {
                        found = found.or(seen(self.frame(), Some(self.code)));
                    }
                }
                continue;
            }
            let take = (HEAD_BYTES - self.head_filled).min(bytes.len());
            let (part, rest) = bytes.split_at(take);
            bytes = rest;
            if let Some(place) = self.head.get_mut(self.head_filled..self.head_filled + take) {
                place.copy_from_slice(part);
            }
            self.head_filled += take;
            if self.head_filled == HEAD_BYTES {
                self.head_filled = 0;
                let frame = self.frame();
                self.payload_left = frame.length;
                if frame.kind == RST_STREAM && frame.length == 4 {
                    (self.code, self.code_left) = (0, 4);
                }
                found = found.or(seen(frame, None));
            }
        }
        found
    }

    const fn frame(&self) -> Frame {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        Frame {
            length: (a as usize) << 16 | (b as usize) << 8 | c as usize,
            kind,
            flags,
            // Its first bit means nothing.
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }
}

/// What was seen of one connection.
#[derive(Debug)]
pub(crate) struct Frames {
    limits: FrameLimits,
    received: Walk,
    sent: Walk,
    control: Budget,
    resets: Budget,
    provoked: Budget,
    /// Streams that were answered whole and not reset after, the last ones.
    answered: VecDeque<u32>,
    /// Since when a block of headers has been coming.
    headers_since: Option<Instant>,
    /// CONTINUATION frames without a byte in this block.
    empty_continuations: u32,
    /// How many bytes of the client's preface are to come.
    preface_left: usize,
    /// Frames that carried nothing useful, ever: for whoever shares the time between connections.
    useless: u32,
}

impl Frames {
    /// A connection of which nothing was read yet, not even its preface.
    pub(crate) fn new(limits: FrameLimits) -> Self {
        let since = Instant::now();
        let budget = || Budget { used: 0, since };
        Self {
            limits,
            received: Walk::default(),
            sent: Walk::default(),
            control: budget(),
            resets: budget(),
            provoked: budget(),
            answered: VecDeque::new(),
            headers_since: None,
            empty_continuations: 0,
            preface_left: super::PREFACE.len(),
            useless: 0,
        }
    }

    /// Looks at what came from the sender.
    pub(crate) fn received(&mut self, bytes: &[u8]) -> Option<Abuse> {
        let skip = self.preface_left.min(bytes.len());
        self.preface_left -= skip;
        let bytes = bytes.get(skip..)?;
        let mut walk = std::mem::take(&mut self.received);
        let found = walk.over(bytes, |frame, code| match code {
            // Why the sender reset it does not matter; that it did was counted at the head.
            Some(_) => None,
            None => self.takes(frame),
        });
        self.received = walk;
        found
    }

    fn takes(&mut self, frame: Frame) -> Option<Abuse> {
        let kind = match frame.kind {
            0x0 if frame.length > 0 || frame.flags & END_STREAM != 0 => return None,
            0x0 => Abuse::EmptyData,
            0x1 => {
                self.control.forgive(FORGIVEN_PER_REQUEST);
                self.empty_continuations = 0;
                self.headers_since = (frame.flags & END_HEADERS == 0).then(Instant::now);
                return None;
            }
            0x9 => {
                if frame.flags & END_HEADERS != 0 {
                    self.headers_since = None;
                }
                if frame.length > 0 {
                    return None;
                }
                Abuse::Continuations
            }
            0x3 => {
                self.useless = self.useless.wrapping_add(1);
                let within = if self.was_answered(frame.stream) {
                    self.control.take(self.limits.control_frames)
                } else {
                    self.resets.take(self.limits.resets)
                };
                return (!within).then_some(Abuse::Resets);
            }
            0x2 => Abuse::Priorities,
            0x4 => Abuse::Settings,
            0x6 => Abuse::Pings,
            0x8 => Abuse::WindowUpdates,
            _ => Abuse::UnknownFrames,
        };
        self.useless = self.useless.wrapping_add(1);
        let within = self.control.take(self.limits.control_frames);
        (!within).then_some(kind)
    }

    /// Whether a stream that the sender resets was answered whole, the first time that it is asked. Such a reset takes nothing from us:
    /// libcurl sends one after every answer whose head says that it has no body.
    fn was_answered(&mut self, stream: u32) -> bool {
        let at = self.answered.iter().rposition(|known| *known == stream);
        at.and_then(|at| self.answered.remove(at)).is_some()
    }

    /// Looks at what goes to the sender.
    pub(crate) fn sent(&mut self, bytes: &[u8]) -> Option<Abuse> {
        /// `NO_ERROR` and `CANCEL`: an answer that came before the body's end, and a request that we gave up.
        const OURS: [u32; 2] = [0x0, 0x8];
        let mut walk = std::mem::take(&mut self.sent);
        let found = walk.over(bytes, |frame, code| {
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                if self.answered.len() == ANSWERED_MAX {
                    self.answered.pop_front();
                }
                self.answered.push_back(frame.stream);
            }
            let provoked = code.is_some_and(|code| !OURS.contains(&code));
            let within = !provoked || self.provoked.take(self.limits.provoked_resets);
            (!within).then_some(Abuse::ProvokedResets)
        });
        self.sent = walk;
        found
    }

    /// Since when a block of headers has been coming that is not complete.
    pub(crate) const fn headers_since(&self) -> Option<Instant> {
        self.headers_since
    }

    /// Whether the sender reset a stream lately.
    pub(crate) const fn resets_any(&self) -> bool {
        self.resets.used > 0
    }

    /// How many frames carried nothing useful; wraps around.
    pub(crate) const fn useless(&self) -> u32 {
        self.useless
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: FrameLimits = FrameLimits {
        control_frames: 20,
        resets: 5,
        provoked_resets: 3,
    };

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    fn watched() -> Frames {
        let mut frames = Frames::new(LIMITS);
        assert_eq!(frames.received(crate::listen::PREFACE), None);
        frames
    }

    /// How many of these it takes until the connection is ended, and for what.
    fn endured(one: &[u8]) -> (u32, Abuse) {
        let mut frames = watched();
        for n in 1..1000 {
            if let Some(abuse) = frames.received(one) {
                return (n, abuse);
            }
        }
        panic!("it is endured for ever");
    }

    #[test]
    fn each_kind_of_flood_ends_the_connection_at_its_limit() {
        for (one, limit, abuse) in [
            (frame(0x6, 0, &[0; 8]), 20, Abuse::Pings),
            (frame(0x4, 0, &[]), 20, Abuse::Settings),
            (frame(0x2, 0, &[0; 5]), 20, Abuse::Priorities),
            (frame(0x8, 0, &[0; 4]), 20, Abuse::WindowUpdates),
            (frame(0x0, 0, &[]), 20, Abuse::EmptyData),
            (frame(0x9, 0, &[]), 20, Abuse::Continuations),
            (frame(0x77, 0, b"x"), 20, Abuse::UnknownFrames),
            (frame(0x3, 0, &[0; 4]), 5, Abuse::Resets),
        ] {
            assert_eq!(endured(&one), (limit + 1, abuse));
        }
    }

    #[test]
    fn what_good_senders_do_is_endured_for_ever() {
        let request = [
            frame(0x1, END_HEADERS, &[0; 40]),
            frame(0x0, 0, &[7; 9000]),
            frame(0x0, END_STREAM, &[]),
            frame(0x6, 0, &[0; 8]),
            frame(0x6, 1, &[0; 8]),
            frame(0x8, 0, &[0; 4]),
            frame(0x4, 1, &[]),
        ]
        .concat();
        let mut frames = watched();
        for _ in 0..10_000 {
            assert_eq!(frames.received(&request), None);
        }
    }

    #[test]
    fn a_stream_that_was_answered_whole_may_be_reset_once() {
        let mut frames = watched();
        let of = |stream: u32, mut frame: Vec<u8>| {
            frame[5..9].copy_from_slice(&stream.to_be_bytes());
            frame
        };
        let reset = |stream| of(stream, frame(RST_STREAM, 0, &[0, 0, 0, 5]));
        for stream in (1..4000).step_by(2) {
            let begun = of(stream, frame(HEADERS, END_HEADERS | END_STREAM, &[0; 4]));
            assert_eq!(frames.received(&begun), None);
            let head = of(stream, frame(HEADERS, END_HEADERS, &[0; 4]));
            assert_eq!(frames.sent(&head), None);
            let end = of(stream, frame(DATA, END_STREAM, &[0; 9]));
            assert_eq!(frames.sent(&end), None);
            assert_eq!(frames.received(&reset(stream)), None);
        }
        assert!(!frames.resets_any());
        // What has only begun to be answered was not.
        let head = of(4001, frame(HEADERS, END_HEADERS, &[0; 4]));
        assert_eq!(frames.sent(&head), None);
        for stream in [4001, 1, 3, 5, 3999] {
            assert_eq!(frames.received(&reset(stream)), None);
        }
        assert_eq!(frames.received(&reset(7)), Some(Abuse::Resets));
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_later_as_much_again_is_endured() {
        let mut frames = watched();
        let ping = frame(0x6, 0, &[0; 8]);
        for _ in 0..3 {
            for _ in 0..20 {
                assert_eq!(frames.received(&ping), None);
            }
            tokio::time::advance(WINDOW).await;
        }
    }

    #[test]
    fn resets_are_held_against_the_sender_when_it_made_us_reset() {
        let mut frames = watched();
        for code in [0_u32, 8].repeat(100) {
            assert_eq!(frames.sent(&frame(0x3, 0, &code.to_be_bytes())), None);
        }
        let provoked = frame(0x3, 0, &1_u32.to_be_bytes());
        for _ in 0..3 {
            assert_eq!(frames.sent(&provoked), None);
        }
        assert_eq!(frames.sent(&provoked), Some(Abuse::ProvokedResets));
    }

    #[test]
    fn headers_that_keep_coming_are_noticed() {
        let mut frames = watched();
        assert!(frames.headers_since().is_none());
        frames.received(&frame(0x1, 0, &[0; 4]));
        frames.received(&frame(0x9, 0, &[0; 4]));
        assert!(frames.headers_since().is_some());
        frames.received(&frame(0x9, END_HEADERS, &[0; 4]));
        assert!(frames.headers_since().is_none());
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(
            frames in prop::collection::vec((0_u8..12, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..60),
            cuts in prop::collection::vec(1_usize..50, 1..20),
        ) {
            let bytes = [
                crate::listen::PREFACE.to_vec(),
                frames.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, payload)).collect(),
            ].concat();
            let mut whole = Frames::new(LIMITS);
            let expected = whole.received(&bytes);
            let mut cut = Frames::new(LIMITS);
            let mut found = None;
            let mut rest = &bytes[..];
            for size in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (part, after) = rest.split_at((*size).min(rest.len()));
                found = found.or(cut.received(part));
                rest = after;
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(cut.useless(), whole.useless());
        }
    }
}
