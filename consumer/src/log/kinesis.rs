//! The log seam on Kinesis, by the official SDK.
//!
//! Here: six calls, and what errors mean for the engine ([`LogError`] says whether a retry helps, so no caller reads
//! strings; the codes are sorted in [`Outcome`]). Not here: retries of the SDK (the client's), pauses between reads
//! (`run::fetch`), batching ([`put_all`](super::put_all)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType, StreamDescriptionSummary};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;

use super::fan_out::Consumers;
use super::{ConsumerId, Entry, Log, LogError, Page, ReadToken, Record, StreamId, Subscription};
use crate::aws::{Outcome, chain};
use crate::metrics::EngineMetrics;
use crate::shard::{HashRange, Position, SequenceNumber, Shard, ShardId};

/// Streams in Kinesis (or anything that speaks its protocol).
#[derive(Debug, Clone)]
pub struct KinesisLog {
    pub(super) client: Client,
    pub(super) consumers: Arc<Consumers>,
    metrics: Option<EngineMetrics>,
}

impl KinesisLog {
    /// Over an SDK client, whose retries and timeouts apply to every call.
    pub fn new(client: Client) -> Self {
        Self { client, consumers: Arc::default(), metrics: None }
    }

    async fn summary(&self, stream: &str) -> Result<StreamDescriptionSummary, LogError> {
        let out = self.client.describe_stream_summary().stream_name(stream).send().await;
        out.map_err(|e| classify(&e))?.stream_description_summary.ok_or_else(|| bad_answer("summary", stream))
    }

    /// Counts the records that Kinesis refuses inside answered calls.
    #[must_use]
    pub fn with_metrics(mut self, metrics: EngineMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }
}

/// An error code as what the engine may do about it; `status` is the HTTP status where there is one.
pub(super) fn error_of(code: &str, status: Option<u16>, text: String) -> LogError {
    match Outcome::of_error(code, status) {
        Outcome::Expired => LogError::Expired,
        Outcome::Throttled => LogError::Throttled,
        Outcome::NotFound => LogError::NotFound(text),
        Outcome::Unavailable | Outcome::Timeout => LogError::Unavailable(text),
        Outcome::Ok | Outcome::Conflict | Outcome::Invalid => LogError::Invalid(text),
    }
}

pub(super) fn classify<E>(error: &SdkError<E, HttpResponse>) -> LogError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let text = chain(error);
    let status = error.raw_response().map(|response| response.status().as_u16());
    match error.as_service_error() {
        Some(service) => error_of(service.code().unwrap_or_default(), status, text),
        None => LogError::Unavailable(text),
    }
}

pub(super) fn bad_answer(what: &str, value: &str) -> LogError {
    LogError::Unavailable(format!("answer with a bad {what}: {value:?}"))
}

fn shard_from_aws(shard: aws_sdk_kinesis::types::Shard) -> Result<Shard, LogError> {
    let key = |text: &str| text.parse::<u128>().map_err(|_| bad_answer("hash key", text));
    let range = shard.hash_key_range().ok_or_else(|| bad_answer("hash range", shard.shard_id()))?;
    let range = HashRange { start: key(range.starting_hash_key())?, end: key(range.ending_hash_key())? };
    let closed = shard.sequence_number_range().and_then(|r| r.ending_sequence_number()).is_some();
    let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
    Ok(Shard {
        id: ShardId::new(shard.shard_id),
        parents: parents.into_iter().flatten().map(ShardId::new).collect(),
        range,
        closed,
    })
}

pub(super) fn record_from_aws(record: aws_sdk_kinesis::types::Record) -> Result<Record, LogError> {
    let sequence = SequenceNumber::new(&record.sequence_number)
        .ok_or_else(|| bad_answer("sequence number", &record.sequence_number))?;
    let arrived = record.approximate_arrival_timestamp.and_then(|t| t.to_millis().ok());
    Ok(Record {
        sequence,
        sub_sequence: 0,
        arrived_ms: arrived.unwrap_or_default(),
        partition_key: record.partition_key.unwrap_or_default().into(),
        data: Bytes::from(record.data.into_inner()),
    })
}

#[async_trait::async_trait]
impl Log for KinesisLog {
    async fn identify(&self, stream: &str) -> Result<StreamId, LogError> {
        let summary = self.summary(stream).await?;
        let created = summary.stream_creation_timestamp().to_millis().map_err(|_| bad_answer("time", stream))?;
        Ok(StreamId { name: stream.to_owned(), created_ms: created })
    }

