//! `flowshift leases …`: who reads which shard, how far it is, and the operator's hand in it.
//!
//! Everything here works from outside, through the tables, beside a running fleet or without one. `look` reads, `watch`
//! finds out who lives, `list`, `release` and `resolve` are the commands. Invariant: nothing is written without `--yes`.

mod list;
mod look;
mod release;
mod resolve;
mod skip;
mod status;
mod watch;

use super::Failure;
use super::store::Store;
use crate::cli::{LeasesCommand, Place, Settings};

pub(super) async fn run(command: LeasesCommand) -> Result<(), Failure> {
    match command {
        LeasesCommand::List(args) => {
            let store = open(&args.place).await?;
            let done = list::run(&store, &args).await;
            store.close().await;
            done
        }
        LeasesCommand::Release(args) => {
            let store = open(&args.place).await?;
            let done = release::run(&store, &args).await;
            store.close().await;
            done
        }
        LeasesCommand::Resolve(command) => {
            let store = open(&resolve::decide(&command).place).await?;
            let done = resolve::run(&store, &command).await;
            store.close().await;
            done
        }
    }
}

async fn open(place: &Place) -> Result<Store, Failure> {
    let settings = Settings { config: place.config.clone(), ..Settings::default() };
    Store::open(place.data_dir.clone(), &settings).await
}
