//! The promises of the binary, through its sockets.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod cli_errors;
mod cli_harness;
mod cli_keys;
mod cli_operators;
mod cli_scripts;
mod cli_sheet;
mod cli_tenants;
mod cli_tenants_and_keys;
mod sink_api;
mod sink_harness;
mod sink_loki;
mod sink_otlp;
mod sink_remote_write;
