//! What is kept of bodies on their way upstream, so that they can be sent once more: how much of one, and how much of all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::config::ReplaySettings;

/// What a kept frame counts at least: a small one holds on to much more than its own bytes, and its place is not free either.
const FRAME_BYTES_MIN: u64 = 512;

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
    bytes: u64,
    budget: Arc<ReplayBudget>,
}

impl Kept {
    /// Nothing yet; `None` if nothing is to be kept.
    pub(super) fn new(budget: &Arc<ReplayBudget>) -> Option<Self> {
        (budget.settings.body_max.0 > 0).then(|| Self {
            frames: SmallVec::new(),
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
        let bytes = (frame.len() as u64).max(FRAME_BYTES_MIN);
        let ReplaySettings { body_max, budget } = self.budget.settings;
        if self.bytes + bytes > body_max.0 {
            return false;
        }
        self.bytes += bytes;
        self.frames.push(frame.clone());
        let before = self.budget.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
        before + bytes <= budget.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Takes the frame that came first.
    pub(super) fn take_first(&mut self) -> Option<Bytes> {
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
        assert_eq!((0..100_000).take_while(|_| kept.add(&byte)).count(), 128);
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
