//! The outside world of the tests: `okmon dev` as a user starts it, and programs nobody here wrote that send to it.
//!
//! It fails by panicking, with a text that tells what was awaited and what was there instead. The senders themselves are
//! in `peers/`; `scripts/test.sh` installs what they need.

mod dev;
pub mod peers;
pub mod postgres;
mod process;
mod received;
pub mod sent;
mod wait;

pub use dev::{Dev, Ready, okmon};
pub use process::{Finished, Process};
pub use received::Received;
pub use wait::eventually;
