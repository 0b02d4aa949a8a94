//! The promises of the admin API, through its socket, over a real SQLite database.

mod access;
mod harness;
mod keys;
mod problems;
mod tenants;
