//! When requests are due. Closed loop: whenever a stream is free. Open loop: at a fixed rate, by the clock alone, so that a slow
//! answer delays no later request's due time and the wait it causes is measured rather than left out.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

pub(crate) struct Pace {
    start: Instant,
    end: Instant,
    schedule: Option<Schedule>,
}

struct Schedule {
    interval: Duration,
    /// One permit for each request that is due and that no stream has taken.
    due: Arc<Semaphore>,
    taken: Cell<u32>,
}

impl Pace {
    /// Starts now.
    pub(crate) fn closed(duration: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            end: start + duration,
            schedule: None,
        }
    }

    /// Starts now. A thread of its own keeps the time: tokio's timer counts in milliseconds, which is too coarse here.
    pub(crate) fn open(rate: NonZeroU32, duration: Duration) -> Self {
        let start = Instant::now();
        let interval = Duration::from_secs(1) / rate.get();
        let due = Arc::new(Semaphore::new(0));
        let permits = Arc::clone(&due);
        std::thread::spawn(move || release(&permits, start, interval, duration));
        Self {
            start,
            end: start + duration,
            schedule: Some(Schedule {
                interval,
                due,
                taken: Cell::new(0),
            }),
        }
    }

    /// Waits for the next request to be due and returns since when it is; `None` when the run is over.
    pub(crate) async fn next(&self) -> Option<Instant> {
        let Some(schedule) = &self.schedule else {
            let now = Instant::now();
            return (now < self.end).then_some(now);
        };
        schedule.due.acquire().await.ok()?.forget();
        Some(self.start + schedule.interval * schedule.take())
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// Waits for the end, from which on nothing new is sent.
    pub(crate) async fn ended_after(&self, duration: Duration) -> Instant {
        let end = self.start + duration;
        tokio::time::sleep_until(end).await;
        if let Some(schedule) = &self.schedule {
            schedule.due.close();
        }
        end
    }

    /// How long each request had waited that was due before `end` and that no stream was free to send.
    pub(crate) fn unsent(&self, end: Instant) -> impl Iterator<Item = Duration> {
        let schedule = self.schedule.as_ref();
        std::iter::from_fn(move || {
            let schedule = schedule?;
            let waited =
                end.checked_duration_since(self.start + schedule.interval * schedule.taken.get())?;
            schedule.take();
            // What fell due in the last moment is the schedule's edge, not a backlog.
            Some(waited)
        })
        .filter(|waited| *waited > EDGE)
    }
}

/// Due times this close to the end may go unsent without anybody being late.
const EDGE: Duration = Duration::from_millis(2);

impl Schedule {
    fn take(&self) -> u32 {
        self.taken.replace(self.taken.get() + 1)
    }
}

fn release(due: &Semaphore, start: Instant, interval: Duration, duration: Duration) {
    let mut released = 0_u32;
    loop {
        let at = interval * released;
        if at >= duration || due.is_closed() {
            return;
        }
        let elapsed = start.elapsed();
        if let Some(early) = at.checked_sub(elapsed).filter(|early| !early.is_zero()) {
            std::thread::sleep(early);
            continue;
        }
        let now_due = elapsed.as_nanos() / interval.as_nanos().max(1) + 1;
        let more = u32::try_from(now_due)
            .unwrap_or(u32::MAX)
            .saturating_sub(released)
            .max(1);
        due.add_permits(more as usize);
        released += more;
    }
}
