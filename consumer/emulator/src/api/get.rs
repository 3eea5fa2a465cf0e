//! `GetShardIterator` and `GetRecords`, and what `SubscribeToShard` shares with them: where reading starts and how
//! records are written.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{check_range, find_stream, parse_seconds, shards};
use crate::{
    config::{millis, now_ms},
    error::ApiError,
    ids::{Position, SequenceNumber},
    iterator::{self, ShardIterator},
    service::Service,
    shard::Shard,
    storage::Batch,
    stream::{Stream, storage_failure},
};

/// How far ahead of our clock a client's "now" may be.
const CLOCK_TOLERANCE_MS: u64 = 1_000;

/// Most records of one `GetRecords`.
const MAX_RECORDS: i64 = 10_000;
/// Most bytes of keys and data of one `GetRecords`.
const MAX_BYTES: u64 = 10 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetShardIterator {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_id: String,
    shard_iterator_type: String,
    starting_sequence_number: Option<String>,
    timestamp: Option<f64>,
}

pub(crate) fn get_shard_iterator(service: &Service, request: &GetShardIterator) -> Result<Value, ApiError> {
    let stream = find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let shard = stream.shard(shards::parse_id(&request.shard_id)?)?;
    if !shard.may_give_iterator() {
        return Err(ApiError::throughput_exceeded(format!("Rate exceeded for shard {}", request.shard_id)));
    }
    let number = request.starting_sequence_number.as_deref();
    let position = start(&stream, &shard, &request.shard_iterator_type, number, request.timestamp)?;
    Ok(json!({"ShardIterator": token(&stream, &shard, position)?}))
}

fn token(stream: &Stream, shard: &Shard, position: Position) -> Result<String, ApiError> {
    let token = ShardIterator {
        stream: stream.name.clone(),
        created_ms: stream.created_ms,
        shard: shard.spec.index,
        position,
        issued_ms: now_ms(),
    };
    iterator::encode(&token).map_err(|e| storage_failure(&e))
}

/// Where reading starts by type, sequence number and time.
pub(crate) fn start(
    stream: &Stream,
    shard: &Shard,
    kind: &str,
    number: Option<&str>,
    time: Option<f64>,
) -> Result<Position, ApiError> {
    let retention_ms = stream.topology().retention_ms;
    match kind {
        "TRIM_HORIZON" => Ok(shard.lock().horizon(retention_ms)),
        "LATEST" => Ok(shard.lock().log.next()),
        "AT_SEQUENCE_NUMBER" => position(stream, shard, number),
        "AFTER_SEQUENCE_NUMBER" => Ok(position(stream, shard, number)?.plus(1)),
        "AT_TIMESTAMP" => {
            let time = time.ok_or_else(|| ApiError::invalid_argument("AT_TIMESTAMP needs a Timestamp"))?;
            let (at_ms, now_ms) = (parse_seconds("timestamp", time)?, now_ms());
            // A client's clock is finer than ours and may run a little ahead; an hour ahead is a mistake.
            if at_ms > now_ms.saturating_add(CLOCK_TOLERANCE_MS) {
                return Err(ApiError::invalid_argument(format!(
                    "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: {at_ms}, currentTimestampInMillis: {now_ms}"
                )));
            }
            Ok(shard.lock().log.first_at(at_ms.max(now_ms.saturating_sub(retention_ms))))
        }
        other => Err(ApiError::validation(format!("{other:?} is not a type of shard iterator"))),
    }
}

