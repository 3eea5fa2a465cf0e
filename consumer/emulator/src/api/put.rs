//! `PutRecord` and `PutRecords`. A request that breaks a rule is refused whole; throttling is record by record.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::json;

use super::{check_range, constraint, find_stream};
use crate::{
    error::ApiError,
    faults::PartialFailure,
    ids::{HashKey, SequenceNumber, ShardIndex},
    service::Service,
    shard::Refusal,
    stream::{PutRecord, Stream},
};

/// Most records of one request.
const MAX_RECORDS: i64 = 500;
/// Most bytes of keys and data of one request (AWS: 10 MiB).
const MAX_REQUEST_BYTES: usize = 10 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRecords<'a> {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(borrow)]
    records: Vec<Entry<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(borrow)]
    partition_key: Cow<'a, str>,
    explicit_hash_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutOne<'a> {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    sequence_number_for_ordering: Option<String>,
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(borrow)]
    partition_key: Cow<'a, str>,
    explicit_hash_key: Option<String>,
}

impl Entry<'_> {
    fn check(&self, service: &Service) -> Result<PutRecord<'_>, ApiError> {
        let key = self.partition_key.as_ref();
        if !(1..=256).contains(&key.chars().count()) {
            return Err(constraint(key, "partitionKey", "Member must have length between 1 and 256"));
        }
        let data = STANDARD.decode(self.data.as_bytes());
        let data = data.map_err(|e| ApiError::serialization(format!("data of a record is not base64: {e}")))?;
        let (size, most) = (data.len() + key.len(), service.config.max_record_bytes);
        if size > most {
            return Err(ApiError::validation(format!(
                "a record of {size} bytes (data and partition key) is larger than {most} bytes"
            )));
        }
        let hash = match &self.explicit_hash_key {
            Some(text) => text.parse().map_err(|e| ApiError::invalid_argument(format!("{e}")))?,
            None => HashKey::of_partition_key(key),
        };
        Ok(PutRecord { partition_key: key, data, hash })
    }
}

fn throttled(stream: &Stream, shard: ShardIndex) -> ApiError {
    let account = &stream.config.account_id;
    ApiError::throughput_exceeded(format!(
        "Rate exceeded for shard {shard} in stream {} under account {account}.",
        stream.name
    ))
}

fn refusal(stream: &Stream, shard: ShardIndex, refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::Throttled => throttled(stream, shard),
        Refusal::Storage => ApiError::internal("Internal service failure."),
    }
}

pub(crate) fn put_records(
    service: &Service,
    request: PutRecords<'_>,
    partial: Option<&PartialFailure>,
) -> Result<Vec<u8>, ApiError> {
    let stream = find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    check_range("records", i64::try_from(request.records.len()).unwrap_or(i64::MAX), MAX_RECORDS)?;
    let mut records = Vec::with_capacity(request.records.len());
    let mut bytes = 0usize;
    for entry in &request.records {
        let record = entry.check(service)?;
        bytes = bytes.saturating_add(record.data.len() + record.partition_key.len());
        if bytes > MAX_REQUEST_BYTES {
            return Err(ApiError::invalid_argument(format!(
                "the records of a request may have {MAX_REQUEST_BYTES} bytes together"
            )));
        }
        records.push(record);
    }
    let fail = |i: usize, shard: ShardIndex| partial.is_some_and(|p| p.hits(i, &shard.to_string()));
    let answers = stream.put(&records, fail)?;
    let failed = answers.iter().filter(|(_, answer)| answer.is_err()).count();
    let records: Vec<_> = answers
        .into_iter()
        .map(|(shard, answer)| match answer {
            Ok(number) => json!({"SequenceNumber": number.to_string(), "ShardId": shard.to_string()}),
            Err(reason) => {
                let error = refusal(&stream, shard, reason);
                json!({"ErrorCode": error.code, "ErrorMessage": error.message})
            }
        })
        .collect();
    Ok(json!({"FailedRecordCount": failed, "Records": records, "EncryptionType": "NONE"}).to_string().into())
}

pub(crate) fn put_record(service: &Service, request: PutOne<'_>) -> Result<Vec<u8>, ApiError> {
    let stream = find_stream(service, request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    if let Some(number) = &request.sequence_number_for_ordering {
        // Numbers of a shard always grow here, so the wish is always granted.
        number.parse::<SequenceNumber>().map_err(|e| ApiError::invalid_argument(format!("{e}")))?;
    }
    let PutOne { data, partition_key, explicit_hash_key, .. } = request;
    let entry = Entry { data, partition_key, explicit_hash_key };
    let answers = stream.put(&[entry.check(service)?], |_, _| false)?;
    let (shard, answer) = answers.into_iter().next().ok_or_else(|| ApiError::internal("a put without an answer"))?;
    let number = answer.map_err(|reason| refusal(&stream, shard, reason))?;
    let answer = json!({"ShardId": shard.to_string(), "SequenceNumber": number.to_string(), "EncryptionType": "NONE"});
    Ok(answer.to_string().into())
}
