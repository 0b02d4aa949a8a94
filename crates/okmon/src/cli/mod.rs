//! The operator's commands: from arguments to the admin API, and from its answers to text or JSON. The API decides;
//! nothing is checked here that it checks, except what a mistyped argument would be.

mod api;
pub mod control;
pub mod key;
pub mod operator;
mod output;
pub mod tenant;

use clap::Args;

/// Where control is, and how to print its answer.
#[derive(Debug, Args)]
pub struct Remote {
    /// Where okmon control listens
    #[arg(
        long,
        env = "OKMON_CONTROL_URL",
        default_value = "http://127.0.0.1:9601",
        value_name = "URL"
    )]
    control_url: String,
    /// Print the API's own objects as JSON
    #[arg(long)]
    json: bool,
}
