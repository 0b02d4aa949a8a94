//! The promises of the edge, through its sockets.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a test fails by panicking, in the functions it is made of too, and reads better than it runs"
)]

mod answers;
mod any_headers;
mod credentials;
mod drain;
mod endpoints;
mod endpoints_return;
mod failures;
mod forwarded;
mod framing;
mod harness;
mod hostile;
mod hostile_http2;
mod items;
mod key_outage;
mod keys;
mod metrics;
mod oversize;
mod paths;
mod proxy_protocol;
mod reframe;
mod refusals;
mod reload;
mod replays;
mod routes;
mod seeing_outcomes;
mod seeing_request_id;
mod seeing_spans;
mod seeing_tenants;
mod seeing_trace;
mod strangers;
mod streaming;
mod tenant;
mod tls;
mod tls_client;
mod tls_clients;
mod tls_files;
mod tls_senders;
mod upstream;
mod upstream_limits;
mod uses;
