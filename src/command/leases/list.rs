//! `flowshift leases list`: every shard as a line, or as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::inspect::{self, InspectError};
use flowshift_consumer::lease::{Checkpoint, LeaseRow};
use flowshift_consumer::table::TableError;
use futures::StreamExt;
use serde_json::{Value, json};

use super::look::{Lease, leases};
use super::status::{Kind, Known, Lag, lag, nobody, status, stopped};
use super::watch::{Sign, Signs, watch};
use crate::cli::LeasesList;
use crate::command::store::Store;
use crate::command::text_table::{Cell, Tone, bytes, colours, paint, render, span};
use crate::command::{Failure, print_line};

/// Bytes of committed state by (stream, shard), or why its parts cannot be named.
type Sizes = BTreeMap<(String, String), Result<u64, String>>;

/// What is shown of the leases, beside the leases.
struct Seen<'a> {
    store: &'a Store,
    signs: Signs,
    sizes: Sizes,
    known: Known,
    now_ms: i64,
}

impl Seen<'_> {
    fn kind(&self, lease: &Lease) -> Kind {
        let streams = &self.store.config.streams;
        match &lease.stream {
            stream if *stream == streams.flows => Kind::Flows,
            stream if *stream == streams.exchange => Kind::Exchange,
            _ => Kind::Evidence,
        }
    }

    fn size(&self, lease: &Lease) -> Option<&Result<u64, String>> {
        self.sizes.get(&(lease.stream.clone(), lease.shard.clone()))
    }

    /// Why the shard stands still, where that is known.
    fn stopped(&self, lease: &Lease, row: &LeaseRow) -> Option<String> {
        let problem = self.size(lease).and_then(|size| size.as_ref().err());
        stopped(row, problem.map(String::as_str))
    }

    fn sign(&self, lease: &Lease) -> Option<&Sign> {
        lease.holder().and_then(|owner| self.signs.get(owner))
    }
}

/// Directories read at once.
const READS: usize = 16;
/// Looks longer than the renewal time by this much, so that a live owner is seen to move.
const GRACE: Duration = Duration::from_secs(1);

pub(super) async fn run(store: &Store, args: &LeasesList) -> Result<(), Failure> {
    let streams = store.streams(args.stream.as_deref())?;
    let found = leases(store, &streams).await?;
    let owners: BTreeSet<String> = found.iter().filter_map(|lease| lease.holder().map(str::to_owned)).collect();
    let signs = if args.no_wait && !store.stopped {
        owners.iter().map(|owner| (owner.clone(), Sign::Unknown)).collect()
    } else {
        watch(store, &found, &owners, store.config.engine.renewal.get() + GRACE).await?
    };
    let leader = match inspect::workers(&*store.table, &store.tables).await {
        Err(InspectError::Table(TableError::NotFound(_))) => None,
        other => other.context("the leader's lock cannot be read")?.leader,
    };
    let sizes = state_bytes(store, &streams, &found).await?;
    let known = Known::of(store, &found).await;
    let seen = Seen { store, signs, sizes, known, now_ms: WallClock::system().now_ms() };
    let problem = nobody(&found, &seen.signs);
    if args.json {
        let leases: Vec<Value> = found.iter().map(|lease| lease_json(lease, &seen)).collect();
        let job = store.config.job.as_str();
        let all = json!({"job": job, "leader": leader, "problem": problem, "leases": leases});
        print_line(&serde_json::to_string_pretty(&all).map_err(Failure::start)?);
        return Ok(());
    }
    if found.is_empty() {
        let tables: Vec<String> = streams.iter().map(|stream| store.tables.leases(stream).name).collect();
        let job = &store.config.job;
        print_line(&format!("job {job} has no leases yet (tables {}): no worker has led it", tables.join(", ")));
        return Ok(());
    }
    const HEADINGS: [&str; 12] = [
        "STREAM",
        "SHARD",
        "OWNER",
        "BEAT",
        "COUNTER",
        "CHECKPOINT",
        "PENDING",
        "EPOCH",
        "CUT",
        "STATE",
        "STATUS",
        "LAG",
    ];
    let rows: Vec<Vec<Cell>> = found.iter().map(|lease| cells(lease, &seen)).collect();
    print_line(&render(&HEADINGS, &rows, colours()));
    for lease in &found {
        if let Some(why) = lease.row.as_ref().ok().and_then(|row| seen.stopped(lease, row)) {
            let line = format!("{}/{}: {why}", lease.stream, lease.shard);
            print_line(&paint(&Cell::toned(line, Tone::Bad), colours()));
        }
    }
    print_line(&summary(&found, &seen.signs, leader.as_deref()));
    if let Some(problem) = problem {
        print_line(&paint(&Cell::toned(problem, Tone::Bad), colours()));
    }
    Ok(())
}

