//! The end: senders are told before they are refused, and refused before they are cut off.

use tracing::{info, warn};

use super::Running;
use crate::config::DrainSettings;

impl Running {
    /// Stops: says so on `/readyz`, goes on accepting for `runtime.drain_delay`, lets connections without a request wait for
    /// `runtime.drain_idle`, answers what is in flight for up to `runtime.drain_max`, then ends. What begins in the second half of
    /// that is refused: it might be cut off.
    ///
    /// How many connections were cut off.
    pub async fn stop(self) -> usize {
        let Self {
            config,
            acme,
            mut listeners,
            mut workers,
            readiness,
            mut tasks,
            mut exports,
            ending,
            stop,
            ..
        } = self;
        let DrainSettings { delay, idle, max } = config.runtime.drain;
        if delay.is_zero() {
            // Who reads that we are draining shall find it so.
            ending.draining.cancel();
        }
        readiness.blocked_by("draining", "the process was told to stop");
        info!(connections = workers.connections(), "the edge stops");
        tokio::time::sleep(delay).await;
        ending.draining.cancel();
        // No authority can look here any more, and who comes after us may want the folder.
        drop(acme);
        listeners.ended().await;
        let closes = async {
            tokio::time::sleep(idle).await;
            ending.closing.cancel();
            tokio::time::sleep((max / 2).saturating_sub(idle)).await;
            ending.refusing.cancel();
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = tokio::time::timeout(max, workers.ended()) => ended.is_ok(),
            () = closes => false,
        };
        let cut_off = if ended { 0 } else { workers.cut_off().await };
        if cut_off > 0 {
            warn!(
                connections = cut_off,
                "cut off: their requests took longer than runtime.drain_max"
            );
        }
        stop.cancel();
        while tasks.join_next().await.is_some() {}
        exports.ended().await;
        cut_off
    }
}
