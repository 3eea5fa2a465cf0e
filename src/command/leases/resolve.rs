//! `flowshift leases resolve …`: lets a shard go on that stopped at a proven loss.
//!
//! First what is lost is found and said, by the rules of the shard's owner; then, with `--yes`, the decision is written to
//! the shard's row, where the owner finds it at its next try. Nothing is lost by the decision that was not lost before,
//! except state that `state` discards. `skip` ([`skip`]) is of another kind: it concerns those who wait for the shard.

use anyhow::{Context, anyhow};
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::{Chunks, Part};
use flowshift_consumer::exchange::FeedKinds;
use flowshift_consumer::inspect;
use flowshift_consumer::lease::{Checkpoint, LeaseRow};
use flowshift_consumer::resolve::{self, Resolution};
use flowshift_consumer::shard::ShardId;
use serde_json::{Value, json};

use super::look::{Lease, leases};
use super::release::only_one;
use super::skip;
use crate::app::KINDS;
use crate::cli::{Decide, ResolveCommand};
use crate::command::store::Store;
use crate::command::text_table::bytes;
use crate::command::{Failure, print_line};
use crate::stage::rules;

/// How the command is to decide.
pub(super) fn decide(command: &ResolveCommand) -> &Decide {
    match command {
        ResolveCommand::Gaps { decide, .. } | ResolveCommand::State { decide, .. } => decide,
        ResolveCommand::Skip(args) => &args.decide,
    }
}

pub(super) async fn run(store: &Store, command: &ResolveCommand) -> Result<(), Failure> {
    match command {
        ResolveCommand::Gaps { shard, decide, limit } => gaps(store, shard, decide, *limit).await,
        ResolveCommand::State { shard, stream, decide, force } => state(store, shard, stream, decide, *force).await,
        ResolveCommand::Skip(args) => skip::run(store, args).await,
    }
}

async fn gaps(store: &Store, shard: &str, decide: &Decide, limit: u64) -> Result<(), Failure> {
    let stream = store.config.streams.exchange.clone();
    let lease = one(store, &stream, shard).await?;
    let id = store.log.identify(&stream).await.with_context(|| format!("stream {stream}"))?;
    let lanes = (rules::lanes(&store.config).map_err(Failure::start)?, FeedKinds::new(KINDS));
    let shard = ShardId::new(lease.shard.clone());
    let found = resolve::missing((&store.table, &*store.log), &store.tables, &id, &shard, lanes, limit).await;
    let found = found.with_context(|| format!("records of {stream}/{shard} behind its checkpoint"))?;
    let losses: Vec<String> = found.losses.iter().map(|(lane, loss)| format!("lane {lane}: {loss}")).collect();
    let looked = format!("{} records behind the checkpoint looked through", found.records);
    let looked =
        if found.to_tip { format!("{looked}, up to the tip") } else { format!("{looked}; there are more (--limit)") };
    if !decide.json {
        losses.iter().for_each(|loss| print_line(loss));
        print_line(&looked);
    }
    if losses.is_empty() && found.to_tip {
        note(&format!("{stream}/{shard}: nothing is missing, so nothing was written"));
        return say(decide, &stream, &shard, None, json!(losses));
    }
    if !confirmed(decide, "the lanes above go on with incomplete windows") {
        return say(decide, &stream, &shard, None, json!(losses));
    }
    let now = WallClock::system().now_ms();
    let written = resolve::accept_gaps(&*store.table, &store.tables, &stream, &shard, now).await;
    let written = written.with_context(|| format!("decision for {stream}/{shard}"))?;
    say(decide, &stream, &shard, Some(&written), json!(losses))
}

async fn state(store: &Store, shard: &str, stream: &str, decide: &Decide, force: bool) -> Result<(), Failure> {
    let stream = store.streams(Some(stream))?.remove(0);
    let lease = one(store, &stream, shard).await?;
    let shard = ShardId::new(lease.shard.clone());
    let lost = lost_with_state(store, &stream, &lease).await?;
    if !decide.json {
        lost.lines.iter().for_each(|line| print_line(line));
    }
    if lost.parts == 0 && lost.problems == 0 {
        note(&format!("{stream}/{shard} has no committed state and inherits none: nothing was written"));
        return say(decide, &stream, &shard, None, json!(lost.lines));
    }
    if lost.problems == 0 && !force {
        let why = "its state can be read and fits its checkpoint";
        let why = format!("{stream}/{shard}: {why}; nothing was written, add --force to discard it");
        if decide.yes {
            return Err(Failure::usage(anyhow!(why)));
        }
        note(&why);
        return say(decide, &stream, &shard, None, json!(lost.lines));
    }
    if !confirmed(decide, "all of this state is lost; the shard goes on at its checkpoint with none") {
        return say(decide, &stream, &shard, None, json!(lost.lines));
    }
    let written = resolve::discard_state(&*store.table, &store.tables, &stream, &shard).await;
    let written = written.with_context(|| format!("decision for {stream}/{shard}"))?;
    say(decide, &stream, &shard, Some(&written), json!(lost.lines))
}

