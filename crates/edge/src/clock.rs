//! The time of day that keys expire by. It never goes back while the process runs: where the machine's clock is set back,
//! it goes on from where it was, so that what has expired stays expired. Where the clock is set forward, it follows.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use time::OffsetDateTime;
use tokio::time::Instant;

/// The process's time of day, shared by all cores.
pub(crate) struct Clock {
    started: Instant,
    /// How far the machine's clock was ahead of the time since `started` when it was furthest, in nanoseconds.
    ahead: AtomicI64,
}

/// What the machine's two clocks say, in nanoseconds: the time of day since 1970, and the time since the start, which
/// nobody can set.
#[derive(Debug, Clone, Copy)]
struct Readings {
    of_day: i64,
    since_start: i64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
            ahead: AtomicI64::new(i64::MIN),
        }
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        // In this order: a pause between the two makes the clock look less far ahead, which is mended by the next
        // reading. The other way round it would look further ahead, and stay so.
        let of_day = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => since.as_nanos(),
            Err(_) => 0,
        };
        let since_start = self.started.elapsed().as_nanos();
        self.at(Readings {
            of_day: i64::try_from(of_day).unwrap_or(i64::MAX),
            since_start: i64::try_from(since_start).unwrap_or(i64::MAX),
        })
    }

    fn at(&self, readings: Readings) -> OffsetDateTime {
        let ahead = readings.of_day.saturating_sub(readings.since_start);
        // Written only when it grows: other cores read it too.
        let mut furthest = self.ahead.load(Ordering::Relaxed);
        if ahead > furthest {
            furthest = self.ahead.fetch_max(ahead, Ordering::Relaxed).max(ahead);
        }
        let now = readings.since_start.saturating_add(furthest);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(now))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000_000_000;
    /// A day in 2026.
    const DAY: i64 = 1_780_000_000_000_000_000;

    /// The clock's hours after `DAY`, for each pair of hours after `DAY` and after the start.
    fn hours(readings: &[(i64, i64)]) -> Vec<i64> {
        let clock = Clock::start();
        let readings = readings.iter().map(|(of_day, since_start)| Readings {
            of_day: DAY + of_day * HOUR,
            since_start: since_start * HOUR,
        });
        let now = readings.map(|readings| clock.at(readings).unix_timestamp_nanos());
        now.map(|now| (i64::try_from(now).unwrap() - DAY) / HOUR)
            .collect()
    }

    #[test]
    fn it_goes_with_the_machines_clock() {
        assert_eq!(hours(&[(0, 0), (1, 1), (5, 5)]), [0, 1, 5]);
    }

    #[test]
    fn when_the_clock_is_set_back_time_goes_on() {
        let set_back = [(10, 10), (9, 10), (9, 11), (10, 12), (-90, 13)];
        assert_eq!(hours(&set_back), [10, 10, 11, 12, 13]);
    }

    #[test]
    fn when_the_clock_is_set_forward_it_follows() {
        let set_forward = [(10, 10), (20, 10), (21, 11), (12, 12)];
        assert_eq!(hours(&set_forward), [10, 20, 21, 22]);
    }

    #[test]
    fn the_real_clocks_are_read() {
        let (clock, before) = (Clock::start(), OffsetDateTime::now_utc());
        let now = clock.now();
        assert!(before <= now && now <= OffsetDateTime::now_utc());
    }

    proptest! {
        #[test]
        fn it_never_goes_back(steps in proptest::collection::vec((any::<i64>(), 0..i64::MAX / 64), 0..32)) {
            let (clock, mut since_start) = (Clock::start(), 0);
            let mut last = None;
            for (of_day, later) in steps {
                since_start += later;
                let now = clock.at(Readings { of_day: of_day.max(0), since_start });
                prop_assert!(last.is_none_or(|last| last <= now), "{:?} then {}", last, now);
                last = Some(now);
            }
        }
    }
}
