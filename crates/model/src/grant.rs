//! What the database says about a key, and what that means at one moment. `now` is always an argument.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use time::OffsetDateTime;

use crate::{KeyId, Scope, ScopeSet, TenantId};

/// Whether a tenant's keys work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantStatus {
    /// Keys work.
    Active,
    /// Keys are refused for now; senders keep their data while the grace period runs.
    Suspended,
    /// The tenant was deleted; its keys are revoked.
    Inactive,
}

/// A text that names no tenant status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown tenant status {0:?}: use active, suspended or inactive")]
pub struct UnknownTenantStatus(pub String);

impl TenantStatus {
    /// The status as the API and the database write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Inactive => "inactive",
        }
    }
}

impl FromStr for TenantStatus {
    type Err = UnknownTenantStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Active, Self::Suspended, Self::Inactive]
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownTenantStatus(text.to_owned()))
    }
}

impl fmt::Display for TenantStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One key and its tenant, as the database has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whom the key belongs to.
    pub tenant: TenantId,
    /// The key's public id.
    pub key_id: KeyId,
    /// What the key may do.
    pub scopes: ScopeSet,
    /// When the key stops working by itself.
    pub expires_at: Option<OffsetDateTime>,
    /// When the key was revoked; any value means that it is.
    pub revoked_at: Option<OffsetDateTime>,
    /// The tenant's status.
    pub tenant_status: TenantStatus,
    /// When the tenant was suspended, if it is.
    pub suspended_at: Option<OffsetDateTime>,
    /// How long the tenant's bodies may be, in bytes as sent; `None` leaves it to the edge's own limit.
    pub body_max_bytes: Option<u64>,
}

/// What a grant means at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The key works.
    Valid,
    /// The key was revoked, or its tenant deleted.
    Revoked,
    /// The key's time is over.
    Expired,
    /// The tenant is suspended and its senders shall keep their data.
    Suspended,
    /// The tenant has been suspended for longer than the grace period: senders shall stop.
    SuspendedForGood,
}

impl Grant {
    /// What this grant means at `now`, with `suspend_grace` as the time a suspended tenant's data is kept by its senders.
    pub fn verdict(&self, now: OffsetDateTime, suspend_grace: Duration) -> Verdict {
        if self.revoked_at.is_some() || self.tenant_status == TenantStatus::Inactive {
            return Verdict::Revoked;
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Verdict::Expired;
        }
        if self.tenant_status == TenantStatus::Suspended {
            // A row suspended by hand may lack the time; then the grace period has no start and does not end.
            let over = self
                .suspended_at
                .is_some_and(|since| now - since > suspend_grace);
            return if over {
                Verdict::SuspendedForGood
            } else {
                Verdict::Suspended
            };
        }
        Verdict::Valid
    }

    /// Whether the verdict may be another one at another time.
    pub fn depends_on_time(&self) -> bool {
        self.expires_at.is_some() || self.tenant_status == TenantStatus::Suspended
    }

    /// Whether the key may do `scope`.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const GRACE: Duration = Duration::from_hours(1);

    fn valid() -> Grant {
        Grant {
            tenant: TenantId::parse("t").unwrap(),
            key_id: "0123456789ab".parse().unwrap(),
            scopes: ScopeSet::WRITE,
            expires_at: None,
            revoked_at: None,
            tenant_status: TenantStatus::Active,
            suspended_at: None,
            body_max_bytes: None,
        }
    }

    #[test]
    fn a_key_works_until_it_expires_and_not_at_that_moment() {
        let until = Grant {
            expires_at: Some(NOW),
            ..valid()
        };
        assert_eq!(
            until.verdict(NOW - Duration::from_nanos(1), GRACE),
            Verdict::Valid
        );
        assert_eq!(until.verdict(NOW, GRACE), Verdict::Expired);
    }

    #[test]
    fn any_revocation_time_revokes_even_one_in_the_future() {
        let revoked = Grant {
            revoked_at: Some(NOW + GRACE),
            ..valid()
        };
        assert_eq!(revoked.verdict(NOW, GRACE), Verdict::Revoked);
    }

    #[test]
    fn a_suspended_tenant_is_refused_for_good_only_after_the_grace_period() {
        let suspended = |since| Grant {
            tenant_status: TenantStatus::Suspended,
            suspended_at: since,
            ..valid()
        };
        assert_eq!(
            suspended(Some(NOW - GRACE)).verdict(NOW, GRACE),
            Verdict::Suspended
        );
        let earlier = NOW - GRACE - Duration::from_secs(1);
        assert_eq!(
            suspended(Some(earlier)).verdict(NOW, GRACE),
            Verdict::SuspendedForGood
        );
        assert_eq!(suspended(None).verdict(NOW, GRACE), Verdict::Suspended);
    }

    #[test]
    fn what_does_not_depend_on_time_is_the_same_at_all_times() {
        let at = || [None, Some(NOW)];
        let statuses = [
            TenantStatus::Active,
            TenantStatus::Suspended,
            TenantStatus::Inactive,
        ];
        let mut all = Vec::new();
        for (tenant_status, expires_at) in statuses.into_iter().flat_map(|s| at().map(|at| (s, at)))
        {
            for (revoked_at, suspended_at) in at().into_iter().flat_map(|r| at().map(|s| (r, s))) {
                all.push(Grant {
                    expires_at,
                    revoked_at,
                    tenant_status,
                    suspended_at,
                    ..valid()
                });
            }
        }
        let (long_before, long_after) = (OffsetDateTime::UNIX_EPOCH, NOW + GRACE * 1000);
        for grant in &all {
            let same = grant.verdict(long_before, GRACE) == grant.verdict(long_after, GRACE);
            assert!(same || grant.depends_on_time(), "{grant:?}");
        }
        assert!(!valid().depends_on_time());
    }

    #[test]
    fn a_deleted_tenants_keys_are_revoked() {
        let deleted = Grant {
            tenant_status: TenantStatus::Inactive,
            ..valid()
        };
        assert_eq!(deleted.verdict(NOW, GRACE), Verdict::Revoked);
    }
}
