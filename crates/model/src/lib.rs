//! The vocabulary both planes share, and the rules on it that need no I/O.
//!
//! | word | meaning |
//! | --- | --- |
//! | tenant | a customer; owns keys and data; named by a [`TenantId`] |
//! | key | what a sender authenticates with: [`ApiKey`], known publicly by its [`KeyId`], stored as a [`KeyDigest`] |
//! | scope | what a key may do: write or read one signal ([`Scope`], [`ScopeSet`]) |
//! | signal | traces, metrics, logs or profiles ([`Signal`]) |
//! | grant | what the database says about one key and its tenant ([`Grant`]) |
//! | verdict | what a grant means at one moment ([`Grant::verdict`]) |
//!
//! Nothing here knows a protocol, a socket or SQL. No secret leaves this crate by accident: types that hold one have no
//! `Display`, and their `Debug` prints the public part only.

mod grant;
mod key;
mod signal;
mod tenant;

pub use grant::{Grant, TenantStatus, UnknownTenantStatus, Verdict};
pub use key::{ApiKey, KeyDigest, KeyId, KeyText, MalformedKey, MalformedKeyId};
pub use signal::{Scope, ScopeSet, Signal, UnknownScope};
pub use tenant::{InvalidTenantId, TenantId};
