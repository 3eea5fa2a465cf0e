//! What really comes in: a few recent records, read as AGGREGATE reads them, and how many of their flows find their
//! subnets.
//!
//! One short read of each of some shards, from a few minutes ago. Nothing is committed, no lease is needed; the reads
//! count against the five a second that a shard allows. `tally` is the pure part. Not here: repeats and lateness,
//! which need state.

mod guess;
mod tally;

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::kpl::{self, Kpl, OutOfRange, Split};
use flowshift_consumer::log::kinesis::KinesisLog;
use flowshift_consumer::log::{Log, Record};
use flowshift_consumer::shard::{HashRange, SequenceNumber, Shard};
use flowshift_proto::decode::{InputFormat, Options};

use super::answer::Trouble;
use super::{Finding, Patient, topology};
use tally::Tally;

/// Shards that are looked at.
const SHARDS: usize = 8;
/// Kinesis records of a shard that are looked at.
const RECORDS: i32 = 100;
/// Reads of a shard: some are empty although records follow.
const READS: usize = 3;
/// How far back is recent.
const RECENT: Duration = Duration::from_secs(600);

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    if !patient.part.aggregates() {
        return vec![Finding::ok("", "this role does not read the flows stream")];
    }
    if let Some(blocked) = patient.blocked().await {
        return vec![blocked];
    }
    let stream = &patient.config.streams.flows;
    let records = match recent(&patient.clients.kinesis, stream).await {
        Ok(records) => records,
        Err(trouble) => {
            let fix = "see `streams` and `permissions`";
            return vec![Finding::skipped(stream, format!("no record could be read: {}", trouble.text()), fix)];
        }
    };
    let input = &patient.config.input;
    let formats = [InputFormat::Auto, InputFormat::Agent, InputFormat::FlowBatch, InputFormat::JsonLines];
    let format = formats.into_iter().find(|format| format.as_str() == input.format.as_str()).unwrap_or_default();
    let topology = topology::read(&patient.config).ok();
    let mut tally = Tally::default();
    for (range, record) in records {
        // Where an aggregate landed does not matter here.
        let kpl = Kpl { verify_md5: input.kpl_verify_md5, out_of_range: OutOfRange::Keep };
        let inside = match kpl::split(kpl, range, record) {
            Split::Plain { record, .. } => vec![record],
            Split::Aggregate { records, .. } => records,
        };
        for record in inside {
            let options = Options { format, arrival_ms: Some(record.arrived_ms), ..Options::default() };
            tally.take(&record.data, &options, topology.as_ref());
        }
    }
    tally.verdict(stream, topology.is_some())
}

/// Recent records, with the hash range of the shard each is from.
async fn recent(kinesis: &Client, stream: &str) -> Result<Vec<(HashRange, Record)>, Trouble> {
    let shards = KinesisLog::new(kinesis.clone()).shards(stream).await;
    let shards = shards.map_err(|error| Trouble::Unreachable(error.to_string()))?;
    let open = shards.into_iter().filter(|shard| !shard.closed).take(SHARDS);
    let reads = open.map(|shard| async move { of_shard(kinesis, stream, &shard).await });
    Ok(futures::future::try_join_all(reads).await?.into_iter().flatten().collect())
}

async fn of_shard(kinesis: &Client, stream: &str, shard: &Shard) -> Result<Vec<(HashRange, Record)>, Trouble> {
    let since = WallClock::system().now_ms().saturating_sub(i64::try_from(RECENT.as_millis()).unwrap_or(0));
    let asked = kinesis.get_shard_iterator().stream_name(stream).shard_id(shard.id.as_str());
    let asked = asked.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(DateTime::from_millis(since));
    let mut iterator = asked.send().await.map_err(|error| Trouble::of(&error))?.shard_iterator;
    for _ in 0..READS {
        let Some(place) = iterator else { break };
        let page = kinesis.get_records().shard_iterator(place).limit(RECORDS).send().await;
        let page = page.map_err(|error| Trouble::of(&error))?;
        if !page.records.is_empty() {
            return Ok(page.records.into_iter().filter_map(record).map(|record| (shard.range, record)).collect());
        }
        iterator = page.next_shard_iterator;
    }
    Ok(Vec::new())
}

fn record(record: aws_sdk_kinesis::types::Record) -> Option<Record> {
    let arrived = record.approximate_arrival_timestamp.and_then(|time| time.to_millis().ok());
    Some(Record {
        sequence: SequenceNumber::new(&record.sequence_number)?,
        sub_sequence: 0,
        arrived_ms: arrived.unwrap_or_default(),
        partition_key: record.partition_key.unwrap_or_default().into(),
        data: record.data.into_inner().into(),
    })
}
