//! `flowshift state …`: what is committed. Reads manifests and chunks; holds no lease.

mod export;

use super::store::Store;
use super::{Failure, print_line};
use crate::cli::StateCommand;

pub(super) async fn run(command: StateCommand) -> Result<(), Failure> {
    let StateCommand::Export { data_dir, settings } = command;
    let store = Store::open(data_dir, &settings).await?;
    let exported = export::export(&store).await;
    store.close().await;
    print_line(&serde_json::to_string_pretty(&exported?).map_err(Failure::start)?);
    Ok(())
}
