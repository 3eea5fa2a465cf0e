//! Operations on whole streams: making, removing, describing, retention, capacity mode.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{check_name, check_range, constraint, find_stream, seconds, shards};
use crate::{
    error::ApiError,
    service::Service,
    stream::{Status, Stream, Topology},
};

/// Open shards of a new on-demand stream, as on AWS.
const ON_DEMAND_SHARDS: u32 = 4;
const HOUR_MS: u64 = 3_600_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ModeDetails {
    stream_mode: String,
}

impl ModeDetails {
    fn on_demand(&self) -> Result<bool, ApiError> {
        match self.stream_mode.as_str() {
            "ON_DEMAND" => Ok(true),
            "PROVISIONED" => Ok(false),
            other => Err(constraint(
                other,
                "streamModeDetails.streamMode",
                "Member must satisfy enum value set: [PROVISIONED, ON_DEMAND]",
            )),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Create {
    stream_name: String,
    shard_count: Option<i64>,
    stream_mode_details: Option<ModeDetails>,
}

pub(crate) fn create(service: &Service, request: &Create) -> Result<Value, ApiError> {
    check_name("streamName", &request.stream_name)?;
    let on_demand = request.stream_mode_details.as_ref().map_or(Ok(false), ModeDetails::on_demand)?;
    let shards = match (on_demand, request.shard_count) {
        (true, None) => ON_DEMAND_SHARDS,
        (true, Some(_)) => return Err(ApiError::validation("ShardCount cannot be given for an ON_DEMAND stream")),
        (false, None) => return Err(ApiError::validation("ShardCount must be given for a PROVISIONED stream")),
        (false, Some(count)) => {
            u32::try_from(check_range("shardCount", count, i64::from(u32::MAX))?).unwrap_or(u32::MAX)
        }
    };
    let most = service.config.max_shards_per_stream;
    if shards > most {
        return Err(ApiError::limit_exceeded(format!(
            "This request would exceed the shard limit of {most} per stream."
        )));
    }
    service.create_stream(&request.stream_name, shards, on_demand)?;
    Ok(Value::Null)
}

/// A request that only names a stream.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Named {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(default)]
    enforce_consumer_deletion: bool,
}

pub(crate) fn delete(service: &Service, request: &Named) -> Result<Value, ApiError> {
    let stream = find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    if !request.enforce_consumer_deletion && !stream.topology().consumers.is_empty() {
        return Err(ApiError::in_use(format!("Stream {} has registered consumers.", stream.name)));
    }
    service.delete_stream(&stream)?;
    Ok(Value::Null)
}

/// The members that both descriptions share.
fn describe_common(stream: &Stream, topology: &Topology) -> Value {
    json!({
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": topology.status().as_str(),
        "StreamModeDetails": {"StreamMode": if topology.on_demand { "ON_DEMAND" } else { "PROVISIONED" }},
        "RetentionPeriodHours": topology.retention_ms.div_ceil(HOUR_MS),
        "StreamCreationTimestamp": seconds(stream.created_ms),
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    })
}

pub(crate) fn describe_summary(service: &Service, request: &Named) -> Result<Value, ApiError> {
    let stream = find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let topology = stream.topology();
    let mut summary = describe_common(&stream, &topology);
    let open = if topology.status() == Status::Creating { 0 } else { topology.open.len() };
    summary["OpenShardCount"] = json!(open);
    summary["ConsumerCount"] = json!(topology.consumers.len());
    summary["MaxRecordSizeInKiB"] = json!(service.config.max_record_bytes / 1024);
    Ok(json!({"StreamDescriptionSummary": summary}))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Describe {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    limit: Option<i64>,
    exclusive_start_shard_id: Option<String>,
}

pub(crate) fn describe(service: &Service, request: &Describe) -> Result<Value, ApiError> {
    let stream = find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let limit = check_range("limit", request.limit.unwrap_or(100), 10_000)?;
    let after = request.exclusive_start_shard_id.as_deref().map(shards::parse_id).transpose()?;
    let topology = stream.topology();
    let mut description = describe_common(&stream, &topology);
    let (page, more) = if topology.status() == Status::Creating {
        (Vec::new(), false)
    } else {
        shards::page(topology.shards.values(), after, limit)
    };
    description["Shards"] = Value::Array(page.iter().map(|s| shards::describe(s)).collect());
    description["HasMoreShards"] = json!(more);
    Ok(json!({"StreamDescription": description}))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct List {
    limit: Option<i64>,
    exclusive_start_stream_name: Option<String>,
    next_token: Option<String>,
}

pub(crate) fn list(service: &Service, request: &List) -> Result<Value, ApiError> {
    let limit = check_range("limit", request.limit.unwrap_or(100), 10_000)?;
    // The token is the last name of the page before.
    let after = request.next_token.as_ref().or(request.exclusive_start_stream_name.as_ref());
    let mut streams = service.streams();
    streams.retain(|s| after.is_none_or(|after| s.name > *after));
    let more = streams.len() > limit;
    streams.truncate(limit);
    let summaries: Vec<Value> = streams.iter().map(|s| describe_common(s, &s.topology())).collect();
    let names: Vec<&str> = streams.iter().map(|s| s.name.as_str()).collect();
    let mut answer = json!({"StreamNames": names, "StreamSummaries": summaries, "HasMoreStreams": more});
    if let Some(last) = streams.last().filter(|_| more) {
        answer["NextToken"] = json!(last.name);
    }
    Ok(answer)
}

pub(crate) fn list_tags(service: &Service, request: &Named) -> Result<Value, ApiError> {
    find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    Ok(json!({"Tags": [], "HasMoreTags": false}))
}

pub(crate) fn describe_limits(service: &Service) -> Value {
    let streams = service.streams();
    let open: usize = streams.iter().map(|s| s.topology().open.len()).sum();
    let on_demand = streams.iter().filter(|s| s.topology().on_demand).count();
    json!({
        "ShardLimit": service.config.max_shards_per_stream,
        "OpenShardCount": open,
        "OnDemandStreamCount": on_demand,
        "OnDemandStreamCountLimit": 50,
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Retention {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    retention_period_hours: i64,
}

pub(crate) fn change_retention(service: &Service, request: &Retention, increase: bool) -> Result<Value, ApiError> {
    let stream = find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let hours = u64::try_from(request.retention_period_hours).unwrap_or(0);
    if !(24..=8760).contains(&hours) {
        return Err(ApiError::invalid_argument(format!(
            "retention of {} hours is not between 24 and 8760",
            request.retention_period_hours
        )));
    }
    let wanted_ms = hours * HOUR_MS;
    let old_ms = stream.topology().retention_ms;
    stream.change(
        |topology| {
            let (now, wrong) = (topology.retention_ms, if increase { "shorter" } else { "longer" });
            if (increase && wanted_ms < now) || (!increase && wanted_ms > now) {
                return Err(ApiError::invalid_argument(format!(
                    "retention of {hours} hours is {wrong} than the current one"
                )));
            }
            topology.retention_ms = wanted_ms;
            Ok(Value::Null)
        },
        |topology| topology.retention_ms = old_ms,
    )
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateMode {
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_mode_details: ModeDetails,
}

pub(crate) fn update_mode(service: &Service, request: &UpdateMode) -> Result<Value, ApiError> {
    let stream = find_stream(service, None, Some(&request.stream_arn))?;
    let on_demand = request.stream_mode_details.on_demand()?;
    let old = stream.topology().on_demand;
    stream.change(
        |topology| {
            topology.on_demand = on_demand;
            topology.set_phase(Status::Updating, &stream.config);
            Ok(Value::Null)
        },
        |topology| topology.on_demand = old,
    )
}
