//! How any process of ours is configured, logged, measured, probed and stopped. Knows nothing of tenants or telemetry.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`config`] | reads a TOML file so that every problem is reported at once, with its line |
//! | [`config_file`] | notices that the file was changed |
//! | [`inherited`] | listening sockets that were opened before the process |
//! | [`log`] | sets up `tracing` |
//! | [`notify`] | tells systemd how far we are |
//! | [`probe`] | `/metrics`, `/livez`, `/readyz` on a port of their own |
//! | [`signal`] | what SIGTERM, SIGINT and SIGHUP ask |

pub mod config;
pub mod config_file;
pub mod inherited;
pub mod log;
pub mod notify;
pub mod probe;
pub mod signal;
