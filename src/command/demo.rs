//! `flowshift demo` placeholder while wiring.
use super::Failure;
use crate::cli::Demo;
pub(super) async fn run(_args: Demo) -> Result<(), Failure> {
    Err(Failure::usage(anyhow::anyhow!("not wired yet")))
}
