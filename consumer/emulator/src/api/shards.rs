//! `ListShards`: filters, pages and tokens, and how a shard is described.
//!
//! A token fixes the filter of its first page, so that shards made meanwhile do not move the pages.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{check_range, find_stream, parse_seconds};
use crate::{
    config::now_ms,
    error::ApiError,
    ids::{HashRange, ShardIndex},
    iterator::{self, ListToken},
    service::Service,
    shard::Shard,
    stream::{Status, Stream, Topology, storage_failure},
};

/// How long a token of `ListShards` is good, as on AWS.
const TOKEN_TTL_MS: u64 = 300_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct List {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    next_token: Option<String>,
    exclusive_start_shard_id: Option<String>,
    max_results: Option<i64>,
    stream_creation_timestamp: Option<f64>,
    shard_filter: Option<FilterRequest>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct FilterRequest {
    r#type: String,
    shard_id: Option<String>,
    timestamp: Option<f64>,
}

/// Which shards a list shows; times in ms since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Filter {
    /// Open now.
    Latest,
    /// Open at this time.
    OpenAt(u64),
    /// Open at this time or later.
    OpenFrom(u64),
    /// Made without parents: open when the stream began.
    First,
    /// Behind this one in order of creation.
    After(ShardIndex),
}

impl FilterRequest {
    fn check(&self, stream: &Stream, topology: &Topology) -> Result<Option<Filter>, ApiError> {
        let horizon_ms = now_ms().saturating_sub(topology.retention_ms).max(stream.created_ms);
        let at = || {
            let missing = || ApiError::invalid_argument(format!("ShardFilter {} needs a Timestamp", self.r#type));
            Ok(parse_seconds("shardFilter.timestamp", self.timestamp.ok_or_else(missing)?)?.max(horizon_ms))
        };
        let open_at = |ms| if ms <= stream.created_ms { Filter::First } else { Filter::OpenAt(ms) };
        Ok(match self.r#type.as_str() {
            "AT_LATEST" => Some(Filter::Latest),
            "AT_TRIM_HORIZON" => Some(open_at(horizon_ms)),
            "FROM_TRIM_HORIZON" => None,
            "AT_TIMESTAMP" => Some(open_at(at()?)),
            "FROM_TIMESTAMP" => Some(Filter::OpenFrom(at()?)),
            "AFTER_SHARD_ID" => {
                let missing = || ApiError::invalid_argument("ShardFilter AFTER_SHARD_ID needs a ShardId");
                Some(Filter::After(parse_id(self.shard_id.as_deref().ok_or_else(missing)?)?))
            }
            other => return Err(ApiError::validation(format!("{other:?} is not a type of ShardFilter"))),
        })
    }
}

impl Filter {
    fn shows(self, shard: &Shard) -> bool {
        let closed_ms = shard.lock().closed.as_ref().map(|c| c.at_ms);
        match self {
            Self::Latest => closed_ms.is_none(),
            Self::OpenAt(ms) => shard.spec.opened_ms <= ms && closed_ms.is_none_or(|closed| closed >= ms),
            Self::OpenFrom(ms) => closed_ms.is_none_or(|closed| closed >= ms),
            Self::First => shard.spec.parent.is_none(),
            Self::After(index) => shard.spec.index > index,
        }
    }
}

pub(crate) fn list(service: &Service, request: &List) -> Result<Value, ApiError> {
    let limit = check_range("maxResults", request.max_results.unwrap_or(1000), 10_000)?;
    let (stream, after, filter) = match &request.next_token {
        Some(token) => continued(service, request, token)?,
        None => first_page(service, request)?,
    };
    let topology = stream.topology();
    if topology.status() == Status::Creating {
        return Err(ApiError::in_use(format!("Stream {} is being created.", stream.name)));
    }
    let chosen = topology.shards.values().filter(|s| filter.is_none_or(|f| f.shows(s)));
    let (page, more) = page(chosen, after, limit);
    let mut answer = json!({"Shards": page.iter().map(|s| describe(s)).collect::<Vec<_>>()});
    if let Some(last) = page.last().filter(|_| more) {
        let (stream, created_ms, after) = (stream.name.clone(), stream.created_ms, last.spec.index);
        let token = ListToken { stream, created_ms, after, filter, issued_ms: now_ms() };
        answer["NextToken"] = json!(iterator::encode(&token).map_err(|e| storage_failure(&e))?);
    }
    Ok(answer)
}

type Listing = (Arc<Stream>, Option<ShardIndex>, Option<Filter>);

fn first_page(service: &Service, request: &List) -> Result<Listing, ApiError> {
    let stream = find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    if let Some(at) = request.stream_creation_timestamp
        && parse_seconds("streamCreationTimestamp", at)? / 1000 != stream.created_ms / 1000
    {
        return Err(ApiError::not_found(format!("Stream {} was not created at {at}.", stream.name)));
    }
    let after = request.exclusive_start_shard_id.as_deref().map(parse_id).transpose()?;
    let filter = match &request.shard_filter {
        Some(filter) => filter.check(&stream, &stream.topology())?,
        None => None,
    };
    Ok((stream, after, filter))
}

fn continued(service: &Service, request: &List, token: &str) -> Result<Listing, ApiError> {
    let others = [&request.stream_name, &request.stream_arn, &request.exclusive_start_shard_id];
    if others.iter().any(|o| o.is_some())
        || request.stream_creation_timestamp.is_some()
        || request.shard_filter.is_some()
    {
        return Err(ApiError::invalid_argument(
            "NextToken cannot be given together with a stream, a shard or a filter",
        ));
    }
    let token: ListToken = iterator::decode(token).ok_or_else(|| ApiError::invalid_argument("NextToken is invalid"))?;
    if now_ms().saturating_sub(token.issued_ms) > TOKEN_TTL_MS {
        return Err(ApiError::expired_token("NextToken is older than 300 seconds"));
    }
    let stream = service.stream(&token.stream)?;
    if stream.created_ms != token.created_ms {
        return Err(stream.not_found());
    }
    Ok((stream, Some(token.after), token.filter))
}

/// The first `limit` shards behind `after`, and whether there are more.
pub(crate) fn page<'a>(
    shards: impl Iterator<Item = &'a Arc<Shard>>,
    after: Option<ShardIndex>,
    limit: usize,
) -> (Vec<&'a Arc<Shard>>, bool) {
    let mut page: Vec<_> = shards.filter(|s| after.is_none_or(|a| s.spec.index > a)).take(limit + 1).collect();
    let more = page.len() > limit;
    page.truncate(limit);
    (page, more)
}

