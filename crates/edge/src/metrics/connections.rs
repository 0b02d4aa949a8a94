//! Metrics of senders' connections: open ones, and why connections were ended that their senders would have kept.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use crate::listen::http2_frames::Abuse;

/// Why we end a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// `connections.open_max` were open.
    OpenMax,
    /// `connections.open_per_address_max` of its address were.
    AddressMax,
    /// Another needed its place, and no valid key had been shown on it: `connections.strangers_max`.
    StrangersMax,
    /// Too many connections of its address ended without a valid key: `[strangers]`.
    StrangerBudget,
    /// A head, or the first byte, took longer than `connections.head_timeout`.
    HeadTimeout,
    /// Nothing was asked for `connections.idle_timeout`.
    Idle,
    /// No valid key was shown for `connections.stranger_timeout`.
    Stranger,
    /// `connections.age_max` was reached.
    Age,
    /// `connections.requests_max` was reached.
    RequestsMax,
    /// Its sender guessed keys until its address's budget of failures was used up.
    AuthFailures,
    /// It did what no good sender does.
    Abuse(Abuse),
}

impl Closed {
    const ALL: [Self; 21] = [
        Self::OpenMax,
        Self::AddressMax,
        Self::StrangersMax,
        Self::StrangerBudget,
        Self::HeadTimeout,
        Self::Idle,
        Self::Stranger,
        Self::Age,
        Self::RequestsMax,
        Self::AuthFailures,
        Self::Abuse(Abuse::Resets),
        Self::Abuse(Abuse::ProvokedResets),
        Self::Abuse(Abuse::Pings),
        Self::Abuse(Abuse::Settings),
        Self::Abuse(Abuse::Priorities),
        Self::Abuse(Abuse::WindowUpdates),
        Self::Abuse(Abuse::EmptyData),
        Self::Abuse(Abuse::Continuations),
        Self::Abuse(Abuse::UnknownFrames),
        Self::Abuse(Abuse::LargeHeads),
        Self::Abuse(Abuse::ProtocolErrors),
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::OpenMax => "open_max",
            Self::AddressMax => "open_per_address_max",
            Self::StrangersMax => "strangers_max",
            Self::StrangerBudget => "stranger_budget",
            Self::HeadTimeout => "head_timeout",
            Self::Idle => "idle_timeout",
            Self::Stranger => "stranger_timeout",
            Self::Age => "age_max",
            Self::RequestsMax => "requests_max",
            Self::AuthFailures => "auth_failures",
            Self::Abuse(Abuse::Resets) => "resets",
            Self::Abuse(Abuse::ProvokedResets) => "provoked_resets",
            Self::Abuse(Abuse::Pings) => "pings",
            Self::Abuse(Abuse::Settings) => "settings",
            Self::Abuse(Abuse::Priorities) => "priorities",
            Self::Abuse(Abuse::WindowUpdates) => "window_updates",
            Self::Abuse(Abuse::EmptyData) => "empty_data",
            Self::Abuse(Abuse::Continuations) => "continuations",
            Self::Abuse(Abuse::UnknownFrames) => "unknown_frames",
            Self::Abuse(Abuse::LargeHeads) => "large_heads",
            Self::Abuse(Abuse::ProtocolErrors) => "protocol_errors",
        }
    }
}

/// Handles.
pub(crate) struct ConnectionMetrics {
    pub(crate) open: Gauge,
    pub(crate) accepted: Counter,
    /// Could not be taken from the kernel, or not made ready.
    pub(crate) accept_errors: Counter,
    /// Ended by their sender, or broken, before they said anything.
    pub(crate) silent: Counter,
    closed: Vec<(Closed, Counter)>,
}

impl ConnectionMetrics {
    pub(super) fn register() -> Self {
        describe_gauge!(
            "okmon_edge_connections",
            "Connections from senders that are open."
        );
        describe_counter!(
            "okmon_edge_connections_accepted_total",
            "Connections accepted from senders."
        );
        describe_counter!(
            "okmon_edge_connections_accept_errors_total",
            "Failures to accept a connection; mostly, the process has as many files open as it may."
        );
        describe_counter!(
            "okmon_edge_connections_silent_total",
            "Connections that their sender ended before it said anything."
        );
        describe_counter!(
            "okmon_edge_connections_closed_total",
            "Connections that were ended by a limit, by the limit."
        );
        let closed = |reason: Closed| {
            let handle =
                counter!("okmon_edge_connections_closed_total", "reason" => reason.label());
            (reason, handle)
        };
        Self {
            open: gauge!("okmon_edge_connections"),
            accepted: counter!("okmon_edge_connections_accepted_total"),
            accept_errors: counter!("okmon_edge_connections_accept_errors_total"),
            silent: counter!("okmon_edge_connections_silent_total"),
            closed: Closed::ALL.map(closed).into(),
        }
    }

    /// Notes that a limit ended a connection.
    pub(crate) fn closed(&self, reason: Closed) {
        if let Some((_, counter)) = self.closed.iter().find(|(known, _)| *known == reason) {
            counter.increment(1);
        }
    }
}
