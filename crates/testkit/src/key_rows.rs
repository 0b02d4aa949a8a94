//! Tenants and keys as rows written by hand into PostgreSQL, for tests that need more of them than an API should be asked for.

use std::fmt::Write as _;

use model::ApiKey;

/// A fresh key.
///
/// # Panics
/// When the system has no randomness.
pub fn fresh_key() -> ApiKey {
    ApiKey::generate().unwrap_or_else(|error| panic!("no random bytes: {error}"))
}

/// SHA-256 of a key in hexadecimal digits.
pub fn digest_hex(key: &ApiKey) -> String {
    let mut hex = String::with_capacity(64);
    for byte in key.digest().as_bytes() {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// The statement that makes a tenant.
pub fn insert_tenant(id: &str) -> String {
    format!("insert into tenants (id, name, email) values ('{id}', '{id}', 'load@example.com')")
}

/// The statement that makes a tenant's key.
pub fn insert_key(tenant: &str, key: &ApiKey) -> String {
    format!(
        "insert into api_keys (key_id, tenant_id, digest) values ('{}', '{tenant}', '\\x{}')",
        key.id(),
        digest_hex(key)
    )
}
