//! A time limit on lack of progress. Decides when a wait has been too long; what follows is for the waiter.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Counts from the first wait after the last progress. Progress itself costs nothing: the timer is left to run and is set
/// anew only if it fires too early.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// Notes that something moved.
    pub(crate) fn progress(&mut self) {
        self.deadline = None;
    }

    /// Ready when nothing has moved for `limit`. Call it only when there is nothing to do but wait.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + limit);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
