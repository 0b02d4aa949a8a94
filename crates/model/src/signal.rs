//! Signals, and the scopes that let a key write or read them.

use std::fmt;
use std::str::FromStr;

/// A kind of telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Data points and samples.
    Metrics,
    /// Log records and lines.
    Logs,
    /// Profiles; under development in the OTLP specification.
    Profiles,
}

impl Signal {
    /// Every signal, in the order of the discriminants.
    pub const ALL: [Self; 4] = [Self::Traces, Self::Metrics, Self::Logs, Self::Profiles];

    /// The lower-case plural name that paths, labels and configuration use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Profiles => "profiles",
        }
    }

    /// The scope a key needs in order to send this signal.
    pub const fn write_scope(self) -> Scope {
        match self {
            Self::Traces => Scope::TracesWrite,
            Self::Metrics => Scope::MetricsWrite,
            Self::Logs => Scope::LogsWrite,
            Self::Profiles => Scope::ProfilesWrite,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing a key may do, written `signal:direction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Scope {
    /// `metrics:write`
    MetricsWrite,
    /// `logs:write`
    LogsWrite,
    /// `traces:write`
    TracesWrite,
    /// `profiles:write`
    ProfilesWrite,
    /// `metrics:read`
    MetricsRead,
    /// `logs:read`
    LogsRead,
    /// `traces:read`
    TracesRead,
}

/// A text that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown scope {0:?}: use metrics:write, logs:write, traces:write, profiles:write, metrics:read, logs:read or traces:read"
)]
pub struct UnknownScope(pub String);

impl Scope {
    /// Every scope, in the order of the discriminants.
    pub const ALL: [Self; 7] = [
        Self::MetricsWrite,
        Self::LogsWrite,
        Self::TracesWrite,
        Self::ProfilesWrite,
        Self::MetricsRead,
        Self::LogsRead,
        Self::TracesRead,
    ];

    /// The scope as the API, the database and the CLI write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MetricsWrite => "metrics:write",
            Self::LogsWrite => "logs:write",
            Self::TracesWrite => "traces:write",
            Self::ProfilesWrite => "profiles:write",
            Self::MetricsRead => "metrics:read",
            Self::LogsRead => "logs:read",
            Self::TracesRead => "traces:read",
        }
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes; prints and parses as names separated by a comma (a space is accepted too).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopeSet(u8);

impl ScopeSet {
    /// No scope at all.
    pub const EMPTY: Self = Self(0);

    /// What a new key gets unless told otherwise: all write scopes.
    pub const WRITE: Self = Self(
        (1 << Scope::MetricsWrite as u8)
            | (1 << Scope::LogsWrite as u8)
            | (1 << Scope::TracesWrite as u8)
            | (1 << Scope::ProfilesWrite as u8),
    );

    /// The set with `scope` added.
    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Self(self.0 | (1 << scope as u8))
    }

    /// Whether `scope` is in the set.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes in the set, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .into_iter()
            .filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl FromStr for ScopeSet {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split([',', ' '])
            .filter(|name| !name.is_empty())
            .map(Scope::from_str)
            .collect()
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, scope) in self.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_round_trips_and_is_alone_in_its_bit() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            let set = ScopeSet::EMPTY.with(scope);
            assert_eq!(set.iter().collect::<Vec<_>>(), [scope]);
            assert_eq!(set.to_string().parse(), Ok(set));
        }
    }

    #[test]
    fn a_new_key_writes_every_signal_and_reads_none() {
        for signal in Signal::ALL {
            assert!(ScopeSet::WRITE.contains(signal.write_scope()));
        }
        assert!(!ScopeSet::WRITE.contains(Scope::MetricsRead));
        assert_eq!(ScopeSet::WRITE.iter().count(), 4);
    }

    #[test]
    fn an_unknown_scope_is_named() {
        let error = "metrics:write,logs:delete".parse::<ScopeSet>().unwrap_err();
        assert!(error.to_string().contains("logs:delete"));
    }
}