    async fn retention(&self, stream: &str) -> Result<Duration, LogError> {
        let hours = self.summary(stream).await?.retention_period_hours();
        let hours = u64::try_from(hours).map_err(|_| bad_answer("retention", &hours.to_string()))?;
        Ok(Duration::from_secs(hours.saturating_mul(3_600)))
    }

    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, LogError> {
        let mut shards = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let request = self.client.list_shards();
            let request = match &token {
                None => request.stream_name(stream),
                Some(token) => request.next_token(token),
            };
            let out = request.send().await.map_err(|e| classify(&e))?;
            for shard in out.shards.unwrap_or_default() {
                shards.push(shard_from_aws(shard)?);
            }
            token = out.next_token;
            if token.is_none() {
                return Ok(shards);
            }
        }
    }

    async fn seek(&self, stream: &str, shard: &ShardId, position: &Position) -> Result<ReadToken, LogError> {
        let request = self.client.get_shard_iterator().stream_name(stream).shard_id(shard.as_str());
        let request = match position {
            Position::TrimHorizon => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            Position::AtTimestamp(ms) => {
                request.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(DateTime::from_millis(*ms))
            }
            Position::At(sequence) => request
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .starting_sequence_number(sequence.as_str()),
            Position::After(sequence) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(sequence.as_str()),
        };
        let out = request.send().await.map_err(|e| classify(&e))?;
        out.shard_iterator.map(ReadToken).ok_or_else(|| bad_answer("iterator", shard.as_str()))
    }

    async fn read(&self, stream: &str, token: &ReadToken) -> Result<Page, LogError> {
        let out = self.client.get_records().shard_iterator(&token.0).send().await;
        let out = out.map_err(|e| classify(&e))?;
        tracing::trace!(stream, records = out.records.len(), "read");
        let records: Result<Vec<_>, _> = out.records.into_iter().map(record_from_aws).collect();
        Ok(Page {
            records: records?,
            next: out.next_shard_iterator.map(ReadToken),
            behind_ms: out.millis_behind_latest.unwrap_or_default(),
        })
    }

    async fn register(&self, stream: &str, consumer: &str) -> Result<ConsumerId, LogError> {
        self.register_consumer(stream, consumer).await
    }

    async fn subscribe(
        &self,
        consumer: &ConsumerId,
        shard: &ShardId,
        position: &Position,
    ) -> Result<Box<dyn Subscription>, LogError> {
        self.subscribe_to(consumer, shard, position).await
    }

    async fn append(&self, stream: &str, entries: &[Entry]) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError> {
        let records: Result<Vec<_>, _> = entries
            .iter()
            .map(|entry| {
                PutRecordsRequestEntry::builder()
                    .partition_key(&entry.partition_key)
                    .set_explicit_hash_key(entry.hash_key.map(|key| key.to_string()))
                    .data(Blob::new(entry.data.to_vec()))
                    .build()
            })
            .collect();
        let records = records.map_err(|e| LogError::Invalid(e.to_string()))?;
        let out = self.client.put_records().stream_name(stream).set_records(Some(records)).send().await;
        let out = out.map_err(|e| classify(&e))?;
        if out.records.len() != entries.len() {
            return Err(bad_answer("number of results", &out.records.len().to_string()));
        }
        let answer = |r: aws_sdk_kinesis::types::PutRecordsResultEntry| match (r.error_code, r.sequence_number) {
            (None, Some(s)) => SequenceNumber::new(&s).ok_or_else(|| bad_answer("sequence number", &s)),
            (code, _) => Err(error_of(&code.unwrap_or_default(), None, r.error_message.unwrap_or_default())),
        };
        let failed = out.failed_record_count.unwrap_or_default();
        if let (Some(metrics), true) = (&self.metrics, failed > 0) {
            let mut by_outcome: BTreeMap<Outcome, u64> = BTreeMap::new();
            for code in out.records.iter().filter_map(|record| record.error_code()) {
                *by_outcome.entry(Outcome::of_error(code, None)).or_default() += 1;
            }
            metrics.put_failures(stream, &by_outcome);
        }
        Ok(out.records.into_iter().map(answer).collect())
    }
}
