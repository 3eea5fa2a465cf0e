//! `flowshift state inspect`: the stored parts of each shard, proven, with what our own payloads hold.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use flowshift_consumer::commit::{Chunks, PageIndex, Part, indexed_part};
use flowshift_consumer::inspect;
use flowshift_consumer::lease::LeaseRow;
use flowshift_consumer::run::lane_of_key;
use flowshift_consumer::stage::Mapper;
use flowshift_detector::FeedKind;
use serde_json::{Value, json};

use crate::cli::StateInspect;
use crate::command::store::Store;
use crate::command::text_table::{Cell, Tone, bytes, colours, render};
use crate::command::{Failure, print_line};
use crate::stage::aggregate::Aggregate;
use crate::stage::detect::LaneBody;
use crate::stage::{correlate, rules};

/// One part as found.
struct Found {
    stream: String,
    shard: String,
    part: Part,
    /// Bytes as stored, and what it holds; or what is wrong with it.
    content: Result<(u64, Value), String>,
}

pub(super) async fn run(store: &Store, args: &StateInspect) -> Result<(), Failure> {
    let mut found = Vec::new();
    let mut shards = Vec::new();
    for stream in store.streams(args.stream.as_deref())? {
        let rows = inspect::rows(&*store.table, &store.tables, &stream).await;
        let rows = rows.with_context(|| format!("leases of stream {stream}"))?;
        let id = store.log.identify(&stream).await.with_context(|| format!("stream {stream}"))?;
        let chunks = Chunks::new(Arc::clone(&store.table), store.tables.state(), id.clone());
        for row in rows.iter().filter(|row| args.shard.as_deref().is_none_or(|shard| row.shard.as_str() == shard)) {
            let parts = inspect::row_parts(&store.table, &store.tables, &id, row).await;
            shards.push(shard_json(&stream, row, parts.as_ref().err().map(ToString::to_string)));
            for part in parts.unwrap_or_default() {
                if args.lane.is_none_or(|lane| lane_of(&part.key) == Some(lane)) {
                    let read = async |part: &Part| Ok((chunks.get(part).await?, chunks.stored_bytes(part).await?));
                    // A running owner commits meanwhile: then it is a later one that is shown.
                    let read = inspect::read_part(&store.table, &store.tables, &id, row, &part, read).await;
                    let (part, content) = match read {
                        Ok((part, (plain, stored))) => {
                            let holds = holds(store, &part.key, &plain);
                            (part, holds.map(|holds| (stored, holds)))
                        }
                        Err(error) => (part, Err(error.to_string())),
                    };
                    found.push(Found { stream: stream.clone(), shard: row.shard.to_string(), part, content });
                }
            }
        }
    }
    if found.is_empty() && (args.lane.is_some() || args.shard.is_some()) {
        let what = args.lane.map_or_else(|| args.shard.clone().unwrap_or_default(), |lane| format!("lane {lane}"));
        return Err(Failure::usage(anyhow!(
            "nothing is stored of {what}; `flowshift state inspect` shows all there is"
        )));
    }
    if args.json {
        let parts: Vec<Value> = found.iter().map(part_json).collect();
        let all = json!({"job": store.config.job.as_str(), "shards": shards, "parts": parts});
        print_line(&serde_json::to_string_pretty(&all).map_err(Failure::start)?);
    } else {
        for problem in shards.iter().filter(|shard| !shard["problem"].is_null()) {
            print_line(&format!("{}/{}: {}", problem["stream"], problem["shard"], problem["problem"]));
        }
        const HEADINGS: [&str; 8] = ["STREAM", "SHARD", "PART", "GENERATION", "BYTES", "STORED", "FENCE", "HOLDS"];
        print_line(&render(&HEADINGS, &found.iter().map(cells).collect::<Vec<_>>(), colours()));
    }
    let unread = found.iter().filter(|part| part.content.is_err()).count();
    let unlisted = shards.iter().filter(|shard| !shard["problem"].is_null()).count();
    if unread == 0 && unlisted == 0 {
        return Ok(());
    }
    Err(Failure::start(anyhow!(
        "{unread} of {} parts cannot be read, nor what there is of {unlisted} shards; `flowshift leases resolve state` lets a \
         shard go on without",
        found.len()
    )))
}

/// The lane that a part, or the index of its pages, is of.
fn lane_of(key: &str) -> Option<u16> {
    lane_of_key(indexed_part(key).unwrap_or(key))
}

