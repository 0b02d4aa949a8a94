//! A body as it comes from a client: gRPC's prefix is taken off, compression undone, and what is left given to whatever
//! counts it. Decides how much of that is worth doing; when, and at whose cost, is for the caller to say.

use super::inflate::{Coding, Inflater, STEP_BYTES, Step};
use super::{Counter, Format, JsonCounter, JsonFormat, Uncounted};
use crate::grpc::{PREFIX_LEN, Prefix};

/// In what the items are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Protobuf.
    Protobuf(Format),
    /// JSON.
    Json(JsonFormat),
}

/// What is around the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Nothing.
    None,
    /// gRPC's prefix, which says whether the coding is used, before one message.
    Grpc,
}

/// How much is inflated of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// At most so many bytes.
    pub inflated_max_bytes: u64,
    /// At most so many times the bytes that came, beyond the first [`Bounds::RATIO_FREE_BYTES`].
    pub ratio_max: u64,
}

impl Bounds {
    /// What any body may inflate to, in bytes: a small one may be as repetitive as it likes.
    pub const RATIO_FREE_BYTES: u64 = 1 << 20;
}

/// Memory that bodies use one after the other.
pub struct Scratch {
    inflated: Box<[u8]>,
    window: Vec<u8>,
}

impl Scratch {
    /// A larger window than this is not kept for the next body.
    const WINDOW_KEPT_MAX: usize = 1 << 20;

