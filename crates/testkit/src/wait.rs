//! Waiting for a state instead of sleeping for a time.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

/// How often a state is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Asks `probe` until it answers `Ok`, and returns that answer.
///
/// # Panics
/// When `deadline` has passed: the text has `what` and the last state, that is `probe`'s last error.
pub fn eventually<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match probe() {
            Ok(found) => return found,
            Err(state) if started.elapsed() >= deadline => {
                panic!("{what}: not within {deadline:?}; last state: {state}")
            }
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}
