//! `flowshift state …`: what is committed. Reads manifests and chunks; holds no lease.

mod export;
mod inspect;

use anyhow::Context;

use super::store::Store;
use super::{Failure, print_line};
use crate::cli::{Settings, StateCommand};

pub(super) async fn run(command: StateCommand) -> Result<(), Failure> {
    match command {
        StateCommand::Inspect(args) => {
            let settings = Settings { config: args.place.config.clone(), ..Settings::default() };
            let store = Store::open(args.place.data_dir.clone(), &settings).await?;
            let done = inspect::run(&store, &args).await;
            store.close().await;
            done
        }
        StateCommand::Export { out, place } => {
            let settings = Settings { config: place.config, ..Settings::default() };
            let store = Store::open(place.data_dir, &settings).await?;
            let exported = export::export(&store).await;
            store.close().await;
            let text = serde_json::to_string_pretty(&exported?).map_err(Failure::start)?;
            match out {
                Some(path) => {
                    std::fs::write(&path, text + "\n").with_context(|| format!("--out {}", path.display()))?;
                }
                None => print_line(&text),
            }
            Ok(())
        }
    }
}
