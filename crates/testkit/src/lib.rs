//! The outside world of the tests: `okmon dev` as a user starts it, the planes as processes of their own beside a PostgreSQL that
//! may die, and programs nobody here wrote that send to them.
//!
//! It fails by panicking, with a text that tells what was awaited and what was there instead. The senders themselves are
//! in `peers/`; `scripts/test.sh` installs what they need.

pub mod certificates;
pub mod control;
mod dev;
pub mod edge;
pub mod key_rows;
pub mod peers;
pub mod postgres;
mod process;
pub mod psql;
mod received;
pub mod sender;
pub mod sent;
pub mod upstream;
mod wait;

pub use dev::{Dev, Ready, okmon};
pub use process::{Finished, Process};
pub use received::Received;
pub use wait::eventually;
