//! Tells systemd, where it has started us, how far we are (`sd_notify(3)`, `Type=notify-reload`). Without systemd nothing is told.

use sd_notify::NotifyState;
use tracing::warn;

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager cannot be told how far we are");
    }
}

/// Ready: also after a reload, whether it was taken over or refused.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reading the configuration again.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "the monotonic clock cannot be read"),
    }
}

/// Finishing what is in flight.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}
