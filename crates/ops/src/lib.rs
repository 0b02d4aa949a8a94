//! How any process of ours is configured, logged, measured, probed and stopped. Knows nothing of tenants or telemetry.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`config`] | reads a TOML file so that every problem is reported at once, with its line |
//! | [`log`] | sets up `tracing` |
//! | [`probe`] | `/metrics`, `/livez`, `/readyz` on a port of their own |
//! | [`signal`] | turns SIGTERM and SIGINT into a cancellation |

pub mod config;
pub mod log;
pub mod probe;
pub mod signal;