    /// Memory for one body at a time.
    pub fn new() -> Self {
        Self {
            inflated: vec![0; STEP_BYTES].into_boxed_slice(),
            window: Vec::new(),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Whatever counts.
pub(super) enum Items {
    Protobuf(Counter),
    Json(JsonCounter),
}

impl Items {
    pub(super) fn push(&mut self, inflated: &[u8]) {
        match self {
            Self::Protobuf(counter) => counter.push(inflated),
            Self::Json(counter) => counter.push(inflated),
        }
    }

    const fn failed(&self) -> Option<Uncounted> {
        match self {
            Self::Protobuf(counter) => counter.failed(),
            Self::Json(counter) => counter.failed(),
        }
    }

    fn finish(self) -> Result<u64, Uncounted> {
        match self {
            Self::Protobuf(counter) => counter.finish(),
            Self::Json(counter) => counter.finish(),
        }
    }
}

/// gRPC's one message.
enum Message {
    /// So many bytes of the prefix have come.
    Prefix([u8; PREFIX_LEN], usize),
    /// So many bytes of the message are still to come.
    Content(u64),
}

/// Counts the items of one body, given as it comes from the client.
///
/// ```
/// use wire::count::{BodyCounter, Bounds, Coding, Format, Framing, Scratch, Written};
/// let bounds = Bounds { inflated_max_bytes: 1 << 20, ratio_max: 100 };
/// let written = Written::Protobuf(Format::LokiPush);
/// let mut counter = BodyCounter::new(written, Coding::Identity, Framing::None, bounds);
/// let mut scratch = Scratch::new();
/// let mut frame: &[u8] = &[0x0a, 0x02, 0x12, 0x00];
/// assert!(counter.push(&mut frame, &mut scratch, 1 << 20));
/// assert_eq!(counter.finish(&mut scratch), Ok(1));
/// ```
pub struct BodyCounter {
    message: Option<Message>,
    coding: Coding,
    inflater: Inflater,
    items: Items,
    bounds: Bounds,
    received_bytes: u64,
    inflated_bytes: u64,
    failed: Option<Uncounted>,
}

impl BodyCounter {
    /// What a step costs beside its bytes, as bytes: members of gzip may be empty.
    const STEP_COST: usize = 1024;

    /// A counter at the beginning of a body.
    pub fn new(written: Written, coding: Coding, framing: Framing, bounds: Bounds) -> Self {
        let (message, now) = match framing {
            Framing::None => (None, coding),
            // The prefix says whether it is compressed.
            Framing::Grpc => (Some(Message::Prefix([0; PREFIX_LEN], 0)), Coding::Identity),
        };
        Self {
            message,
            coding,
            inflater: Inflater::new(now),
            items: match written {
                Written::Protobuf(format) => Items::Protobuf(Counter::new(format)),
                Written::Json(format) => Items::Json(JsonCounter::new(format)),
            },
            bounds,
            received_bytes: 0,
            inflated_bytes: 0,
            failed: None,
        }
    }

    /// Takes bytes of the body off the front of `rest`. Stops when about `work_bytes` were looked at: `false` means that there is more to
    /// do with what is here, though `rest` may be empty.
    pub fn push(&mut self, rest: &mut &[u8], scratch: &mut Scratch, work_bytes: usize) -> bool {
        let mut work_left = work_bytes;
        while self.failed.is_none() {
            let before = rest.len();
            let step = match self.step(rest, scratch) {
                Ok(step) => step,
                Err(failed) => {
                    self.failed = Some(failed);
                    break;
                }
            };
            if !step.has_more {
                return true;
            }
            let looked_at = step.inflated.max(before - rest.len()) + Self::STEP_COST;
            work_left = work_left.saturating_sub(looked_at);
            if work_left == 0 {
                return false;
            }
        }
        *rest = &[];
        true
    }

    /// Gives the body up.
    pub fn fail(&mut self, why: Uncounted) {
        self.failed.get_or_insert(why);
    }

    /// Whether there will be no number, so that what is still to come need not be pushed.
    pub const fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// How much memory this keeps until more comes, in bytes.
    pub fn kept_bytes(&self) -> u64 {
        self.inflater.kept_bytes(self.inflated_bytes)
    }

    /// The number of items, once all of the body was pushed.
    ///
    /// # Errors
    /// [`Uncounted`] when the body is not what it should be, or beyond the bounds.
    pub fn finish(self, scratch: &mut Scratch) -> Result<u64, Uncounted> {
        let whole = match (self.failed, &self.message) {
            (Some(failed), _) => Err(failed),
            (None, None | Some(Message::Content(0))) => self.inflater.finish(),
            (None, Some(_)) => Err(Uncounted::Framing),
        };
        let window = self.inflater.into_window();
        if window.capacity() > scratch.window.capacity()
            && window.capacity() <= Scratch::WINDOW_KEPT_MAX
        {
            scratch.window = window;
        }
        whole.and_then(|()| self.items.finish())
    }

    fn step(&mut self, rest: &mut &[u8], scratch: &mut Scratch) -> Result<Step, Uncounted> {
        self.take_prefix(rest)?;
        let Scratch { inflated, window } = scratch;
        let step = if let Some(message) = &mut self.message {
            let Message::Content(left) = message else {
                // The prefix is still to come.
                return Ok(Step::NOTHING);
            };
            if *left == 0 && !rest.is_empty() {
                return Err(Uncounted::Framing);
            }
            let here = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
            let (mut part, behind) = rest.split_at_checked(here).unwrap_or_default();
            let step = self
                .inflater
                .step(&mut part, inflated, window, &mut self.items)?;
            let taken = here - part.len();
            *left -= taken as u64;
            self.received_bytes += taken as u64;
            *rest = rest.get(taken..).unwrap_or_default();
            Step {
                has_more: step.has_more || !behind.is_empty(),
                ..step
            }
        } else {
            let before = rest.len();
            let step = self
                .inflater
                .step(rest, inflated, window, &mut self.items)?;
            self.received_bytes += (before - rest.len()) as u64;
            step
        };
        self.inflated_bytes += step.inflated as u64;
        self.check()?;
        Ok(step)
    }

    fn check(&self) -> Result<(), Uncounted> {
        if let Some(failed) = self.items.failed() {
            return Err(failed);
        }
        let Bounds {
            inflated_max_bytes,
            ratio_max,
        } = self.bounds;
        let is = self
            .inflater
            .declared_bytes()
            .map_or(self.inflated_bytes, |declared| {
                declared.max(self.inflated_bytes)
            });
        if is > inflated_max_bytes {
            return Err(Uncounted::TooLarge);
        }
        let may_be = self.received_bytes.saturating_mul(ratio_max);
        if self.inflated_bytes > may_be.max(Bounds::RATIO_FREE_BYTES) {
            return Err(Uncounted::Ratio);
        }
        Ok(())
    }

    /// Reads gRPC's prefix, if that is what comes.
    fn take_prefix(&mut self, rest: &mut &[u8]) -> Result<(), Uncounted> {
        let Some(Message::Prefix(prefix, have)) = &mut self.message else {
            return Ok(());
        };
        while *have < PREFIX_LEN {
            let Some((byte, after)) = rest.split_first() else {
                return Ok(());
            };
            if let Some(place) = prefix.get_mut(*have) {
                *place = *byte;
            }
            *have += 1;
            *rest = after;
        }
        let prefix = Prefix::parse(*prefix).map_err(|_| Uncounted::Framing)?;
        if prefix.compressed {
            self.inflater = Inflater::new(self.coding);
        }
        self.message = Some(Message::Content(u64::from(prefix.length)));
        Ok(())
    }
}