/// The position of a sequence number that this shard gave out, or could give out next.
fn position(stream: &Stream, shard: &Shard, number: Option<&str>) -> Result<Position, ApiError> {
    let number = number.ok_or_else(|| ApiError::invalid_argument("a starting sequence number is needed"))?;
    let parsed: Option<SequenceNumber> = number.parse().ok();
    // One below the start is what a subscription to an empty shard gives as its continuation.
    let valid = shard.spec.start.previous()..=shard.lock().log.next();
    match parsed {
        Some(parsed) if parsed.shard == shard.spec.index && valid.contains(&parsed.position) => Ok(parsed.position),
        _ => Err(ApiError::invalid_argument(format!(
            "StartingSequenceNumber {} used on shard {} in stream {} under account {} is invalid because it did not come from this shard.",
            number.chars().take(130).collect::<String>(),
            shard.spec.index,
            stream.name,
            stream.config.account_id
        ))),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetRecords {
    shard_iterator: String,
    limit: Option<i64>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
}

pub(crate) fn get_records(service: &Service, request: &GetRecords) -> Result<Vec<u8>, ApiError> {
    let limit = check_range("limit", request.limit.unwrap_or(MAX_RECORDS), MAX_RECORDS)?;
    let iterator: ShardIterator = iterator::decode(&request.shard_iterator)
        .ok_or_else(|| ApiError::invalid_argument("Invalid ShardIterator."))?;
    let age_ms = now_ms().saturating_sub(iterator.issued_ms);
    if age_ms > millis(service.config.iterator_ttl) {
        return Err(ApiError::expired_iterator(format!(
            "Iterator expired. The iterator was created {age_ms} ms ago, more than the tolerated age of {} ms.",
            millis(service.config.iterator_ttl)
        )));
    }
    let stream = find_stream(service, Some(&iterator.stream), request.stream_arn.as_deref())?;
    if stream.created_ms != iterator.created_ms {
        return Err(stream.not_found());
    }
    let shard = stream.shard(iterator.shard)?;
    if !shard.may_read() {
        return Err(ApiError::throughput_exceeded(format!(
            "Rate exceeded for shard {} in stream {} under account {}.",
            iterator.shard, stream.name, service.config.account_id
        )));
    }
    let retention_ms = stream.topology().retention_ms;
    let outcome = shard.read(iterator.position, limit, MAX_BYTES, retention_ms).map_err(|e| storage_failure(&e))?;
    shard.count_read(outcome.batch.bytes);
    service.counters.records_out.add(outcome.batch.count as u64);

    let mut body = Vec::with_capacity(answer_size(&outcome.batch));
    body.extend_from_slice(b"{\"Records\":");
    write_records(&mut body, &shard, &outcome.batch)?;
    body.extend_from_slice(format!(",\"MillisBehindLatest\":{}", outcome.behind_ms).as_bytes());
    let rest = match outcome.ended {
        Some(children) => json!({"ChildShards": shards::describe_children(&stream, &children)}),
        None => json!({"NextShardIterator": token(&stream, &shard, outcome.batch.next)?}),
    };
    // Both ends are objects: the second goes on where the first stops.
    body.push(b',');
    body.extend_from_slice(rest.to_string().trim_start_matches('{').as_bytes());
    Ok(body)
}

/// About how many bytes the answer takes.
pub(crate) fn answer_size(batch: &Batch) -> usize {
    usize::try_from(batch.bytes).unwrap_or(0) / 3 * 4 + batch.count * 200 + 1024
}

/// Writes records as a JSON array.
pub(crate) fn write_records(out: &mut Vec<u8>, shard: &Shard, batch: &Batch) -> Result<(), ApiError> {
    out.push(b'[');
    let mut base64 = String::new();
    for (i, frame) in batch.frames().enumerate() {
        let frame = frame.map_err(|e| storage_failure(&e))?;
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"PartitionKey\":");
        serde_json::to_writer(&mut *out, frame.partition_key).map_err(|e| storage_failure(&e))?;
        base64.clear();
        STANDARD.encode_string(frame.data, &mut base64);
        let (seconds, ms) = (frame.arrival_ms / 1000, frame.arrival_ms % 1000);
        let number = shard.sequence(frame.position);
        out.extend_from_slice(
            format!(",\"SequenceNumber\":\"{number}\",\"ApproximateArrivalTimestamp\":{seconds}.{ms:03},\"Data\":\"")
                .as_bytes(),
        );
        out.extend_from_slice(base64.as_bytes());
        out.extend_from_slice(b"\"}");
    }
    out.push(b']');
    Ok(())
}
