//! Stand.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {}
pub(crate) fn command(_: &Args) -> anyhow::Result<bool> {
    Ok(true)
}
