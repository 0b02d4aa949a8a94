//! The one table from cause to answer. Decides what a sender is told and whether it is told to come back; how that is
//! written on the wire is for `protocol` to say.
//!
//! Two rules stand behind every row: a temporary condition is answered so that the sender keeps its data, a permanent one
//! so that it stops; and unknown, expired and revoked keys look alike to the client.

use std::borrow::Cow;

use model::Scope;
use ops::config::ByteSize;

use crate::protocol::Protocol;

/// Why a request was not forwarded, or why its answer could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoCredential,
    MalformedCredential,
    ConflictingCredentials,
    UnknownKey {
        wait_seconds: u32,
    },
    ExpiredKey {
        wait_seconds: u32,
    },
    RevokedKey {
        wait_seconds: u32,
    },
    /// Too many of the failures above came from one address.
    AuthFailures {
        wait_seconds: u32,
    },
    TenantSuspended {
        for_good: bool,
    },
    TenantMismatch,
    Scope {
        needed: Scope,
    },
    TooLarge {
        limit: ByteSize,
    },
    /// Too many requests are under way to the upstream.
    Overloaded,
    Draining,
    KeysUnavailable,
    UpstreamUnreachable,
    /// It does not trust this server, or does not know the path: the operator's to mend, not the sender's.
    UpstreamDenied,
    /// `by_client`: it was the client's own `grpc-timeout` that ran out.
    UpstreamTimeout {
        by_client: bool,
    },
    BodyTimeout,
    BadFraming {
        problem: &'static str,
    },
    /// More than the one message that a unary call has.
    SecondMessage,
    MediaType {
        problem: &'static str,
    },
    HeadTooLarge {
        limit: ByteSize,
    },
    TooManyHeaders {
        limit: usize,
    },
    NotFound {
        hint: &'static str,
    },
    Method,
    /// Not an answer but the absence of one: the client left first.
    ClientGone,
}

/// gRPC status codes that refusals use (grpc/grpc `doc/statuscodes.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Cancelled = 1,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// What a sender is told about coming back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Nothing: trying again cannot help.
    Never,
    /// Soon: 1-4 s, which an OTLP SDK can sit out before it gives a batch up (most allow 10 s in all).
    Soon,
    /// In so many seconds, or up to a quarter later.
    In(u32),
}

impl Retry {
    /// Not before long: for a sender that tries for ever whatever it is told, so that it costs little.
    const LATE: Self = Self::In(240);
    /// No sender is asked to wait longer, in seconds.
    const MAX: u64 = 300;

