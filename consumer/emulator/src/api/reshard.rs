//! `SplitShard`, `MergeShards` and `UpdateShardCount`; the work is in [`crate::reshard`].

use serde::Deserialize;
use serde_json::{Value, json};

use super::{check_range, constraint, find_stream, shards::parse_id};
use crate::{error::ApiError, ids::HashKey, service::Service};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Split {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_to_split: String,
    new_starting_hash_key: String,
}

pub(crate) fn split(service: &Service, request: &Split) -> Result<Value, ApiError> {
    let stream = find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let at: HashKey = request.new_starting_hash_key.parse().map_err(|e| ApiError::invalid_argument(format!("{e}")))?;
    stream.split(parse_id(&request.shard_to_split)?, at)?;
    Ok(Value::Null)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Merge {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_to_merge: String,
    adjacent_shard_to_merge: String,
}

pub(crate) fn merge(service: &Service, request: &Merge) -> Result<Value, ApiError> {
    let stream = find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    stream.merge(parse_id(&request.shard_to_merge)?, parse_id(&request.adjacent_shard_to_merge)?)?;
    Ok(Value::Null)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateCount {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    target_shard_count: i64,
    scaling_type: String,
}

pub(crate) fn update_count(service: &Service, request: &UpdateCount) -> Result<Value, ApiError> {
    let stream = find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    if request.scaling_type != "UNIFORM_SCALING" {
        return Err(constraint(
            &request.scaling_type,
            "scalingType",
            "Member must satisfy enum value set: [UNIFORM_SCALING]",
        ));
    }
    let target = check_range("targetShardCount", request.target_shard_count, i64::from(u32::MAX))?;
    let before = stream.scale(u32::try_from(target).unwrap_or(u32::MAX))?;
    Ok(json!({
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "CurrentShardCount": before,
        "TargetShardCount": target,
    }))
}
