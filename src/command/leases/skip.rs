//! `flowshift leases resolve skip`: nobody waits any longer for the lanes of a shard that does not come on.
//!
//! The leader does the same by itself after `engine.stuck_after`; this is for sooner, or for further. What is given up is
//! said first: by default the steps that every other exchange shard has judged, and no more.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use flowshift_consumer::exchange::LaneId;
use flowshift_consumer::inspect;
use flowshift_consumer::log::Entry;
use flowshift_consumer::resolve;
use flowshift_consumer::skip::{LaneShard, Reached, all_reached};
use flowshift_proto::anomaly::rfc3339;
use humantime_serde::re::humantime::parse_rfc3339_weak;
use serde_json::{Value, json};

use super::resolve::{confirmed, note};
use crate::cli::ResolveSkip;
use crate::command::store::Store;
use crate::command::{Failure, print_line};
use crate::stage::correlate::{feed_kind, skip_records};
use crate::stage::rules;

pub(super) async fn run(store: &Store, args: &ResolveSkip) -> Result<(), Failure> {
    let stream = &store.config.streams.exchange;
    let job_lanes = rules::lanes(&store.config).map_err(Failure::start)?;
    let rows = inspect::rows(&*store.table, &store.tables, stream).await;
    let rows = rows.with_context(|| format!("leases of {stream}"))?;
    let shards = LaneShard::of_rows(&rows, job_lanes);
    let (chosen, others): (Vec<LaneShard>, Vec<LaneShard>) =
        shards.into_iter().partition(|s| s.shard.as_str() == args.shard);
    let Some(chosen) = chosen.into_iter().next() else {
        let open: Vec<String> = others.iter().map(|shard| shard.shard.to_string()).collect();
        let open = if open.is_empty() { "none".to_owned() } else { open.join(", ") };
        return Err(Failure::usage(anyhow!("{stream}/{}: no lane waits for it; lanes wait for: {open}", args.shard)));
    };
    let lanes = lanes_of(&chosen, args)?;
    let until = match &args.until {
        Some(text) => [Some(moment_ms(text)?); 4],
        None => all_reached(others.iter()),
    };
    let skipped = skips(store, &chosen, &lanes, &until)?;
    if !args.decide.json {
        summary(&skipped).iter().for_each(|line| print_line(line));
    }
    if skipped.is_empty() {
        let why = match args.until {
            None => "it is not behind the other shards, or there is none that says how far it is (--until says it)",
            Some(_) => "its lanes have judged all steps up to then",
        };
        note(&format!("{stream}/{}: {why}; nothing was written", args.shard));
    }
    let told: Vec<Value> = skipped.iter().map(Skip::json).collect();
    let write = !skipped.is_empty() && confirmed(&args.decide, "what the lanes say later of these steps is dropped");
    let evidence = &store.config.streams.evidence;
    if write {
        let records: Vec<Entry> = skipped.into_iter().map(|skip| skip.entry).collect();
        resolve::skip(&*store.log, evidence, records).await.with_context(|| format!("SKIP records for {evidence}"))?;
    }
    if args.decide.json {
        let all = json!({"stream": evidence, "shard": args.shard, "written": write, "skipped": told});
        print_line(&serde_json::to_string_pretty(&all).map_err(Failure::start)?);
    } else if write {
        print_line(&format!("{} records put into {evidence}: valid from there on", told.len()));
    }
    Ok(())
}

/// One lane, one kind.
struct Skip {
    lane: LaneId,
    kind: String,
    /// Up to where its shard has judged, epoch milliseconds.
    reached_ms: Option<i64>,
    until_ms: i64,
    entry: Entry,
}

/// A line for all lanes of a kind that stand at the same place.
fn summary(skips: &[Skip]) -> Vec<String> {
    let mut places: BTreeMap<(&str, Option<i64>, i64), Vec<u16>> = BTreeMap::new();
    for skip in skips {
        places.entry((&skip.kind, skip.reached_ms, skip.until_ms)).or_default().push(skip.lane.index());
    }
    let line = |((kind, reached_ms, until_ms), lanes): (&(&str, Option<i64>, i64), &Vec<u16>)| {
        let reached = reached_ms.and_then(time).unwrap_or_else(|| "nothing".to_owned());
        let until = time(*until_ms).unwrap_or_default();
        let lanes = ranges(lanes);
        format!("{lanes}: steps of {kind} up to {until} are not waited for; judged up to {reached}")
    };
    places.iter().map(line).collect()
}