    /// The wait in whole seconds. `jitter` spreads those who are told to come back; any number will do.
    pub(crate) fn seconds(self, jitter: u64) -> Option<u64> {
        match self {
            Self::Never => None,
            Self::Soon => Some(1 + jitter % 4),
            Self::In(seconds) => {
                let seconds = u64::from(seconds);
                Some((seconds + jitter % (seconds / 4 + 2)).min(Self::MAX))
            }
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// The cause as metrics and logs name it.
    pub(crate) label: &'static str,
    /// The HTTP status; [`Refusal::status`] has the exceptions by protocol.
    pub(crate) status: u16,
    pub(crate) code: Code,
    pub(crate) retry: Retry,
}

impl Refusal {
    /// Every label of the table, so that metrics start at zero.
    pub(crate) const LABELS: [&'static str; 22] = [
        "no_credential",
        "malformed_credential",
        "unknown_key",
        "expired_key",
        "revoked_key",
        "auth_failures",
        "tenant_suspended",
        "tenant_mismatch",
        "scope",
        "too_large",
        "overloaded",
        "draining",
        "keys_unavailable",
        "upstream_unreachable",
        "upstream_denied",
        "upstream_timeout",
        "body_timeout",
        "bad_framing",
        "media_type",
        "not_found",
        "method",
        "client_gone",
    ];

    /// The row of this cause.
    pub(crate) const fn row(&self) -> Row {
        use Code::{
            Cancelled, DeadlineExceeded, Internal, PermissionDenied, ResourceExhausted,
            Unauthenticated, Unavailable, Unimplemented,
        };
        use Retry::{In, Never, Soon};
        const LATE: Retry = Retry::LATE;
        let (label, status, code, retry) = match self {
            Self::NoCredential => ("no_credential", 401, Unauthenticated, LATE),
            Self::MalformedCredential | Self::ConflictingCredentials => {
                ("malformed_credential", 401, Unauthenticated, LATE)
            }
            Self::UnknownKey { wait_seconds } => {
                ("unknown_key", 401, Unauthenticated, In(*wait_seconds))
            }
            Self::ExpiredKey { wait_seconds } => {
                ("expired_key", 401, Unauthenticated, In(*wait_seconds))
            }
            Self::RevokedKey { wait_seconds } => {
                ("revoked_key", 401, Unauthenticated, In(*wait_seconds))
            }
            Self::AuthFailures { wait_seconds } => {
                ("auth_failures", 429, ResourceExhausted, In(*wait_seconds))
            }
            Self::TenantSuspended { for_good: false } => {
                ("tenant_suspended", 503, Unavailable, Soon)
            }
            Self::TenantSuspended { for_good: true } => {
                ("tenant_suspended", 403, PermissionDenied, LATE)
            }
            Self::TenantMismatch => ("tenant_mismatch", 403, PermissionDenied, LATE),
            Self::Scope { .. } => ("scope", 403, PermissionDenied, LATE),
            Self::TooLarge { .. } => ("too_large", 413, ResourceExhausted, Never),
            Self::Overloaded => ("overloaded", 503, Unavailable, Soon),
            Self::Draining => ("draining", 503, Unavailable, Soon),
            Self::KeysUnavailable => ("keys_unavailable", 503, Unavailable, Soon),
            Self::UpstreamUnreachable => ("upstream_unreachable", 503, Unavailable, Soon),
            Self::UpstreamDenied => ("upstream_denied", 503, Unavailable, Soon),
            Self::UpstreamTimeout { by_client: false } => {
                ("upstream_timeout", 504, Unavailable, Soon)
            }
            Self::UpstreamTimeout { by_client: true } => {
                ("upstream_timeout", 504, DeadlineExceeded, Never)
            }
            Self::BodyTimeout => ("body_timeout", 408, Unavailable, Soon),
            Self::BadFraming { .. } => ("bad_framing", 400, Internal, Never),
            Self::SecondMessage => ("bad_framing", 400, Unimplemented, Never),
            Self::MediaType { .. } => ("media_type", 415, Unimplemented, Never),
            Self::HeadTooLarge { .. } | Self::TooManyHeaders { .. } => {
                ("too_large", 431, ResourceExhausted, Never)
            }
            Self::NotFound { .. } => ("not_found", 404, Unimplemented, Never),
            Self::Method => ("method", 405, Unimplemented, Never),
            Self::ClientGone => ("client_gone", 499, Cancelled, Never),
        };
        Row {
            label,
            status,
            code,
            retry,
        }
    }

    /// The HTTP status for a sender of `protocol`.
    pub(crate) const fn status(&self, protocol: Option<Protocol>) -> u16 {
        match (self, protocol) {
            // vmagent repeats a 413 for ever, and a 400, which Mimir uses too, never.
            (Self::TooLarge { .. }, Some(Protocol::RemoteWrite)) => 400,
            // Prometheus drops on a 429, unless it is told otherwise.
            (Self::AuthFailures { .. }, Some(Protocol::RemoteWrite)) => 503,
            _ => self.row().status,
        }
    }

    /// One line for a person: what is wrong and what would mend it. Contains nothing that the client sent.
    pub(crate) fn text(&self) -> Cow<'static, str> {
        const CREDENTIAL: &str = "API key missing or not valid: send 'Authorization: Bearer obs_...', \
             or Basic with the key as password, or 'X-API-Key: obs_...'";
        Cow::Borrowed(match self {
            Self::NoCredential
            | Self::MalformedCredential
            | Self::UnknownKey { .. }
            | Self::ExpiredKey { .. }
            | Self::RevokedKey { .. } => CREDENTIAL,
            Self::AuthFailures { .. } => {
                "too many requests with wrong API keys came from this address, so keys not seen lately are not looked up: \
                 keep the data, try again, and stop the sender whose key is wrong"
            }
            Self::ConflictingCredentials => {
                "more than one API key was sent and they differ: send one"
            }
            Self::TenantSuspended { for_good: false } => {
                "this tenant is suspended for now: keep the data and try again"
            }
            Self::TenantSuspended { for_good: true } => {
                "this tenant is suspended: ask your operator to resume it"
            }
            Self::TenantMismatch => {
                "X-Scope-OrgID names a tenant other than the API key's: leave the header out, the key says who you are"
            }
            Self::Scope { needed } => {
                return Cow::Owned(format!(
                    "this API key lacks the scope {needed}: use a key that has it, or ask your operator for one"
                ));
            }
            Self::TooLarge { limit } => {
                return Cow::Owned(format!(
                    "the body is larger than the limit of {limit}: send smaller batches"
                ));
            }
            Self::HeadTooLarge { limit } => {
                return Cow::Owned(format!(
                    "the request's headers are larger than the limit of {limit}"
                ));
            }
            Self::TooManyHeaders { limit } => {
                return Cow::Owned(format!(
                    "the request has more headers than the limit of {limit}"
                ));
            }
            Self::Overloaded => {
                "the storage behind this server has more requests than it is given at a time: keep the data and try again"
            }
            Self::Draining => "this server is about to stop: try again, another one will answer",
            Self::KeysUnavailable => {
                "API keys cannot be checked at the moment: keep the data and try again"
            }
            Self::UpstreamUnreachable => {
                "the storage behind this server cannot be reached: keep the data and try again"
            }
            Self::UpstreamDenied => {
                "the storage behind this server does not accept it: keep the data, the operator is told"
            }
            Self::UpstreamTimeout { .. } => {
                "the storage behind this server did not answer in time: try again"
            }
            Self::BodyTimeout => "the body stopped coming: send it without pauses",
            Self::SecondMessage => "more than one message in a call that takes one",
            Self::BadFraming { problem } | Self::MediaType { problem } => problem,
            Self::NotFound { hint } => hint,
            Self::Method => "this path takes POST only",
            Self::ClientGone => "the client closed the connection",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http_body::Body as _;

    use super::*;
    use crate::protocol::Dialect;

    /// Every cause; a new one that is missing here is missing in the labels' count below.
    fn all() -> Vec<Refusal> {
        let limit = ByteSize(1 << 20);
        vec![
            Refusal::NoCredential,
            Refusal::MalformedCredential,
            Refusal::ConflictingCredentials,
            Refusal::UnknownKey { wait_seconds: 4 },
            Refusal::ExpiredKey { wait_seconds: 32 },
            Refusal::RevokedKey { wait_seconds: 240 },
            Refusal::AuthFailures { wait_seconds: 1 },
            Refusal::TenantSuspended { for_good: false },
            Refusal::TenantSuspended { for_good: true },
            Refusal::TenantMismatch,
            Refusal::Scope {
                needed: Scope::LogsWrite,
            },
            Refusal::TooLarge { limit },
            Refusal::Overloaded,
            Refusal::Draining,
            Refusal::KeysUnavailable,
            Refusal::UpstreamUnreachable,
            Refusal::UpstreamDenied,
            Refusal::UpstreamTimeout { by_client: false },
            Refusal::UpstreamTimeout { by_client: true },
            Refusal::BodyTimeout,
            Refusal::BadFraming { problem: "x" },
            Refusal::SecondMessage,
            Refusal::MediaType { problem: "x" },
            Refusal::HeadTooLarge { limit },
            Refusal::TooManyHeaders { limit: 100 },
            Refusal::NotFound { hint: "x" },
            Refusal::Method,
            Refusal::ClientGone,
        ]
    }

    #[test]
    fn every_label_is_in_the_list_that_metrics_start_from() {
        let labels: BTreeSet<_> = all().iter().map(|refusal| refusal.row().label).collect();
        assert_eq!(labels, Refusal::LABELS.into_iter().collect());
    }

    #[test]
    fn every_refusal_is_written_in_every_dialect() {
        for refusal in all() {
            for dialect in [
                Dialect::OtlpGrpc,
                Dialect::OtlpProtobuf,
                Dialect::OtlpJson,
                Dialect::RemoteWrite,
                Dialect::LokiPush,
                Dialect::Plain,
            ] {
                let response = dialect.render(&refusal, 7);
                let wait = response.headers().get("retry-after");
                let wait = wait.map(|wait| wait.to_str().unwrap().parse::<u64>().unwrap());
                assert!(
                    wait.is_none_or(|wait| (1..=300).contains(&wait)),
                    "{refusal:?}"
                );
                if dialect == Dialect::OtlpGrpc {
                    assert_eq!(response.status(), 200);
                    assert!(response.headers().contains_key("grpc-status"));
                    assert!(response.body().is_end_stream(), "trailers only");
                } else {
                    assert_eq!(response.status(), refusal.status(dialect.protocol()));
                    assert!(!response.body().is_end_stream(), "{refusal:?} says why");
                }
            }
        }
    }

    #[test]
    fn what_is_temporary_is_never_answered_so_that_data_is_dropped() {
        for refusal in all() {
            let row = refusal.row();
            let is_throttled = matches!(refusal, Refusal::AuthFailures { .. });
            if row.retry != Retry::Soon && !is_throttled {
                continue;
            }
            // A body that stops coming is the client's own doing; everything else of this kind must be retried.
            let kept = matches!(row.status, 502..=504 | 429) || refusal == Refusal::BodyTimeout;
            assert!(kept, "{refusal:?}");
            // An OTLP sender keeps what was refused with this code if it is told when to come back.
            let code = if is_throttled {
                Code::ResourceExhausted
            } else {
                Code::Unavailable
            };
            assert_eq!(row.code, code, "{refusal:?}");
            // What Prometheus keeps as it comes from the box.
            let prometheus = refusal.status(Some(Protocol::RemoteWrite));
            assert!(prometheus != 429, "{refusal:?}");
        }
    }

    #[test]
    fn a_wait_is_never_shorter_than_asked_for_and_never_longer_than_a_sender_can() {
        for seconds in [1, 4, 8, 64, 240, 300, u32::MAX] {
            let waits = (0..1000).map(|jitter| Retry::In(seconds).seconds(jitter).unwrap());
            let waits: BTreeSet<_> = waits.collect();
            let least = u64::from(seconds).min(300);
            assert_eq!(waits.first(), Some(&least));
            assert!(waits.last().is_some_and(|last| *last <= 300));
            assert!(waits.len() > 1 || seconds >= 300, "{seconds}: not spread");
        }
    }
}
