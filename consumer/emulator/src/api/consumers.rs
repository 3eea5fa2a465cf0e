//! Registered consumers: what `SubscribeToShard` needs to exist.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{check_name, check_range, find_stream, name_in_arn, seconds};
use crate::{
    config::{EmulatorConfig, millis, now_ms},
    error::ApiError,
    meta::Consumer,
    service::Service,
    stream::Stream,
};

/// Consumers a stream may have, as on AWS.
const MAX_CONSUMERS: usize = 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Register {
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    consumer_name: String,
}

/// A request that names a consumer by its ARN, or by its name and its stream's ARN.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Named {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    consumer_name: Option<String>,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
}

fn arn(stream: &Stream, consumer: &Consumer) -> String {
    format!("{}/consumer/{}:{}", stream.arn, consumer.name, consumer.created_ms / 1000)
}

fn is_active(consumer: &Consumer, config: &EmulatorConfig) -> bool {
    now_ms() >= consumer.created_ms.saturating_add(millis(config.transition_delay))
}

fn describe_one(stream: &Stream, consumer: &Consumer) -> Value {
    json!({
        "ConsumerName": consumer.name,
        "ConsumerARN": arn(stream, consumer),
        "ConsumerStatus": if is_active(consumer, &stream.config) { "ACTIVE" } else { "CREATING" },
        "ConsumerCreationTimestamp": seconds(consumer.created_ms),
    })
}

pub(crate) fn register(service: &Service, request: &Register) -> Result<Value, ApiError> {
    let stream = find_stream(service, None, Some(&request.stream_arn))?;
    let name = &request.consumer_name;
    check_name("consumerName", name)?;
    let consumer = Consumer { name: name.clone(), created_ms: now_ms() };
    let mut added = false;
    let added = std::cell::Cell::from_mut(&mut added);
    stream.change(
        |topology| {
            if topology.consumers.contains_key(name) {
                return Err(ApiError::in_use(format!("Consumer {name} of stream {} already exists.", stream.name)));
            }
            if topology.consumers.len() >= MAX_CONSUMERS {
                return Err(ApiError::limit_exceeded(format!("A stream may have {MAX_CONSUMERS} consumers.")));
            }
            topology.consumers.insert(name.clone(), consumer.clone());
            added.set(true);
            Ok(())
        },
        |topology| {
            if added.get() {
                topology.consumers.remove(name);
            }
        },
    )?;
    let mut described = describe_one(&stream, &consumer);
    described["ConsumerStatus"] = json!("CREATING");
    Ok(json!({"Consumer": described}))
}

/// Finds a consumer by its ARN.
pub(crate) fn find(service: &Service, consumer_arn: &str) -> Result<(Arc<Stream>, Consumer), ApiError> {
    let name = name_in_arn(consumer_arn).filter(|_| consumer_arn.contains("/consumer/"));
    let name =
        name.ok_or_else(|| ApiError::invalid_argument(format!("{consumer_arn:?} is not the ARN of a consumer")))?;
    let stream = service.stream(name)?;
    let found = stream.ready()?.consumers.values().find(|c| arn(&stream, c) == consumer_arn).cloned();
    let found = found.ok_or_else(|| ApiError::not_found(format!("Consumer {consumer_arn} not found.")))?;
    Ok((stream, found))
}

/// Finds a consumer that can subscribe.
pub(crate) fn find_active(service: &Service, consumer_arn: &str) -> Result<(Arc<Stream>, Consumer), ApiError> {
    let (stream, consumer) = find(service, consumer_arn)?;
    if is_active(&consumer, &service.config) {
        return Ok((stream, consumer));
    }
    Err(ApiError::in_use(format!("Consumer {consumer_arn} is not ACTIVE.")))
}

fn find_named(service: &Service, request: &Named) -> Result<(Arc<Stream>, Consumer), ApiError> {
    if let Some(arn) = &request.consumer_arn {
        return find(service, arn);
    }
    let (Some(arn), Some(name)) = (&request.stream_arn, &request.consumer_name) else {
        return Err(ApiError::invalid_argument("either ConsumerARN or StreamARN and ConsumerName must be given"));
    };
    let stream = find_stream(service, None, Some(arn))?;
    let found = stream.ready()?.consumers.get(name).cloned();
    let found =
        found.ok_or_else(|| ApiError::not_found(format!("Consumer {name} of stream {} not found.", stream.name)))?;
    Ok((stream, found))
}

pub(crate) fn describe(service: &Service, request: &Named) -> Result<Value, ApiError> {
    let (stream, consumer) = find_named(service, request)?;
    let mut described = describe_one(&stream, &consumer);
    described["StreamARN"] = json!(stream.arn);
    Ok(json!({"ConsumerDescription": described}))
}

pub(crate) fn deregister(service: &Service, request: &Named) -> Result<Value, ApiError> {
    let (stream, consumer) = find_named(service, request)?;
    stream.change(
        |topology| {
            topology.consumers.remove(&consumer.name);
            Ok(())
        },
        |topology| {
            topology.consumers.insert(consumer.name.clone(), consumer.clone());
        },
    )?;
    crate::sync::lock(&service.subscriptions).end(&arn(&stream, &consumer));
    Ok(Value::Null)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct List {
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    max_results: Option<i64>,
    next_token: Option<String>,
}

pub(crate) fn list(service: &Service, request: &List) -> Result<Value, ApiError> {
    let stream = find_stream(service, None, Some(&request.stream_arn))?;
    let limit = check_range("maxResults", request.max_results.unwrap_or(100), 10_000)?;
    let topology = stream.topology();
    // The token is the last name of the page before.
    let mut left: Vec<&Consumer> = topology
        .consumers
        .values()
        .filter(|c| request.next_token.as_ref().is_none_or(|after| c.name > *after))
        .collect();
    let more = left.len() > limit;
    left.truncate(limit);
    let mut answer = json!({"Consumers": left.iter().map(|c| describe_one(&stream, c)).collect::<Vec<_>>()});
    if let Some(last) = left.last().filter(|_| more) {
        answer["NextToken"] = json!(last.name);
    }
    Ok(answer)
}
