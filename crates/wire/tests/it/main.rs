//! The promises of `wire` that need more than one module.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::float_cmp,
    reason = "tests fail by panicking, and the floats compared were never computed with"
)]

mod count;
mod generated;
mod schema;
