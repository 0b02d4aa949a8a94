//! Metrics of what is told beside them: the log and spans.

use metrics::{Counter, counter, describe_counter};

/// Handles of spans.
#[derive(Clone)]
pub(crate) struct SpanMetrics {
    pub(crate) exported: Counter,
    pub(crate) dropped_in_queue: Counter,
    pub(crate) dropped_in_export: Counter,
}

impl SpanMetrics {
    pub(super) fn register() -> Self {
        let dropped = |at: &'static str| counter!("okmon_edge_spans_dropped_total", "at" => at);
        Self {
            exported: counter!("okmon_edge_spans_exported_total"),
            dropped_in_queue: dropped("queue"),
            dropped_in_export: dropped("export"),
        }
    }
}

pub(super) fn describe() {
    describe_counter!(
        "okmon_edge_log_lines_lost_total",
        "Log lines that were lost because standard error was too slow."
    );
    describe_counter!(
        "okmon_edge_spans_exported_total",
        "Spans that somebody took."
    );
    describe_counter!(
        "okmon_edge_spans_dropped_total",
        "Spans that nobody took, or for which there was no room."
    );
}
