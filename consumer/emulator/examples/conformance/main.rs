//! Does a Kinesis behave as AWS documents? One program for ours and for others', through the official SDK.
//!
//! ```text
//! conformance [--endpoint URL] [--name NAME] [--slow] [--small] [--json FILE] [--peer-json FILE]
//! ```
//! Without `--endpoint` our emulator is started in process (a second one, with the limits of AWS on, serves the
//! checks of limits). `--small` leaves out checks of volume, `--slow` waits five minutes for an iterator to expire.
//! Exits with 1 when a check fails that is not a known difference of that target.
#![allow(missing_docs)]

mod context;
mod fanout;
mod known;
mod lists;
mod load;
mod records;
mod reshard;

use std::{collections::BTreeMap, future::Future, pin::Pin, process::ExitCode};

use context::{Context, Verdict};
use serde_json::{Value, json};

/// A check: its name in tables, and how to run it.
type Check = (&'static str, fn(Context) -> Pin<Box<dyn Future<Output = Verdict> + Send>>);

/// Turns an async function into an entry of the list.
macro_rules! checks {
    ($($title:literal => $module:ident :: $name:ident,)*) => {
        &[$(($title, |context| Box::pin($module::$name(context))),)*]
    };
}

const CHECKS: &[Check] = checks! {
    "CreateStream provisioned becomes ACTIVE" => lists::create_provisioned,
    "CreateStream on demand without a count" => lists::create_on_demand,
    "CreateStream of an existing name is refused" => lists::create_twice,
    "DescribeStreamSummary is complete" => lists::summary,
    "ListShards ExclusiveStartShardId" => lists::exclusive_start,
    "ListShards MaxResults and NextToken" => lists::pages,
    "ListShards by StreamARN" => lists::by_arn,
    "ShardFilter AT_LATEST" => lists::filter_latest,
    "ShardFilter AT_TRIM_HORIZON" => lists::filter_trim_horizon,
    "ShardFilter AFTER_SHARD_ID" => lists::filter_after,
    "ShardFilter AT_TIMESTAMP, FROM_TIMESTAMP" => lists::filter_timestamp,
    "PutRecords 500: MD5 routing, order, growing numbers" => records::routing,
    "ExplicitHashKey decides the shard" => records::explicit_hash,
    "PutRecords 501 is refused" => records::put_501,
    "a record above 1 MiB is refused" => records::large_record,
    "a request of 6 MB is accepted" => records::request_6mb,
    "a request of 11 MB is refused" => records::request_11mb,
    "iterators AT, AFTER, TRIM_HORIZON, LATEST" => records::iterators,
    "AT_TIMESTAMP behind the last record is empty" => records::timestamp_none,
    "AT_TIMESTAMP between two records" => records::timestamp_between,
    "AT_TIMESTAMP in the future is refused" => records::timestamp_future,
    "AFTER a bad sequence number: InvalidArgument" => records::bad_sequence,
    "a garbage iterator: InvalidArgument" => records::garbage_iterator,
    "ApproximateArrivalTimestamp in milliseconds" => records::arrival,
    "MillisBehindLatest when behind and at the tip" => records::behind,
    "GetRecords gives at most 10,000 records" => records::cap_records,
    "GetRecords gives at most 10 MB" => records::cap_bytes,
    "GetRecords Limit 10001 is refused" => records::limit_10001,
    "an iterator expires" => records::expiry,
    "Put, GetShardIterator, GetRecords by StreamARN" => records::by_arn,
    "writes above the limit of a shard are throttled" => records::throttled_writes,
    "reads above 5 a second are throttled" => records::throttled_reads,
    "SplitShard: parents, ranges, numbers" => reshard::split,
    "MergeShards: both parents" => reshard::merge,
    "a closed shard ends: no NextShardIterator" => reshard::closed_ends,
    "ChildShards at the end of a shard" => reshard::children,
    "MergeShards of closed shards is refused" => reshard::merge_closed,
    "UpdateShardCount 2 to 4 to 3, with parents" => reshard::update_count,
    "SubscribeToShard pushes every record" => fanout::records,
    "SubscribeToShard ends with ChildShards" => fanout::ends,
    "a second SubscribeToShard within 5 s is refused" => fanout::second,
    "6 writers and a tailing reader lose nothing" => load::tail,
    "split and merge under 4 writers lose nothing" => load::reshard,
    "a deleted stream is not found" => lists::delete,
};

/// Longest account of a difference in the table, in characters.
const MAX_NOTE: usize = 70;

#[derive(Debug, Default)]
struct Args {
    endpoint: Option<String>,
    name: Option<String>,
    json: Option<String>,
    peer_json: Option<String>,
    slow: bool,
    small: bool,
}

fn args() -> Result<Args, String> {
    let mut args = Args::default();
    let mut rest = std::env::args().skip(1);
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--endpoint" => args.endpoint = Some(value()?),
            "--name" => args.name = Some(value()?),
            "--json" => args.json = Some(value()?),
            "--peer-json" => args.peer_json = Some(value()?),
            "--slow" => args.slow = true,
            "--small" => args.small = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(args)
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match args() {
        Ok(args) => run(args).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(64)
        }
    }
}

async fn run(args: Args) -> Result<bool, String> {
    let name = args.name.unwrap_or_else(|| if args.endpoint.is_some() { "other" } else { "ours" }.to_owned());
    let (context, _emulators) = Context::new(args.endpoint.as_deref(), args.small, args.slow).await?;
    let peer: BTreeMap<String, Value> = match args.peer_json {
        Some(file) => {
            let text = std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
            serde_json::from_str(&text).map_err(|e| format!("{file}: {e}"))?
        }
        None => BTreeMap::new(),
    };
    let peer_name = peer.get("name").and_then(Value::as_str).unwrap_or("").to_owned();

    println!("{:<52} {:<8} {:<14} note", "check", name, peer_name);
    let mut results = BTreeMap::from([("name".to_owned(), json!(name))]);
    let mut unexpected = 0;
    for (i, (title, check)) in CHECKS.iter().enumerate() {
        let verdict = check(context.named(i)).await;
        let known = known::reason(&name, title);
        let (word, mut note) = match &verdict {
            Verdict::Ok(note) => ("ok", note.clone()),
            Verdict::Skipped(why) => ("-", why.clone()),
            Verdict::Differs(what) if known.is_some() => ("known", what.clone()),
            Verdict::Differs(what) => {
                unexpected += 1;
                ("DIFFERS", what.clone())
            }
        };
        if note.chars().count() > MAX_NOTE {
            note = note.chars().take(MAX_NOTE).chain("..".chars()).collect();
        }
        if let Some(reason) = known {
            let seen =
                if matches!(verdict, Verdict::Differs(_)) { reason } else { "a known difference that was not seen" };
            note = format!("{note} [{seen}]");
        }
        let other = peer
            .get(*title)
            .map_or(("", ""), |p| (p["verdict"].as_str().unwrap_or(""), p["note"].as_str().unwrap_or("")));
        if other.0 == "known" || other.0 == "DIFFERS" {
            note = format!("{note}; {peer_name}: {}", other.1);
        }
        println!("{title:<52} {word:<8} {:<14} {}", other.0, note.trim_start_matches("; "));
        results.insert((*title).to_owned(), json!({"verdict": word, "note": note}));
    }
    if let Some(file) = args.json {
        let text = serde_json::to_string_pretty(&results).map_err(|e| e.to_string())?;
        std::fs::write(&file, text).map_err(|e| format!("{file}: {e}"))?;
    }
    println!("{} checks, {unexpected} unexpected differences", CHECKS.len());
    Ok(unexpected == 0)
}
