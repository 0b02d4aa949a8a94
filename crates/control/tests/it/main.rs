//! The promises of the admin API, through its socket, over a real SQLite database.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod access;
mod harness;
mod keys;
mod problems;
mod tenants;
