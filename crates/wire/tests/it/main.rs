//! The promises of `wire` that need more than one module.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::float_cmp,
    clippy::format_push_string,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, read better than they run, and the floats compared were never computed with"
)]

mod count;
mod generated;
mod schema;
