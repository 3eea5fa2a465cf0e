//! The operations, one module per group, and what they share: reading requests and finding the stream meant.
//!
//! Every operation is a plain function from a request body to a JSON answer or an [`ApiError`]; it never waits. The
//! one exception, `SubscribeToShard`, answers with a stream of events.

pub(crate) mod consumers;
pub(crate) mod get;
pub(crate) mod put;
pub(crate) mod reshard;
pub(crate) mod shards;
pub(crate) mod streams;
pub(crate) mod subscribe;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    error::ApiError,
    faults::{PartialFailure, Target},
    iterator::{self, ShardIterator},
    service::Service,
    stream::Stream,
};

/// Every operation there is.
pub(crate) const OPERATIONS: [&str; 23] = [
    "CreateStream",
    "DecreaseStreamRetentionPeriod",
    "DeleteStream",
    "DeregisterStreamConsumer",
    "DescribeLimits",
    "DescribeStream",
    "DescribeStreamConsumer",
    "DescribeStreamSummary",
    "GetRecords",
    "GetShardIterator",
    "IncreaseStreamRetentionPeriod",
    "ListShards",
    "ListStreamConsumers",
    "ListStreams",
    "MergeShards",
    "PutRecord",
    "PutRecords",
    "RegisterStreamConsumer",
    "SplitShard",
    "SubscribeToShard",
    "UpdateShardCount",
    "UpdateStreamMode",
    "ListTagsForStream",
];

/// Runs an operation that answers with one JSON document.
pub(crate) fn call(
    service: &Service,
    operation: &str,
    body: &[u8],
    partial: Option<&PartialFailure>,
) -> Result<Vec<u8>, ApiError> {
    match operation {
        "PutRecords" => put::put_records(service, parse(body)?, partial),
        "PutRecord" => put::put_record(service, parse(body)?),
        "GetRecords" => get::get_records(service, &parse(body)?),
        _ => call_small(service, operation, body)
            .map(|value| if value.is_null() { Vec::new() } else { value.to_string().into() }),
    }
}

fn call_small(service: &Service, operation: &str, body: &[u8]) -> Result<Value, ApiError> {
    match operation {
        "CreateStream" => streams::create(service, &parse(body)?),
        "DecreaseStreamRetentionPeriod" => streams::change_retention(service, &parse(body)?, false),
        "DeleteStream" => streams::delete(service, &parse(body)?),
        "DeregisterStreamConsumer" => consumers::deregister(service, &parse(body)?),
        "DescribeLimits" => Ok(streams::describe_limits(service)),
        "DescribeStream" => streams::describe(service, &parse(body)?),
        "DescribeStreamConsumer" => consumers::describe(service, &parse(body)?),
        "DescribeStreamSummary" => streams::describe_summary(service, &parse(body)?),
        "GetShardIterator" => get::get_shard_iterator(service, &parse(body)?),
        "IncreaseStreamRetentionPeriod" => streams::change_retention(service, &parse(body)?, true),
        "ListShards" => shards::list(service, &parse(body)?),
        "ListStreamConsumers" => consumers::list(service, &parse(body)?),
        "ListStreams" => streams::list(service, &parse(body)?),
        "ListTagsForStream" => streams::list_tags(service, &parse(body)?),
        "MergeShards" => reshard::merge(service, &parse(body)?),
        "RegisterStreamConsumer" => consumers::register(service, &parse(body)?),
        "SplitShard" => reshard::split(service, &parse(body)?),
        "UpdateShardCount" => reshard::update_count(service, &parse(body)?),
        "UpdateStreamMode" => streams::update_mode(service, &parse(body)?),
        other => Err(ApiError::unknown_operation(format!("{other} is not an operation of this emulator"))),
    }
}

/// Reads a request body; unknown members are ignored, as AWS does.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|e| ApiError::serialization(format!("cannot read the request: {e}")))
}

/// What a request is about, for fault rules; empty where it does not say.
pub(crate) fn target(body: &[u8]) -> Target {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct Probe {
        stream_name: Option<String>,
        #[serde(rename = "StreamARN")]
        stream_arn: Option<String>,
        #[serde(rename = "ConsumerARN")]
        consumer_arn: Option<String>,
        shard_id: Option<String>,
        shard_to_split: Option<String>,
        shard_to_merge: Option<String>,
        shard_iterator: Option<String>,
    }
    let probe: Probe = serde_json::from_slice(body).unwrap_or_default();
    let iterator = probe.shard_iterator.as_deref().and_then(iterator::decode::<ShardIterator>);
    let arn = probe.stream_arn.or(probe.consumer_arn);
    let in_arn = arn.as_deref().and_then(name_in_arn).map(str::to_owned);
    Target {
        stream: probe.stream_name.or(in_arn).or_else(|| iterator.as_ref().map(|i| i.stream.clone())),
        shard: probe
            .shard_id
            .or(probe.shard_to_split)
            .or(probe.shard_to_merge)
            .or_else(|| iterator.map(|i| i.shard.to_string())),
    }
}