/// What goes with a shard's state.
struct Lost {
    parts: usize,
    problems: usize,
    lines: Vec<String>,
}

async fn lost_with_state(store: &Store, stream: &str, lease: &Lease) -> Result<Lost, Failure> {
    let mut lost = Lost { parts: 0, problems: 0, lines: Vec::new() };
    let row = readable(lease)?;
    if row.manifest.is_some() {
        return lost.with(store, stream, row, "").await.map(|()| lost);
    }
    // One that nobody has begun begins with what its parents committed, unless another program gave it a place to start.
    if matches!(row.checkpoint, Checkpoint::At(_) | Checkpoint::ShardEnd) || row.parents.is_empty() {
        return Ok(lost);
    }
    for of_stream in leases(store, &[stream.to_owned()]).await? {
        if let Some(parent) = row.parents.iter().find(|parent| parent.as_str() == of_stream.shard) {
            lost.with(store, stream, readable(&of_stream)?, &format!("of parent {parent}: ")).await?;
        }
    }
    Ok(lost)
}

fn readable(lease: &Lease) -> Result<&LeaseRow, Failure> {
    lease.row.as_ref().map_err(|problem| Failure::start(anyhow!("{problem}")))
}

impl Lost {
    /// Also what `row` has committed; `of` begins each line.
    async fn with(&mut self, store: &Store, stream: &str, row: &LeaseRow, of: &str) -> Result<(), Failure> {
        let Some(manifest) = &row.manifest else { return Ok(()) };
        let checkpoint = row.checkpoint.to_string();
        if manifest.checkpoint != checkpoint {
            self.problem(format!("{of}the state is of checkpoint {}, the row of {checkpoint}", manifest.checkpoint));
        }
        let id = store.log.identify(stream).await.with_context(|| format!("stream {stream}"))?;
        let parts = match inspect::row_parts(&store.table, &store.tables, &id, row).await {
            Ok(parts) => parts,
            Err(error) => {
                self.problem(format!("{of}the list of its parts cannot be read: {error}"));
                return Ok(());
            }
        };
        let chunks = Chunks::new(std::sync::Arc::clone(&store.table), store.tables.state(), id.clone());
        let read = async |part: &Part| chunks.get(part).await;
        for part in parts {
            self.parts += 1;
            let line = format!("{of}{}: {} of state", part.key, bytes(part.length));
            match inspect::read_part(&store.table, &store.tables, &id, row, &part, &read).await {
                Ok(_) => self.lines.push(format!("{line}, readable")),
                Err(error) => self.problem(format!("{line}, {error}")),
            }
        }
        Ok(())
    }

    fn problem(&mut self, line: String) {
        self.problems += 1;
        self.lines.push(line);
    }
}

async fn one(store: &Store, stream: &str, shard: &str) -> Result<Lease, Failure> {
    let found = leases(store, &[stream.to_owned()]).await?;
    let of_shard: Vec<&Lease> = found.iter().filter(|lease| lease.shard == shard).collect();
    Ok(only_one(shard, &of_shard)?.clone())
}

/// Whether it is to be done; if not, says what would be and that nothing was: a look is no failure.
pub(super) fn confirmed(decide: &Decide, consequence: &str) -> bool {
    if !decide.yes {
        note(&format!("nothing was written: {consequence}; add --yes to decide so"));
    }
    decide.yes
}

/// A word beside the result: on standard error, so that what is printed stays what was asked for.
pub(super) fn note(text: &str) {
    eprintln!("flowshift: {text}");
}

/// The outcome; `written`: what was decided, if anything was.
fn say(
    decide: &Decide,
    stream: &str,
    shard: &ShardId,
    written: Option<&Resolution>,
    lost: Value,
) -> Result<(), Failure> {
    if decide.json {
        let written = written.map(ToString::to_string);
        let all = json!({"stream": stream, "shard": shard.to_string(), "resolution": written, "lost": lost});
        print_line(&serde_json::to_string_pretty(&all).map_err(Failure::start)?);
    } else if let Some(written) = written {
        print_line(&format!("{stream}/{shard}: decision {written} is written; its owner takes it at its next try"));
    }
    Ok(())
}