fn summary(found: &[Lease], signs: &Signs, leader: Option<&str>) -> String {
    let ended = |lease: &&Lease| matches!(&lease.row, Ok(row) if row.checkpoint == Checkpoint::ShardEnd);
    let done = found.iter().filter(ended).count();
    let free = found.iter().filter(|lease| !ended(lease) && lease.holder().is_none()).count();
    let live = signs.values().filter(|sign| matches!(sign, Sign::Live(_))).count();
    let leader = leader.map_or_else(|| "no leader".to_owned(), |id| format!("leader {id}"));
    format!(
        "{} leases: {free} without an owner, {done} ended; {} owners, {live} seen to live; {leader}",
        found.len(),
        signs.len()
    )
}

fn cells(lease: &Lease, seen: &Seen<'_>) -> Vec<Cell> {
    let mut cells = vec![Cell::plain(&lease.stream), Cell::plain(&lease.shard)];
    let row = match &lease.row {
        Ok(row) => row,
        Err(problem) => {
            cells.push(Cell::toned(problem, Tone::Bad));
            return cells;
        }
    };
    let owner = match (&row.owner, &row.checkpoint_owner) {
        (Some(next), Some(old)) => format!("{old} -> {next}"),
        (owner, _) => owner.clone().unwrap_or_default(),
    };
    let (beat, tone) = beat(seen.sign(lease));
    cells.push(Cell::toned(owner, tone));
    cells.push(Cell::toned(beat, tone));
    cells.push(Cell::plain(row.counter.to_string()));
    cells.push(Cell::plain(short(&row.checkpoint.to_string())));
    cells.push(Cell::plain(row.pending.as_ref().map(|p| short(&p.to_string())).unwrap_or_default()));
    cells.push(Cell::plain(row.epoch.map(|epoch| epoch.to_string()).unwrap_or_default()));
    cells.push(Cell::plain(row.cut.as_ref().map(|cut| cut.n.to_string()).unwrap_or_default()));
    cells.push(match seen.size(lease) {
        Some(Err(_)) => Cell::toned("unreadable", Tone::Bad),
        size => Cell::plain(size.and_then(|size| size.as_ref().ok()).map(|size| bytes(*size)).unwrap_or_default()),
    });
    let why = seen.stopped(lease, row);
    let (status, tone) = status(lease, row, seen.kind(lease), why.as_deref(), &seen.signs, &seen.known);
    cells.push(Cell::toned(status, tone));
    cells.push(Cell::plain(match lag(row, seen.kind(lease), &seen.known, seen.now_ms) {
        None => String::new(),
        Some(Lag::Tip) => "tip".to_owned(),
        Some(Lag::Behind(seconds)) => span(seconds),
    }));
    cells
}

fn beat(sign: Option<&Sign>) -> (String, Tone) {
    match sign {
        Some(Sign::Live(age)) => (format!("{} ago", span(age.as_secs_f64())), Tone::Good),
        Some(Sign::Silent(span_)) => (format!("none in {}", span(span_.as_secs_f64())), Tone::Bad),
        Some(Sign::Stopped) => ("stopped".into(), Tone::Dim),
        Some(Sign::Unknown) => ("?".into(), Tone::Plain),
        None => (String::new(), Tone::Plain),
    }
}

