//! The control plane: tenants, keys, and the admin API through which operators keep them.
//!
//! A request to the admin API goes through
//! 1. `api::router`: the one table of routes, each with the access it needs;
//! 2. `operator`: who asks, and may they;
//! 3. `api::tenants` and `api::keys`: from HTTP to the rules and the store, and back;
//! 4. `rules`: what a good tenant or key is, without HTTP and SQL;
//! 5. `store`, which writes the change and its audit entry in one transaction.
//!
//! An error leaves as a problem (RFC 9457) that names the field and the fix: `api::problem`. Beside the requests,
//! `housekeeping` deletes old rows.

mod api;
mod app;
mod config;
mod housekeeping;
mod operator;
mod rules;

pub use api::problem::problem_codes;
pub use api::router::{Access, Route, routes};
pub use app::{Running, StartError, run, start};
pub use config::ControlConfig;
pub use operator::{MalformedToken, OperatorToken, operator_create, operator_create_for};
