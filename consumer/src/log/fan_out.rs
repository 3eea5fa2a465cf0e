//! Enhanced fan-out on Kinesis: registered consumers, and subscriptions as event streams of the SDK.
//!
//! A consumer is registered when it is first needed and never deregistered: that is an operator's decision, because
//! others may use it. Not here: when to subscribe again (`run::fetch`).

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEventStream};
use tokio::sync::Mutex;

use super::kinesis::{KinesisLog, bad_answer, classify, error_of, record_from_aws};
use super::{ConsumerId, Event, LogError, Subscription};
use crate::shard::{Position, SequenceNumber, ShardId};

const IN_USE: &str = "ResourceInUseException";
/// Pause between two looks at a consumer that is being made, which takes some seconds.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS: u32 = 120;

/// ARNs of active consumers by (stream, name); locked while one is looked for, so that shards do not all ask at once.
pub(super) type Consumers = Mutex<BTreeMap<(String, String), String>>;

impl KinesisLog {
    /// Finds the consumer or registers it, and waits until it is active.
    pub(super) async fn register_consumer(&self, stream: &str, name: &str) -> Result<ConsumerId, LogError> {
        let mut known = self.consumers.lock().await;
        let key = (stream.to_owned(), name.to_owned());
        if let Some(arn) = known.get(&key) {
            // It may have been removed by an operator since.
            if self.status(arn).await? == Some(ConsumerStatus::Active) {
                return Ok(ConsumerId { stream: stream.to_owned(), arn: arn.clone() });
            }
            known.remove(&key);
        }
        let stream_arn = self.stream_arn(stream).await?;
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(LOOK).await;
            }
            match self.find(&stream_arn, name).await? {
                Some((arn, ConsumerStatus::Active)) => {
                    known.insert(key, arn.clone());
                    return Ok(ConsumerId { stream: stream.to_owned(), arn });
                }
                Some((_, status)) => tracing::debug!(stream, consumer = name, ?status, "waiting for the consumer"),
                None => self.register_at(&stream_arn, name).await?,
            }
        }
        Err(LogError::Unavailable(format!("consumer {name} of stream {stream} did not become active")))
    }

    async fn stream_arn(&self, stream: &str) -> Result<String, LogError> {
        let out = self.client.describe_stream_summary().stream_name(stream).send().await;
        let out = out.map_err(|e| classify(&e))?;
        let summary = out.stream_description_summary().ok_or_else(|| bad_answer("summary", stream))?;
        Ok(summary.stream_arn().to_owned())
    }

    async fn find(&self, stream_arn: &str, name: &str) -> Result<Option<(String, ConsumerStatus)>, LogError> {
        let out = self.client.describe_stream_consumer().stream_arn(stream_arn).consumer_name(name).send().await;
        match out.map_err(|e| classify(&e)) {
            Ok(out) => {
                let found = out.consumer_description().ok_or_else(|| bad_answer("consumer", name))?;
                Ok(Some((found.consumer_arn().to_owned(), found.consumer_status().clone())))
            }
            Err(LogError::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn status(&self, arn: &str) -> Result<Option<ConsumerStatus>, LogError> {
        let out = self.client.describe_stream_consumer().consumer_arn(arn).send().await;
        match out.map_err(|e| classify(&e)) {
            Ok(out) => Ok(out.consumer_description().map(|found| found.consumer_status().clone())),
            Err(LogError::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn register_at(&self, stream_arn: &str, name: &str) -> Result<(), LogError> {
        let out = self.client.register_stream_consumer().stream_arn(stream_arn).consumer_name(name).send().await;
        match out {
            Ok(_) => tracing::info!(stream_arn, consumer = name, "consumer registered for enhanced fan-out"),
            // Another worker was quicker, or our own call was repeated.
            Err(e) if e.code() == Some(IN_USE) => {}
            Err(e) => return Err(classify(&e)),
        }
        Ok(())
    }

    /// Subscribes to a shard.
    pub(super) async fn subscribe_to(
        &self,
        consumer: &ConsumerId,
        shard: &ShardId,
        position: &Position,
    ) -> Result<Box<dyn Subscription>, LogError> {
        let at = StartingPosition::builder();
        let at = match position {
            Position::TrimHorizon => at.r#type(ShardIteratorType::TrimHorizon),
            Position::AtTimestamp(ms) => {
                at.r#type(ShardIteratorType::AtTimestamp).timestamp(DateTime::from_millis(*ms))
            }
            Position::At(sequence) => at.r#type(ShardIteratorType::AtSequenceNumber).sequence_number(sequence.as_str()),
            Position::After(sequence) => {
                at.r#type(ShardIteratorType::AfterSequenceNumber).sequence_number(sequence.as_str())
            }
        };
        let at = at.build().map_err(|e| LogError::Invalid(e.to_string()))?;
        let request = self.client.subscribe_to_shard().consumer_arn(&consumer.arn).shard_id(shard.as_str());
        match request.starting_position(at).send().await {
            Ok(output) => Ok(Box::new(Pushed(output))),
            Err(e) if e.code() == Some(IN_USE) => Err(LogError::InUse),
            Err(e) => Err(classify(&e)),
        }
    }
}

/// A subscription of the SDK.
#[derive(Debug)]
struct Pushed(SubscribeToShardOutput);

#[async_trait::async_trait]
impl Subscription for Pushed {
    async fn next(&mut self) -> Option<Result<Event, LogError>> {
        loop {
            return match self.0.event_stream.recv().await {
                Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => Some(event_from_aws(event)),
                // Kinds of events that this SDK does not know say nothing about records.
                Ok(Some(_)) => continue,
                Ok(None) => None,
                Err(e) => Some(Err(match e.code() {
                    Some(IN_USE) => LogError::InUse,
                    Some(code) => error_of(code, None, format!("{}", DisplayErrorContext(&e))),
                    // Cut off, as connections are; the next subscription goes on.
                    None => LogError::Unavailable(format!("{}", DisplayErrorContext(&e))),
                })),
            };
        }
    }
}

fn event_from_aws(event: aws_sdk_kinesis::types::SubscribeToShardEvent) -> Result<Event, LogError> {
    let text = event.continuation_sequence_number;
    // Absent at a shard's end, which the SDK gives as empty.
    let continuation = match text.as_str() {
        "" => None,
        number => Some(SequenceNumber::new(number).ok_or_else(|| bad_answer("continuation", number))?),
    };
    let records: Result<Vec<_>, _> = event.records.into_iter().map(record_from_aws).collect();
    Ok(Event { records: records?, continuation, behind_ms: event.millis_behind_latest })
}
