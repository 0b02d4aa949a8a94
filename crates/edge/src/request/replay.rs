//! What is kept of bodies on their way upstream, so that they can be sent once more: how much of one, and how much of all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::config::ReplaySettings;

/// What a shared frame counts at least: a small one holds on to much more than its own bytes, and its place is not free either.
const FRAME_BYTES_MIN: u64 = 512;
/// Smaller frames than this are copied together, but for the first, which is often all of a body: each holds on to the buffer that
/// it was read into, four times as much as this. A body that drips would hold a buffer for each byte.
const SHARED_BYTES_MIN: usize = 16 * 1024;

/// What may be kept of bodies, all workers together.
#[derive(Debug)]
pub(crate) struct ReplayBudget {
    settings: ReplaySettings,
    kept_bytes: AtomicU64,
}

impl ReplayBudget {
    pub(crate) const fn new(settings: ReplaySettings) -> Self {
        Self {
            settings,
            kept_bytes: AtomicU64::new(0),
        }
    }
}

/// Frames of a body, shared with whoever else holds them; counted in the budget while they are held.
pub(super) struct Kept {
    frames: SmallVec<[Bytes; 2]>,
    /// Small frames after those.
    copied: BytesMut,
    bytes: u64,
    budget: Arc<ReplayBudget>,
}

impl Kept {
    /// Nothing yet; `None` if nothing is to be kept.
    pub(super) fn new(budget: &Arc<ReplayBudget>) -> Option<Self> {
        (budget.settings.body_max.0 > 0).then(|| Self {
            frames: SmallVec::new(),
            copied: BytesMut::new(),
            bytes: 0,
            budget: Arc::clone(budget),
        })
    }

    /// Forgets what it has, and begins again.
    pub(super) fn anew(self) -> Option<Self> {
        Self::new(&self.budget)
    }

    /// Keeps `frame` too; `false` when that would be too much.
    pub(super) fn add(&mut self, frame: &Bytes) -> bool {
        let is_shared = frame.len() >= SHARED_BYTES_MIN || self.is_empty();
        let least = if is_shared { FRAME_BYTES_MIN } else { 0 };
        let bytes = (frame.len() as u64).max(least);
        let ReplaySettings { body_max, budget } = self.budget.settings;
        if self.bytes + bytes > body_max.0 {
            return false;
        }
        self.bytes += bytes;
        if is_shared {
            self.end_copied();
            self.frames.push(frame.clone());
        } else {
            self.copied.extend_from_slice(frame);
        }
        let before = self.budget.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
        before + bytes <= budget.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.copied.is_empty()
    }

    fn end_copied(&mut self) {
        if !self.copied.is_empty() {
            self.frames.push(self.copied.split().freeze());
        }
    }

    /// Takes the frame that came first.
    pub(super) fn take_first(&mut self) -> Option<Bytes> {
        self.end_copied();
        (!self.frames.is_empty()).then(|| self.frames.remove(0))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget
            .kept_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use ops::config::ByteSize;

    use super::*;

    fn budget(body_max: u64, budget: u64) -> Arc<ReplayBudget> {
        Arc::new(ReplayBudget::new(ReplaySettings {
            body_max: ByteSize(body_max),
            budget: ByteSize(budget),
        }))
    }

    fn kept_bytes(budget: &ReplayBudget) -> u64 {
        budget.kept_bytes.load(Ordering::Relaxed)
    }

    #[test]
    fn no_more_is_kept_of_a_body_than_set_however_small_its_frames() {
        let budget = budget(64 << 10, 1 << 20);
        let mut kept = Kept::new(&budget).unwrap();
        assert!(kept.add(&vec![7; 40_000].into()));
        assert!(!kept.add(&vec![7; 40_000].into()));
        let mut kept = Kept::new(&budget).unwrap();
        let byte = Bytes::from_static(b"x");
        let fit = (0..100_000).take_while(|_| kept.add(&byte)).count();
        assert_eq!(fit, (64 << 10) - 512 + 1);
    }

    #[test]
    fn a_body_that_drips_holds_on_to_none_of_the_buffers_it_was_read_into() {
        let budget = budget(256 << 10, 1 << 20);
        let mut kept = Kept::new(&budget).unwrap();
        let mut sent = Vec::new();
        let sizes = [100, 1, 7, 16 << 10, 3, 9_000, 40 << 10, 1];
        for (n, size) in sizes.into_iter().enumerate() {
            let buffer = Bytes::from(vec![u8::try_from(n).unwrap(); 64 << 10]);
            let frame = buffer.slice(..size);
            sent.extend_from_slice(&frame);
            drop(buffer);
            assert!(kept.add(&frame));
            let is_shared = !frame.is_unique();
            assert_eq!(is_shared, n == 0 || size >= 16 << 10, "frame {n}");
        }
        let again: Vec<_> = std::iter::from_fn(|| kept.take_first()).flatten().collect();
        assert_eq!(again, sent);
        assert!(kept.is_empty());
    }

    #[test]
    fn all_bodies_together_keep_no_more_than_the_budget_and_give_it_back() {
        let budget = budget(64 << 10, 100_000);
        let frame = Bytes::from(vec![7; 60_000]);
        let mut first = Kept::new(&budget).unwrap();
        let mut second = Kept::new(&budget).unwrap();
        assert!(first.add(&frame));
        assert!(!second.add(&frame));
        drop(second);
        assert_eq!(kept_bytes(&budget), 60_000);
        let first = first.anew().unwrap();
        assert_eq!(kept_bytes(&budget), 0);
        assert!(first.is_empty());
    }

    #[test]
    fn a_bound_of_0_keeps_nothing() {
        assert!(Kept::new(&budget(0, 1 << 20)).is_none());
    }
}
