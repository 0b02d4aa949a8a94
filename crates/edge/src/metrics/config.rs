//! Metrics of the configuration in force.

use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// Handles of what became of configurations.
pub(crate) struct ConfigMetrics {
    taken: Counter,
    refused: Counter,
    last_successful: Gauge,
    taken_at: Gauge,
}

impl ConfigMetrics {
    pub(super) fn register() -> Self {
        describe_counter!(
            "okmon_edge_config_loads_total",
            "Configurations, the first one included, that were taken over or refused."
        );
        describe_gauge!(
            "okmon_edge_config_last_load_successful",
            "Whether the last configuration was taken over; if not, the one before is in force."
        );
        describe_gauge!(
            "okmon_edge_config_taken_timestamp_seconds",
            "When the configuration in force was taken over."
        );
        let loads =
            |result: &'static str| counter!("okmon_edge_config_loads_total", "result" => result);
        Self {
            taken: loads("taken"),
            refused: loads("refused"),
            last_successful: gauge!("okmon_edge_config_last_load_successful"),
            taken_at: gauge!("okmon_edge_config_taken_timestamp_seconds"),
        }
    }

    /// Notes what became of a configuration.
    pub(crate) fn loaded(&self, taken: bool) {
        self.last_successful.set(f64::from(u8::from(taken)));
        if taken {
            self.taken.increment(1);
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            self.taken_at.set(now.unwrap_or_default().as_secs_f64());
        } else {
            self.refused.increment(1);
        }
    }
}
