//! `SubscribeToShard`: a response that pushes records as events for up to five minutes.
//!
//! A consumer has one subscription per shard. A second one within the takeover time of the first is refused, later
//! it ends the first (so, as on AWS, a subscription fences nobody off). Events carry at most 1 MiB of records.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::Stream as EventStream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{consumers, get, shards};
use crate::{
    config::Limits,
    error::ApiError,
    eventstream,
    ids::{Position, ShardIndex},
    service::Service,
    shard::{ReadOutcome, Shard},
    stream::{Stream, storage_failure},
    sync::lock,
    throttle::subscription_pause,
};

const EVENT_RECORDS: usize = 10_000;
const EVENT_BYTES: u64 = 1 << 20;

/// The subscriptions of all consumers.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(BTreeMap<(String, ShardIndex), Active>);

#[derive(Debug)]
struct Active {
    started: Instant,
    ended: CancellationToken,
}

impl Subscriptions {
    /// Starts a subscription; the token is cancelled when another takes over.
    fn begin(&mut self, consumer: &str, shard: ShardIndex, takeover: Duration) -> Result<CancellationToken, ApiError> {
        let now = Instant::now();
        let key = (consumer.to_owned(), shard);
        if let Some(active) = self.0.get(&key) {
            if now.saturating_duration_since(active.started) < takeover {
                return Err(ApiError::in_use(format!(
                    "Another active subscription exists for this consumer: {consumer} and shard {shard}."
                )));
            }
            active.ended.cancel();
        }
        let ended = CancellationToken::new();
        self.0.insert(key, Active { started: now, ended: ended.clone() });
        Ok(ended)
    }

    /// Ends every subscription of a consumer.
    pub(crate) fn end(&mut self, consumer: &str) {
        self.0.retain(|(of, _), active| {
            let other = of != consumer;
            if !other {
                active.ended.cancel();
            }
            other
        });
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Subscribe {
    #[serde(rename = "ConsumerARN")]
    consumer_arn: String,
    shard_id: String,
    starting_position: StartingPosition,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StartingPosition {
    r#type: String,
    sequence_number: Option<String>,
    timestamp: Option<f64>,
}

/// One running subscription.
struct Subscription {
    service: Arc<Service>,
    stream: Arc<Stream>,
    shard: Arc<Shard>,
    position: Position,
    changed: watch::Receiver<()>,
    ended: CancellationToken,
    deadline: tokio::time::Instant,
    step: Step,
}

/// What the next event is.
enum Step {
    Hello,
    /// Records, after a pause that holds the rate.
    Records {
        not_before: tokio::time::Instant,
    },
    Done,
}

/// Checks the request and starts the subscription.
pub(crate) fn subscribe(
    service: &Arc<Service>,
    body: &[u8],
) -> Result<impl EventStream<Item = io::Result<Bytes>> + Send + use<>, ApiError> {
    let request: Subscribe = super::parse(body)?;
    let (stream, _) = consumers::find_active(service, &request.consumer_arn)?;
    let shard = stream.shard(shards::parse_id(&request.shard_id)?)?;
    let at = &request.starting_position;
    let position = get::start(&stream, &shard, &at.r#type, at.sequence_number.as_deref(), at.timestamp)?;
    let takeover = service.config.subscription_takeover;
    let ended = lock(&service.subscriptions).begin(&request.consumer_arn, shard.spec.index, takeover)?;
    let subscription = Subscription {
        changed: shard.watch(),
        deadline: tokio::time::Instant::now() + service.config.subscription_lifetime,
        service: Arc::clone(service),
        stream,
        shard,
        position,
        ended,
        step: Step::Hello,
    };
    Ok(futures::stream::unfold(subscription, |mut subscription| async move {
        let event = subscription.next().await?;
        Some((Ok(Bytes::from(event)), subscription))
    }))
}

impl Subscription {
    /// The next event; `None` ends the response.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let not_before = match self.step {
            Step::Hello => {
                self.step = Step::Records { not_before: tokio::time::Instant::now() };
                return Some(eventstream::event("initial-response", b"{}"));
            }
            Step::Records { not_before } => not_before,
            Step::Done => return None,
        };
        let heartbeat = tokio::time::Instant::now() + self.service.config.subscription_heartbeat;
        let mut wake = not_before;
        loop {
            tokio::select! {
                biased;
                () = self.ended.cancelled() => return None,
                () = self.service.stopping.cancelled() => return None,
                () = tokio::time::sleep_until(self.deadline) => return None,
                () = tokio::time::sleep_until(wake) => {}
                changed = self.changed.changed(), if wake > not_before => changed.ok()?,
            }
            self.changed.mark_unchanged();
            match self.read() {
                Ok(outcome)
                    if outcome.batch.count == 0
                        && outcome.ended.is_none()
                        && tokio::time::Instant::now() < heartbeat =>
                {
                    wake = heartbeat.max(not_before + Duration::from_nanos(1));
                }
                Ok(outcome) => return self.event(&outcome).or_else(|error| self.fail(&error)).ok(),
                Err(error) => return self.fail(&error).ok(),
            }
        }
    }

    fn read(&self) -> Result<ReadOutcome, ApiError> {
        let _power = self.service.powered().ok_or_else(|| ApiError::internal("the emulator is off"))?;
        let retention_ms = self.stream.ready()?.retention_ms;
        self.shard.read(self.position, EVENT_RECORDS, EVENT_BYTES, retention_ms).map_err(|e| storage_failure(&e))
    }

    fn event(&mut self, outcome: &ReadOutcome) -> Result<Vec<u8>, ApiError> {
        let mut payload = Vec::with_capacity(get::answer_size(&outcome.batch));
        payload.extend_from_slice(b"{\"Records\":");
        get::write_records(&mut payload, &self.shard, &outcome.batch)?;
        self.position = outcome.batch.next;
        let mut rest = json!({"MillisBehindLatest": outcome.behind_ms});
        if let Some(children) = &outcome.ended {
            rest["ChildShards"] = json!(shards::describe_children(&self.stream, children));
            self.step = Step::Done;
        } else {
            rest["ContinuationSequenceNumber"] = json!(self.shard.sequence(self.position.previous()).to_string());
            let pause = match self.service.config.limits {
                Limits::Off => Duration::ZERO,
                Limits::Aws => subscription_pause(outcome.batch.bytes),
            };
            self.step = Step::Records { not_before: tokio::time::Instant::now() + pause };
        }
        payload.push(b',');
        payload.extend_from_slice(rest.to_string().trim_start_matches('{').as_bytes());
        self.service.counters.records_out.add(outcome.batch.count as u64);
        Ok(eventstream::event("SubscribeToShardEvent", &payload))
    }

    /// Turns an error into the last event.
    fn fail(&mut self, error: &ApiError) -> Result<Vec<u8>, ApiError> {
        self.step = Step::Done;
        let payload = json!({"message": error.message}).to_string();
        Ok(eventstream::exception(&error.code, payload.as_bytes()))
    }
}
