//! Real telemetry through the authenticated edge, from programs that customers run: what they send is read back at the
//! upstream and compared, and it is there under the key's tenant.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in the functions it is made of too"
)]

mod acme;
mod changes;
mod collector;
mod curl;
mod documents;
mod h2spec;
mod js_sdk;
mod key_faults;
mod lifecycle;
mod loki;
mod names;
mod outage;
mod packaging;
mod process;
mod prometheus;
mod python_sdk;
mod rotation;
mod secrets;
mod seeing_log;
mod seeing_spans;
mod tls;
mod workspace;
mod world;
