//! `flowshift leases release`: takes leases from their owners, so that the leader gives them to others.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::anyhow;
use flowshift_consumer::lease::{Checkpoint, Evicted, evict};
use flowshift_consumer::shard::ShardId;
use serde_json::{Value, json};

use super::look::{Lease, leases};
use super::resolve::note;
use super::watch::{Sign, Signs, watch};
use crate::cli::LeasesRelease;
use crate::command::store::Store;
use crate::command::{Failure, print_line};

pub(super) async fn run(store: &Store, args: &LeasesRelease) -> Result<(), Failure> {
    let found = leases(store, &store.streams(args.stream.as_deref())?).await?;
    let chosen = choose(&found, args)?;
    let owners: BTreeSet<String> = chosen.iter().filter_map(|lease| lease.holder().map(str::to_owned)).collect();
    if owners.is_empty() {
        return finish(args, &[], "none of these leases has an owner: nothing to release");
    }
    let signs = if args.force {
        owners.iter().map(|owner| (owner.clone(), Sign::Unknown)).collect()
    } else {
        let failover = store.config.engine.failover.get();
        if !store.stopped {
            eprintln!("watching {} owner(s) for up to {failover:?}: one that lives keeps its leases", owners.len());
        }
        watch(store, &found, &owners, failover).await?
    };
    refuse_live(&chosen, &signs)?;
    if !args.yes {
        let planned = chosen.iter().filter_map(|lease| Some((lease, lease.holder()?)));
        if args.json {
            let planned =
                planned.map(|(lease, owner)| json!({"stream": lease.stream, "shard": lease.shard, "owner": owner}));
            let all = json!({"released": [], "planned": planned.collect::<Vec<_>>()});
            print_line(&serde_json::to_string_pretty(&all).map_err(Failure::start)?);
        } else {
            for (lease, owner) in planned {
                print_line(&format!("would release {}/{} from {owner}", lease.stream, lease.shard));
            }
        }
        note("nothing was changed; add --yes to do it");
        return Ok(());
    }
    let mut done = Vec::new();
    for lease in &chosen {
        let Some(owner) = lease.holder() else { continue };
        let table = store.tables.leases(&lease.stream);
        let evicted = evict(&*store.table, &table, &ShardId::new(lease.shard.clone()), owner).await;
        let what = match evicted {
            Ok(Evicted::Owner(_)) => "released",
            Ok(Evicted::OldOwner(_)) => "hand-over ended",
            Ok(Evicted::Unchanged) => "has another owner by now",
            Err(error) => {
                return Err(Failure::from(anyhow!(error).context(format!("lease {}/{}", lease.stream, lease.shard))));
            }
        };
        if !args.json {
            print_line(&format!("{}/{}: {what} (was {owner})", lease.stream, lease.shard));
        }
        done.push(json!({"stream": lease.stream, "shard": lease.shard, "owner": owner, "outcome": what}));
    }
    finish(args, &done, "the leader assigns them within seconds; a stopped job does at its next start")
}

fn finish(args: &LeasesRelease, done: &[Value], words: &str) -> Result<(), Failure> {
    if args.json {
        print_line(&serde_json::to_string_pretty(&json!({"released": done})).map_err(Failure::start)?);
    } else {
        print_line(words);
    }
    Ok(())
}

/// The leases that the arguments mean. An ended shard has nothing to release.
fn choose<'a>(found: &'a [Lease], args: &LeasesRelease) -> Result<Vec<&'a Lease>, Failure> {
    let open = |lease: &&Lease| matches!(&lease.row, Ok(row) if row.checkpoint != Checkpoint::ShardEnd);
    if args.all {
        return Ok(found.iter().filter(open).collect());
    }
    if let Some(worker) = &args.worker {
        let of_worker: Vec<&Lease> =
            found.iter().filter(open).filter(|l| l.holder() == Some(worker.as_str())).collect();
        if of_worker.is_empty() {
            let owners: BTreeSet<&str> = found.iter().filter_map(Lease::holder).collect();
            let owners = owners.into_iter().collect::<Vec<_>>().join(", ");
            let owners = if owners.is_empty() { "nobody".to_owned() } else { owners };
            return Err(Failure::usage(anyhow!("--worker {worker} owns no lease; owners are: {owners}")));
        }
        return Ok(of_worker);
    }
    let mut by_shard: BTreeMap<&str, Vec<&Lease>> = BTreeMap::new();
    for lease in found {
        by_shard.entry(lease.shard.as_str()).or_default().push(lease);
    }
    let mut chosen = Vec::new();
    for shard in &args.shards {
        chosen.push(only_one(shard, by_shard.get(shard.as_str()).map(Vec::as_slice).unwrap_or_default())?);
    }
    Ok(chosen)
}

/// Shard ids repeat from stream to stream.
pub(super) fn only_one<'a>(shard: &str, leases: &[&'a Lease]) -> Result<&'a Lease, Failure> {
    match leases {
        [] => {
            Err(Failure::usage(anyhow!("there is no lease of shard {shard}; `flowshift leases list` shows them all")))
        }
        [lease] => match &lease.row {
            Ok(_) => Ok(lease),
            Err(problem) => Err(Failure::start(anyhow!("{problem}"))),
        },
        several => {
            let streams: Vec<&str> = several.iter().map(|lease| lease.stream.as_str()).collect();
            Err(Failure::usage(anyhow!("shard {shard} stands in {}: say which with --stream", streams.join(" and "))))
        }
    }
}

fn refuse_live(chosen: &[&Lease], signs: &Signs) -> Result<(), Failure> {
    let live: Vec<String> = chosen
        .iter()
        .filter(|lease| lease.holder().and_then(|owner| signs.get(owner)).is_some_and(|s| matches!(s, Sign::Live(_))))
        .map(|lease| format!("{}/{} of {}", lease.stream, lease.shard, lease.holder().unwrap_or_default()))
        .collect();
    if live.is_empty() {
        return Ok(());
    }
    let live = live.join(", ");
    Err(Failure::usage(anyhow!("nothing was changed: the owner lives of {live}; stop that worker, or add --force")))
}
