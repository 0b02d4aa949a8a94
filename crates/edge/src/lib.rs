//! The data plane: from an accepted connection to an accounted request. The life of a request:
//!
//! 1. [`listen`] accepts the connection, gives it to the worker with the fewest and finds out whether it speaks HTTP/1.1 or
//!    HTTP/2.
//! 2. `request::serve` takes one request through its steps:
//!    1. `request::route`: path and method to protocol, signal and upstream;
//!    2. `request::authenticate`: credential to caller, from memory ([`keys`]); [`failures`] bounds what wrong keys cost;
//!    3. `request::admit`: what this caller may send now;
//!    4. `request::forward`: headers by allow-list, tenant set, body streamed to the [`upstream`], its answer back;
//!    5. `request::account`: exactly one outcome; `request::tell`: what is written down of it, within [`log_limits`] and
//!       as [`spans`].
//!
//!    Which keys were used, and by whom, is written down by [`uses`].
//! 3. A step that refuses gives a row of the table in [`refusal`], which [`protocol`] writes as the sender expects it.
//!
//! [`app`] constructs all of this; [`config`] says what it may be told.

mod acme;
mod app;
mod budgets;
mod clock;
mod config;
mod failures;
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod listen;
mod log_limits;
mod metrics;
mod patience;
mod protocol;
mod refusal;
mod request;
mod send_queue;
mod spans;
mod upstream;
mod upstream_url;
mod uses;
mod worker;

pub use app::{
    ReloadError, Running, StartError, UnknownListener, check_files, start, try_connections,
};
pub use config::Config;
