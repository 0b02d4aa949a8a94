//! `okmon probe`: asks a process how it is, for health checks where there is neither a shell nor curl.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

/// An answer that is longer tells nothing that would fit a status.
const TEXT_MAX: u64 = 4096;

/// Flags of `okmon probe`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  okmon probe http://127.0.0.1:9600/readyz")]
pub struct ProbeArgs {
    /// What to GET: /readyz or /livez of the ops port of an edge, or of control
    url: String,
    /// How long the answer may take
    #[arg(long, default_value = "5s", value_parser = seconds)]
    timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse();
    let seconds: u32 = number.map_err(|_| "write seconds, such as 5s".to_owned())?;
    if seconds == 0 {
        return Err("must be longer than 0".to_owned());
    }
    Ok(Duration::from_secs(seconds.into()))
}

/// Asks; says nothing when the answer's status is one of success.
///
/// # Errors
/// When there is no answer in time, or another one: with its text, which has the reasons.
pub fn run(args: &ProbeArgs) -> anyhow::Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(args.timeout))
        .build()
        .into();
    let mut answer = agent
        .get(&args.url)
        .call()
        .with_context(|| args.url.clone())?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let body = answer.body_mut().with_config().limit(TEXT_MAX);
    let text = body.read_to_string().unwrap_or_default();
    anyhow::bail!("{}: {status}\n{}", args.url, text.trim_end())
}
