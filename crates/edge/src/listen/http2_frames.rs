//! Watches the frames of an HTTP/2 connection as their bytes pass, in both directions, and says when one side does what no good
//! sender does. Looks at the nine bytes before each payload (RFC 9113 section 4.1) and never copies or keeps one; the protocol
//! itself, and the limits that need it, are `h2`'s.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::http2_walk::{DATA, Frame, GO_AWAY, HEADERS, RST_STREAM, Walk};

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
/// DATA with less content costs nearly as much to take as DATA without any, and no good sender cuts its bodies so small.
const CONTENT_BYTES_MIN: usize = 16;
/// DATA of so many bytes forgives a frame: a long body is sent with others in between, and ends some windows with a few bytes.
const CONTENT_BYTES_FORGIVING: usize = 1024;
/// What one request forgives: frames that good senders send along with it, such as the pings by which gRPC measures the path.
const FORGIVEN_PER_REQUEST: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// So many streams that were answered whole are remembered: more than can be under way at a time by default.
const ANSWERED_MAX: usize = 256;
/// Heads above the limits that are taken from one connection in a minute. Each costs as much as many requests, and a sender that
/// has one learns nothing from more; HTTP/1.1 ends with the first.
const LARGE_HEADS_MAX: u32 = 10;

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
    /// Without content, or with hardly any.
    EmptyData,
    Continuations,
    UnknownFrames,
    /// Heads above the limits, again and again.
    LargeHeads,
    /// What is no HTTP/2: `h2` ended the connection.
    ProtocolErrors,
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
    large_heads: Budget,
    /// The last stream that the sender began, and how many.
    last_stream: u32,
    begun: u32,
    /// Streams that we had to reset, ever.
    provoked_ever: u32,
    /// Heads that `h2` refused by itself, as far as they were counted.
    unserved: u32,
    /// How many bytes of explanation our GOAWAY had.
    said_bytes: usize,
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
            large_heads: budget(),
            last_stream: 0,
            begun: 0,
            provoked_ever: 0,
            unserved: 0,
            said_bytes: 0,
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
            Some(padding) if frame.kind == DATA => {
                let content = frame.length - 1;
                self.takes_data(frame, content.saturating_sub(padding as usize))
            }
            // Why the sender reset it does not matter; that it did was counted at the head.
            Some(_) => None,
            None if frame.is_padded_data() => None,
            None if frame.kind == DATA => self.takes_data(frame, frame.length),
            None => self.takes(frame),
        });
        self.received = walk;
        found
    }

    fn takes(&mut self, frame: Frame) -> Option<Abuse> {
        let kind = match frame.kind {
            0x1 => {
                if frame.stream > self.last_stream {
                    self.last_stream = frame.stream;
                    self.begun = self.begun.wrapping_add(1);
                }
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
        self.takes_useless(kind)
    }

    /// Looks at DATA of which `content` bytes are no padding.
    fn takes_data(&mut self, frame: Frame, content: usize) -> Option<Abuse> {
        if content >= CONTENT_BYTES_FORGIVING {
            self.control.forgive(1);
        }
        if content >= CONTENT_BYTES_MIN || frame.flags & END_STREAM != 0 {
            return None;
        }
        self.takes_useless(Abuse::EmptyData)
    }

    fn takes_useless(&mut self, kind: Abuse) -> Option<Abuse> {
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
            if frame.kind == GO_AWAY {
                self.said_bytes = frame.length.saturating_sub(8);
            }
            let reset = code.filter(|_| frame.kind == RST_STREAM);
            let provoked = reset.is_some_and(|code| !OURS.contains(&code));
            if provoked {
                self.provoked_ever = self.provoked_ever.wrapping_add(1);
            }
            let within = !provoked || self.provoked.take(self.limits.provoked_resets);
            (!within).then_some(Abuse::ProvokedResets)
        });
        self.sent = walk;
        found
    }

    /// Counts a head above the limits.
    pub(crate) fn large_head(&mut self) -> Option<Abuse> {
        (!self.large_heads.take(LARGE_HEADS_MAX)).then_some(Abuse::LargeHeads)
    }

    /// How many heads more `h2` has refused by itself, of which we see neither a request nor a reset: those above its own limit for
    /// them. `served` is how many requests it gave us; to be asked when it has nothing left to read or to write.
    pub(crate) fn refused_unseen(&mut self, served: u32) -> u32 {
        let incomplete = self.headers_since.is_some() || self.received.is_within_payload();
        let seen = self.provoked_ever.wrapping_add(served);
        let unserved = self.begun.wrapping_sub(seen).cast_signed() - i32::from(incomplete);
        let unserved = u32::try_from(unserved).unwrap_or(0);
        let more = unserved.saturating_sub(self.unserved);
        self.unserved += more;
        more
    }

    /// Since when a block of headers has been coming that is not complete.
    pub(crate) const fn headers_since(&self) -> Option<Instant> {
        self.headers_since
    }

    /// How many bytes of explanation our last GOAWAY had.
    pub(crate) const fn said_bytes(&self) -> usize {
        self.said_bytes
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
    use crate::listen::http2_walk::PADDED;

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
            (frame(0x0, 0, b"x"), 20, Abuse::EmptyData),
            (frame(0x0, PADDED, &[0]), 20, Abuse::EmptyData),
            (frame(0x0, PADDED, &[99; 100]), 20, Abuse::EmptyData),
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
            // The prefix of a gRPC message may come by itself.
            frame(0x0, 0, &[0; 5]),
            frame(0x0, 0, &[7; 9000]),
            frame(0x0, PADDED, &[2; 100]),
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

    #[test]
    fn a_body_without_end_may_have_frames_of_a_few_bytes_and_others_in_between() {
        let piece = [
            frame(0x0, 0, &[7; 16_384]),
            frame(0x0, 0, &[7; 1024]),
            frame(0x0, 0, &[7; 3]),
            frame(0x6, 0, &[0; 8]),
        ]
        .concat();
        let mut frames = watched();
        for _ in 0..10_000 {
            assert_eq!(frames.received(&piece), None);
        }
    }

    #[test]
    fn heads_that_neither_became_a_request_nor_were_reset_are_found_once() {
        let mut frames = watched();
        for stream in [1_u8, 3, 5, 7] {
            let mut head = frame(0x1, END_HEADERS, &[0; 4]);
            head[8] = stream;
            frames.received(&head);
            // Trailers begin no stream.
            frames.received(&head);
        }
        frames.sent(&frame(0x3, 0, &1_u32.to_be_bytes()));
        assert_eq!(frames.refused_unseen(1), 2);
        assert_eq!(frames.refused_unseen(1), 0);
        let mut head = frame(0x1, END_HEADERS, &[0; 4]);
        head[8] = 9;
        frames.received(&head[..12]);
        assert_eq!(frames.refused_unseen(1), 0, "it is still coming");
        frames.received(&head[12..]);
        assert_eq!(frames.refused_unseen(2), 0);
        for _ in 0..LARGE_HEADS_MAX {
            assert_eq!(frames.large_head(), None);
        }
        assert_eq!(frames.large_head(), Some(Abuse::LargeHeads));
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