/// Sequence numbers have 56 digits; their ends tell them apart.
fn short(checkpoint: &str) -> String {
    let digits = checkpoint.bytes().all(|b| b.is_ascii_digit());
    if digits && checkpoint.len() > 16 {
        format!("..{}", &checkpoint[checkpoint.len() - 14..])
    } else {
        checkpoint.to_owned()
    }
}

/// Committed state before compression, by (stream, shard); or why its directory cannot be read.
async fn state_bytes(store: &Store, streams: &[String], found: &[Lease]) -> Result<Sizes, Failure> {
    let mut sizes = Sizes::new();
    for stream in streams {
        let rows = found.iter().filter(|lease| lease.stream == *stream).filter_map(|lease| lease.row.as_ref().ok());
        let rows: Vec<&LeaseRow> = rows.filter(|row| row.manifest.is_some()).collect();
        if rows.is_empty() {
            continue;
        }
        let id = store.log.identify(stream).await.with_context(|| format!("stream {stream}"))?;
        let (table, tables, id) = (&store.table, &store.tables, &id);
        let read = futures::stream::iter(rows)
            .map(|row| async move { (row, inspect::row_parts(table, tables, id, row).await) })
            .buffer_unordered(READS);
        for (row, parts) in read.collect::<Vec<_>>().await {
            let bytes = parts.map(|parts| parts.iter().map(|part| part.length).sum::<u64>());
            sizes.insert((stream.clone(), row.shard.to_string()), bytes.map_err(|error| error.to_string()));
        }
    }
    Ok(sizes)
}

fn lease_json(lease: &Lease, seen: &Seen<'_>) -> Value {
    let row = match &lease.row {
        Ok(row) => row,
        Err(problem) => return json!({"stream": lease.stream, "shard": lease.shard, "problem": problem}),
    };
    let (sign, kind) = (seen.sign(lease), seen.kind(lease));
    let stopped = seen.stopped(lease, row);
    let (state, _) = status(lease, row, kind, stopped.as_deref(), &seen.signs, &seen.known);
    let lag = match lag(row, kind, &seen.known, seen.now_ms) {
        Some(Lag::Behind(seconds)) => Some(seconds),
        Some(Lag::Tip) | None => None,
    };
    let live = match sign {
        Some(Sign::Live(_)) => Some(true),
        Some(Sign::Silent(_) | Sign::Stopped) => Some(false),
        Some(Sign::Unknown) | None => None,
    };
    let age = match sign {
        Some(Sign::Live(age)) => Some(age.as_secs_f64()),
        _ => None,
    };
    let cut = row.cut.as_ref().map(|cut| {
        json!({"n": cut.n, "records": cut.records, "end": cut.end, "watermarks_ms": cut.watermarks, "lanes": cut.lanes})
    });
    json!({
        "stream": lease.stream,
        "shard": lease.shard,
        "owner": row.owner,
        "checkpoint_owner": row.checkpoint_owner,
        "live": live,
        "beat_age_s": age,
        "counter": row.counter,
        "checkpoint": row.checkpoint.to_string(),
        "pending_checkpoint": row.pending.as_ref().map(ToString::to_string),
        "parents": row.parents.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "children": lease.children,
        "epoch": row.epoch,
        "cut": cut,
        "state_bytes": seen.size(lease).and_then(|size| size.as_ref().ok()),
        "shard_state": state,
        "stopped": stopped,
        "status": row.status.iter().map(|status| format!("{status:?}").to_lowercase()).collect::<Vec<_>>(),
        "at_tip": row.cut.as_ref().map(|_| row.at_tip),
        "event_time_lag_s": lag,
        "resolution": row.resolution.map(|resolution| resolution.to_string()),
    })
}