/// `lane 3`, or `5 lanes (0-3, 7)`.
fn ranges(lanes: &[u16]) -> String {
    if let [lane] = lanes {
        return format!("lane {lane}");
    }
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for lane in lanes {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*lane) => *last = *lane,
            _ => ranges.push((*lane, *lane)),
        }
    }
    let text = ranges.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
    format!("{} lanes ({})", lanes.len(), text.collect::<Vec<_>>().join(", "))
}

impl Skip {
    fn json(&self) -> Value {
        json!({"lane": self.lane.index(), "kind": self.kind, "until_ms": self.until_ms, "reached_ms": self.reached_ms})
    }
}

fn skips(store: &Store, shard: &LaneShard, lanes: &[LaneId], until: &Reached) -> Result<Vec<Skip>, Failure> {
    let records = skip_records(&rules::detector_settings(&store.config).map_err(Failure::start)?);
    let mut skips = Vec::new();
    for (kind, moment_ms) in until.iter().enumerate() {
        let (Some(moment_ms), Some(feed)) = (moment_ms, feed_kind(kind)) else { continue };
        for lane in lanes {
            let Some(record) = records.record(*lane, kind, *moment_ms) else { continue };
            if shard.is_behind(kind, record.until_ms) {
                let (reached_ms, until_ms) = (shard.reached[kind], record.until_ms);
                skips.push(Skip { lane: *lane, kind: feed.to_string(), reached_ms, until_ms, entry: record.entry });
            }
        }
    }
    Ok(skips)
}

fn lanes_of(shard: &LaneShard, args: &ResolveSkip) -> Result<Vec<LaneId>, Failure> {
    let of_shard = |index: &u16| shard.lanes.iter().copied().find(|lane| lane.index() == *index);
    let mut lanes = Vec::new();
    for index in &args.lanes {
        let Some(lane) = of_shard(index) else {
            let has: Vec<String> = shard.lanes.iter().map(ToString::to_string).collect();
            return Err(Failure::usage(anyhow!("--lane {index}: shard {} has lanes {}", args.shard, has.join(", "))));
        };
        lanes.push(lane);
    }
    Ok(if lanes.is_empty() { shard.lanes.clone() } else { lanes })
}

fn moment_ms(text: &str) -> Result<i64, Failure> {
    let bad = || Failure::usage(anyhow!("--until {text}: write a time such as 2026-11-22T10:30:00Z"));
    let since =
        parse_rfc3339_weak(text).map_err(|_| bad())?.duration_since(std::time::UNIX_EPOCH).map_err(|_| bad())?;
    i64::try_from(since.as_millis()).map_err(|_| bad())
}

fn time(ms: i64) -> Option<String> {
    rfc3339(ms.div_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn skip(lane: u16, kind: &str, reached_ms: Option<i64>) -> Skip {
        let lane = flowshift_consumer::exchange::Lanes::new(8).unwrap().get(lane).unwrap();
        let entry = Entry { partition_key: String::new(), hash_key: None, data: Bytes::new() };
        Skip { lane, kind: kind.to_owned(), reached_ms, until_ms: 1_795_310_600_000, entry }
    }

    /// A job of 256 lanes printed 512 lines.
    #[test]
    fn lanes_that_stand_at_the_same_place_share_a_line() {
        let mut skips: Vec<Skip> = [0, 1, 2, 5].map(|lane| skip(lane, "reports", Some(1_795_310_000_000))).into();
        skips.push(skip(3, "reports", None));
        let until = "up to 2026-11-22T01:23:20Z are not waited for; judged up to";
        let expected = [
            format!("lane 3: steps of reports {until} nothing"),
            format!("4 lanes (0-2, 5): steps of reports {until} 2026-11-22T01:13:20Z"),
        ];
        assert_eq!(summary(&skips), expected);
    }
}