/// Reads a shard id.
pub(crate) fn parse_id(text: &str) -> Result<ShardIndex, ApiError> {
    text.parse().map_err(|e| ApiError::invalid_argument(format!("{e}")))
}

fn describe_range(range: HashRange) -> Value {
    json!({"StartingHashKey": range.start.to_string(), "EndingHashKey": range.end.to_string()})
}

/// A shard as `ListShards` and `DescribeStream` show it.
pub(crate) fn describe(shard: &Shard) -> Value {
    let mut numbers = json!({"StartingSequenceNumber": shard.sequence(shard.spec.start).to_string()});
    if let Some(closed) = &shard.lock().closed {
        numbers["EndingSequenceNumber"] = json!(shard.sequence(closed.ending).to_string());
    }
    let mut described = json!({
        "ShardId": shard.spec.index.to_string(),
        "HashKeyRange": describe_range(shard.spec.range),
        "SequenceNumberRange": numbers,
    });
    if let Some(parent) = shard.spec.parent {
        described["ParentShardId"] = json!(parent.to_string());
    }
    if let Some(parent) = shard.spec.adjacent_parent {
        described["AdjacentParentShardId"] = json!(parent.to_string());
    }
    described
}

/// The children of a closed shard, as `GetRecords` and `SubscribeToShard` show them at its end.
pub(crate) fn describe_children(stream: &Stream, children: &[ShardIndex]) -> Vec<Value> {
    let topology = stream.topology();
    let children = children.iter().filter_map(|child| topology.shards.get(child));
    children
        .map(|child| {
            let parents = [child.spec.parent, child.spec.adjacent_parent];
            let parents: Vec<String> = parents.iter().flatten().map(ShardIndex::to_string).collect();
            json!({
                "ShardId": child.spec.index.to_string(),
                "ParentShards": parents,
                "HashKeyRange": describe_range(child.spec.range),
            })
        })
        .collect()
}
