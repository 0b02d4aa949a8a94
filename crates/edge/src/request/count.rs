//! COUNT: how many items a body holds, found while it passes: on the same frames, before they go on. Decides which bodies are
//! counted and what memory that may take; what an item is, is for `wire::count` to say. A body that cannot be counted
//! passes all the same: its backend judges it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use wire::count::{BodyCounter, Bounds, Scratch, Uncounted};

use super::route::Media;
use crate::config::CountSettings;

/// How much is looked at before other requests have their turn, in inflated bytes: a fraction of a millisecond's work.
const WORK_BYTES: usize = 256 * 1024;

/// What counting found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Counted {
    /// Nothing was to be counted.
    #[default]
    Off,
    /// The body is not over.
    Unfinished,
    Items(u64),
    Uncounted(Uncounted),
}

/// What all workers may keep of bodies that are being inflated.
#[derive(Debug)]
pub(crate) struct CountMemory {
    settings: CountSettings,
    kept_bytes: AtomicU64,
}

impl CountMemory {
    pub(crate) const fn new(settings: CountSettings) -> Self {
        Self {
            settings,
            kept_bytes: AtomicU64::new(0),
        }
    }
}

/// What one body keeps of that, until it is dropped.
struct Share {
    memory: Arc<CountMemory>,
    bytes: u64,
}

impl Share {
    /// Takes so many bytes in all; `false` when that is more than there is.
    fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        self.bytes += more;
        let before = self.memory.kept_bytes.fetch_add(more, Ordering::Relaxed);
        before + more <= self.memory.settings.memory.0
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory
            .kept_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The count of one body while it passes.
pub(crate) struct Counting {
    counter: BodyCounter,
    scratch: Rc<RefCell<Scratch>>,
    share: Share,
    /// A frame that is being looked at, and how much of it was.
    looking_at: Option<(Bytes, usize)>,
}

impl Counting {
    /// A count for a body of this form; `None` where none is wanted.
    pub(crate) fn new(
        media: &Media,
        memory: &Arc<CountMemory>,
        scratch: &Rc<RefCell<Scratch>>,
    ) -> Option<Self> {
        let settings = memory.settings;
        if !settings.is_on {
            return None;
        }
        let bounds = Bounds {
            inflated_max_bytes: settings.inflated_max.0,
            ratio_max: settings.ratio_max,
        };
        Some(Self {
            counter: BodyCounter::new(media.written, media.coding, media.framing, bounds),
            scratch: Rc::clone(scratch),
            share: Share {
                memory: Arc::clone(memory),
                bytes: 0,
            },
            looking_at: None,
        })
    }

    /// Whether a frame is still being looked at.
    pub(crate) const fn is_busy(&self) -> bool {
        self.looking_at.is_some()
    }

    /// Whether nothing more needs to be looked at: the body cannot be counted.
    pub(crate) const fn has_failed(&self) -> bool {
        self.counter.has_failed()
    }

    /// Begins to look at a frame.
    pub(crate) fn begin(&mut self, frame: Bytes) {
        self.looking_at = Some((frame, 0));
    }

    /// Goes on with the frame, for as long as is fair; gives it back when it was looked at.
    pub(crate) fn go_on(&mut self) -> Option<Bytes> {
        let (frame, at) = self.looking_at.as_mut()?;
        let mut rest = frame.get(*at..).unwrap_or_default();
        let is_done = self
            .counter
            .push(&mut rest, &mut self.scratch.borrow_mut(), WORK_BYTES);
        *at = frame.len() - rest.len();
        if !self.share.grow_to(self.counter.kept_bytes()) {
            self.counter.fail(Uncounted::Memory);
        }
        if !is_done {
            return None;
        }
        self.looking_at.take().map(|(frame, _)| frame)
    }

    /// The body is over.
    pub(crate) fn finish(self) -> Counted {
        match self.counter.finish(&mut self.scratch.borrow_mut()) {
            Ok(items) => Counted::Items(items),
            Err(why) => Counted::Uncounted(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use ops::config::ByteSize;
    use wire::count::{Coding, Format, Framing, Written};

    use super::*;

    #[test]
    fn what_all_bodies_keep_is_bounded_and_comes_back() {
        let memory = Arc::new(CountMemory::new(CountSettings {
            is_on: true,
            inflated_max: ByteSize(1 << 30),
            ratio_max: 1_000_000,
            memory: ByteSize(1 << 20),
        }));
        let scratch = Rc::default();
        let media = Media {
            content_type: HeaderValue::from_static("application/x-protobuf"),
            content_encoding: None,
            written: Written::Protobuf(Format::LokiPush),
            coding: Coding::SnappyBlock,
            framing: Framing::None,
        };
        // 700 KiB of fields that nobody knows, and not the end of it.
        let inside = [0x78, 0].repeat(350 << 10);
        let mut block = snap::raw::Encoder::new().compress_vec(&inside).unwrap();
        block.pop();
        let begin = || {
            let mut counting = Counting::new(&media, &memory, &scratch).unwrap();
            counting.begin(block.clone().into());
            while counting.is_busy() {
                let _ = counting.go_on();
            }
            counting
        };
        let first = begin();
        assert!(!first.has_failed());
        let second = begin();
        assert!(second.has_failed(), "there is not as much again");
        let why = Counted::Uncounted(Uncounted::Memory);
        assert_eq!(second.finish(), why);
        drop(first);
        assert_eq!(memory.kept_bytes.load(Ordering::Relaxed), 0);
        assert!(!begin().has_failed());
    }
}