/// What our own payloads hold, in short; null for what the engine keeps for itself.
fn holds(store: &Store, key: &str, plain: &Bytes) -> Result<Value, String> {
    let failed = |e: &dyn std::error::Error| format!("proven, but cannot be decoded: {e}");
    if indexed_part(key).is_some() {
        let index = PageIndex::read(key, plain).map_err(|e| failed(&e))?;
        return Ok(
            json!({"pages": index.pages.len(), "page_bytes": index.pages.iter().map(|p| p.length).sum::<u64>()}),
        );
    }
    if lane_of_key(key).is_some() {
        let body = LaneBody::decode(plain).map_err(|e| failed(&e))?;
        let feeds = [FeedKind::Reports, FeedKind::FlowLogs].into_iter().filter_map(|kind| body.detector.feed(kind));
        let (mut pairs, mut judged) = (0, None);
        for feed in feeds {
            pairs += feed.pairs();
            judged = judged.max(feed.judged_until_s());
        }
        let account = &body.account;
        return Ok(json!({
            "pairs": pairs, "judged_until_s": judged, "records_in": account.records_in, "accounted": account.accounted,
        }));
    }
    if correlate::name(key) == correlate::PART {
        let body = correlate::Body::decode(plain).map_err(|e| failed(&e))?;
        let open = body.correlator.open_incidents().count();
        return Ok(json!({"incidents_open": open, "outbox": body.outbox.entries().len()}));
    }
    if correlate::name(key) == correlate::WORDS_PART {
        let words = correlate::words(plain).map_err(|e| failed(&e))?;
        return Ok(json!({"mutes": words.mutes().count(), "dismissals": words.dismissals().count()}));
    }
    if correlate::name(key) == correlate::WEBHOOKS_PART {
        let disabled = correlate::disabled(plain).map_err(|e| failed(&e))?;
        return Ok(json!({"webhooks_disabled": disabled.len()}));
    }
    if key.starts_with("shardId-") {
        let aggregate = Aggregate::new(rules::lanes(&store.config).map_err(|e| failed(&e))?);
        let state = aggregate.load(plain).map_err(|e| failed(&e))?;
        let mark = aggregate.watermarks(&state).get(0);
        return Ok(json!({"watermark_ms": (mark != i64::MIN && mark != i64::MAX).then_some(mark)}));
    }
    Ok(Value::Null)
}

fn shard_json(stream: &str, row: &LeaseRow, problem: Option<String>) -> Value {
    json!({
        "stream": stream,
        "shard": row.shard.to_string(),
        "checkpoint": row.checkpoint.to_string(),
        "state_checkpoint": row.manifest.as_ref().map(|manifest| manifest.checkpoint.clone()),
        "epoch": row.epoch,
        "directory": row.manifest.as_ref().map(|manifest| manifest.directory.is_some()),
        "problem": problem,
    })
}

fn part_json(found: &Found) -> Value {
    let part = &found.part;
    let (stored, holds, problem) = match &found.content {
        Ok((stored, holds)) => (Some(*stored), holds.clone(), None),
        Err(problem) => (None, Value::Null, Some(problem)),
    };
    json!({
        "stream": found.stream, "shard": found.shard, "part": part.key, "lane": lane_of(&part.key),
        "generation": part.generation, "base_generation": part.base_generation(), "deltas": part.deltas,
        "bytes": part.length, "stored_bytes": stored,
        "fence": {"epoch": part.epoch, "counter": part.counter},
        "holds": holds, "problem": problem,
    })
}

fn cells(found: &Found) -> Vec<Cell> {
    let part = &found.part;
    let generation = match part.deltas {
        0 => part.generation.to_string(),
        deltas => format!("{} (base {} + {deltas})", part.generation, part.base_generation()),
    };
    let (stored, holds) = match &found.content {
        Ok((stored, holds)) => (bytes(*stored), Cell::plain(words(holds))),
        Err(problem) => (String::new(), Cell::toned(problem, Tone::Bad)),
    };
    vec![
        Cell::plain(&found.stream),
        Cell::plain(&found.shard),
        Cell::plain(&part.key),
        Cell::plain(generation),
        Cell::plain(bytes(part.length)),
        Cell::plain(stored),
        Cell::plain(format!("{}.{}", part.epoch, part.counter)),
        holds,
    ]
}

/// `name value` pairs for people.
fn words(holds: &Value) -> String {
    let Some(fields) = holds.as_object() else { return String::new() };
    let said = fields.iter().filter(|(_, value)| !value.is_null());
    said.map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect::<Vec<_>>().join(", ")
}