fn name_in_arn(arn: &str) -> Option<&str> {
    let resource = arn.strip_prefix("arn:")?.split(':').nth(4)?;
    resource.strip_prefix("stream/")?.split('/').next()
}

/// Finds the stream that a request names by name, by ARN or by both.
pub(crate) fn find_stream(service: &Service, name: Option<&str>, arn: Option<&str>) -> Result<Arc<Stream>, ApiError> {
    let Some(arn) = arn else {
        let name = name.ok_or_else(|| ApiError::validation("either StreamName or StreamARN must be given"))?;
        check_name("streamName", name)?;
        return service.stream(name);
    };
    let in_arn =
        name_in_arn(arn).ok_or_else(|| ApiError::invalid_argument(format!("{arn:?} is not the ARN of a stream")))?;
    if name.is_some_and(|name| name != in_arn) {
        return Err(ApiError::invalid_argument("StreamName and StreamARN name different streams"));
    }
    let stream = service.stream(in_arn)?;
    if stream.arn != arn {
        return Err(ApiError::not_found(format!("Stream {arn} not found.")));
    }
    Ok(stream)
}

/// Refuses what is not a name of a stream or a consumer: 1 to 128 of letters, digits, `_`, `.` and `-`.
pub(crate) fn check_name(member: &str, name: &str) -> Result<(), ApiError> {
    let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if (1..=128).contains(&name.len()) && name.bytes().all(sound) {
        return Ok(());
    }
    let shown: String = name.chars().take(140).collect();
    Err(constraint(
        &shown,
        member,
        "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+ of length 1 to 128",
    ))
}

/// The message AWS gives for a member out of its range.
pub(crate) fn constraint(value: &str, member: &str, rule: &str) -> ApiError {
    ApiError::validation(format!(
        "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {rule}"
    ))
}

/// Refuses a number outside `1..=most`.
pub(crate) fn check_range(member: &str, value: i64, most: i64) -> Result<usize, ApiError> {
    match usize::try_from(value) {
        Ok(size) if (1..=most).contains(&value) => Ok(size),
        _ if value < 1 => {
            Err(constraint(&value.to_string(), member, "Member must have value greater than or equal to 1"))
        }
        _ => {
            Err(constraint(&value.to_string(), member, &format!("Member must have value less than or equal to {most}")))
        }
    }
}

/// A point in time as the protocol writes it: seconds since 1970 with milliseconds behind the point.
pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// The first whole millisecond at or after a time of the protocol.
pub(crate) fn parse_seconds(member: &str, value: f64) -> Result<u64, ApiError> {
    let ms = value * 1000.0;
    if !(0.0..=1e15).contains(&ms) {
        return Err(constraint(&value.to_string(), member, "Member must be a time after 1970"));
    }
    // What a double loses of a millisecond must not move the time to the next one.
    let rounded = ms.round();
    Ok(if (ms - rounded).abs() < 0.001 { rounded as u64 } else { ms.ceil() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_to_the_millisecond_both_ways() {
        for ms in [0, 1, 999, 1_732_245_803_123, 1_795_000_000_001, 4_102_444_800_999] {
            let text = serde_json::to_string(&seconds(ms)).unwrap();
            let back: f64 = serde_json::from_str(&text).unwrap();
            assert_eq!(parse_seconds("t", back), Ok(ms), "{text}");
        }
        assert_eq!(parse_seconds("t", 1.0004), Ok(1001));
        assert!(parse_seconds("t", -1.0).is_err());
        assert!(parse_seconds("t", f64::NAN).is_err());
        assert!(parse_seconds("t", 1e300).is_err());
    }

    #[test]
    fn the_name_is_found_in_arns_of_streams_and_consumers_only() {
        assert_eq!(name_in_arn("arn:aws:kinesis:us-east-1:1:stream/a"), Some("a"));
        assert_eq!(name_in_arn("arn:aws:kinesis:us-east-1:1:stream/a/consumer/b:5"), Some("a"));
        for arn in ["", "arn:", "a", "arn:aws:kinesis:us-east-1:1:table/a", "stream/a"] {
            assert_eq!(name_in_arn(arn), None, "{arn}");
        }
    }
}
