//! Where the items of each format are: which fields lead to them. Sources: opentelemetry-proto `*/v1/*.proto`, prometheus
//! `prompb/`, grafana/loki `pkg/push/push.proto`.

/// What a body is, by its route and content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OTLP traces; the items are spans.
    Traces,
    /// OTLP metrics; the items are data points.
    Metrics,
    /// OTLP logs; the items are log records.
    Logs,
    /// OTLP profiles as of the development schema; the items are samples.
    Profiles,
    /// Remote write 1.0; the items are samples and native histograms.
    RemoteWrite1,
    /// Remote write 2.0; the items are samples and native histograms.
    RemoteWrite2,
    /// Loki push; the items are log lines.
    LokiPush,
}

/// The most messages that are open above an item.
pub(super) const DEPTH_MAX: usize = 4;

/// How many messages are open inside a metric, whose data is of one kind only.
pub(super) const METRIC: usize = 3;

/// What to do with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Pass over it.
    Skip,
    /// It is an item.
    Count,
    /// Items are further inside.
    Enter,
    /// Likewise, but only one of several such fields is in effect: the last.
    EnterKind(u32),
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] = [
        Self::Traces,
        Self::Metrics,
        Self::Logs,
        Self::Profiles,
        Self::RemoteWrite1,
        Self::RemoteWrite2,
        Self::LokiPush,
    ];

    /// What `field` is when `depth` messages are open.
    #[inline]
    pub(super) const fn step(self, depth: usize, field: u32) -> Step {
        match self {
            // resource_spans, scope_spans, spans; resource_logs, scope_logs, log_records
            Self::Traces | Self::Logs => match (depth, field) {
                (0, 1) | (1, 2) => Step::Enter,
                (2, 2) => Step::Count,
                _ => Step::Skip,
            },
            // resource_metrics, scope_metrics, metrics; one of gauge, sum, histogram, exponential_histogram, summary;
            // data_points
            Self::Metrics => match (depth, field) {
                (0, 1) | (1 | 2, 2) => Step::Enter,
                (METRIC, 5 | 7 | 9 | 10 | 11) => Step::EnterKind(field),
                (4, 1) => Step::Count,
                _ => Step::Skip,
            },
            // resource_profiles, scope_profiles, profiles, samples
            Self::Profiles => match (depth, field) {
                (0, 1) | (1 | 2, 2) => Step::Enter,
                (3, 2) => Step::Count,
                _ => Step::Skip,
            },
            // timeseries, then samples and histograms; exemplars are 3 here and 4 in 2.0
            Self::RemoteWrite1 => match (depth, field) {
                (0, 1) => Step::Enter,
                (1, 2 | 4) => Step::Count,
                _ => Step::Skip,
            },
            Self::RemoteWrite2 => match (depth, field) {
                (0, 5) => Step::Enter,
                (1, 2 | 3) => Step::Count,
                _ => Step::Skip,
            },
            // streams, entries
            Self::LokiPush => match (depth, field) {
                (0, 1) => Step::Enter,
                (1, 2) => Step::Count,
                _ => Step::Skip,
            },
        }
    }
}
