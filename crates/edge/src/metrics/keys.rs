//! Metrics of keys: held, followed, used, and what wrong ones cost.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// Handles of what is written down about the use of keys.
#[derive(Clone)]
pub(crate) struct UseMetrics {
    pub(crate) waiting: Gauge,
    pub(crate) write_errors: Counter,
    pub(crate) dropped_keys: Counter,
    pub(crate) dropped_user_agents: Counter,
    pub(crate) dropped_addresses: Counter,
}

impl UseMetrics {
    pub(super) fn register() -> Self {
        let dropped =
            |what: &'static str| counter!("okmon_edge_key_uses_dropped_total", "what" => what);
        Self {
            waiting: gauge!("okmon_edge_key_uses_waiting"),
            write_errors: counter!("okmon_edge_key_use_write_errors_total"),
            dropped_keys: dropped("key"),
            dropped_user_agents: dropped("user_agent"),
            dropped_addresses: dropped("address"),
        }
    }
}

pub(super) fn describe() {
    describe_gauge!("okmon_edge_keys_held", "Keys in memory.");
    describe_counter!(
        "okmon_edge_key_fetches_total",
        "Keys asked of the database."
    );
    describe_counter!(
        "okmon_edge_key_fetch_errors_total",
        "Questions to the database about keys that failed."
    );
    describe_counter!(
        "okmon_edge_key_rows_bad_total",
        "Times that a key's row was not valid: the key's last good state goes on being served, a new key waits."
    );
    describe_counter!(
        "okmon_edge_key_changes_total",
        "Changes to keys and tenants that were followed."
    );
    describe_counter!(
        "okmon_edge_key_reloads_total",
        "Times that all keys were read from the database."
    );
    describe_gauge!(
        "okmon_edge_key_data_age_seconds",
        "How far the keys in memory are behind the database."
    );
    describe_gauge!(
        "okmon_edge_key_database_up",
        "Whether the database of the keys answers, and is the right one."
    );
    describe_gauge!(
        "okmon_edge_key_snapshot_bytes",
        "Size of the copy of the keys on disk, when it was last written."
    );
    describe_counter!(
        "okmon_edge_key_snapshot_errors_total",
        "Times that the copy of the keys on disk could not be written or read."
    );
    describe_gauge!(
        "okmon_edge_key_uses_waiting",
        "Keys that were used, which is not written to the database yet."
    );
    describe_counter!(
        "okmon_edge_key_use_write_errors_total",
        "Times that the use of keys could not be written to the database; it is tried again."
    );
    describe_counter!(
        "okmon_edge_key_uses_dropped_total",
        "Uses of keys that were not written down because there were too many: of a key, or of what it was used by."
    );
    describe_counter!(
        "okmon_edge_auth_budget_exhausted_total",
        "Times that an address used up its budget of failed authentications."
    );
    describe_gauge!(
        "okmon_edge_auth_addresses",
        "Addresses with failed authentications that are remembered."
    );
    describe_gauge!(
        "okmon_edge_auth_dead_keys",
        "Refused keys that are remembered, to be asked to wait longer each time."
    );
}
