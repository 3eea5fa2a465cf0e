//! Subscriptions to a log in memory, with Kinesis' rules: one per consumer and shard, taken over after five seconds,
//! over after five minutes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Clock, MemoryStream};
use crate::log::{Event, LogError, Subscription};
use crate::shard::SequenceNumber;

/// A subscription younger than this refuses the next.
const TAKEOVER: Duration = Duration::from_secs(5);
const LIFETIME: Duration = Duration::from_secs(300);
/// An idle subscription sends an empty event this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often an idle subscription looks.
const LOOK: Duration = Duration::from_millis(200);
const EVENT_RECORDS: usize = 1_000;

/// The running subscriptions by (consumer, shard).
pub(super) type Subscriptions = BTreeMap<(String, usize), (Instant, CancellationToken)>;

/// One subscription.
#[derive(Debug)]
pub(super) struct Push {
    streams: Arc<Mutex<BTreeMap<String, MemoryStream>>>,
    clock: Clock,
    stream: String,
    shard: usize,
    offset: usize,
    over: Instant,
    ended: CancellationToken,
    done: bool,
}

impl Push {
    /// Takes the consumer's place at a shard, unless it was taken moments ago.
    pub(super) fn begin(
        streams: &Arc<Mutex<BTreeMap<String, MemoryStream>>>,
        clock: Clock,
        (stream, consumer): (&str, &str),
        (shard, offset): (usize, usize),
    ) -> Result<Self, LogError> {
        let now = Instant::now();
        let mut all = streams.lock().unwrap_or_else(PoisonError::into_inner);
        let running = &mut all.get_mut(stream).ok_or_else(|| LogError::NotFound(stream.to_owned()))?.subscriptions;
        let key = (consumer.to_owned(), shard);
        if let Some((started, before)) = running.get(&key) {
            if now.duration_since(*started) < TAKEOVER {
                return Err(LogError::InUse);
            }
            before.cancel();
        }
        let ended = CancellationToken::new();
        running.insert(key, (now, ended.clone()));
        let (streams, stream) = (Arc::clone(streams), stream.to_owned());
        Ok(Self { streams, clock, stream, shard, offset, over: now + LIFETIME, ended, done: false })
    }

    /// The next event, empty when nothing is there.
    fn look(&mut self) -> Result<Event, LogError> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let shard = streams.get(&self.stream).and_then(|s| s.shards.get(self.shard)).filter(|m| !m.expired);
        let shard = shard.ok_or_else(|| LogError::NotFound(self.stream.clone()))?;
        let view = shard.view(self.offset, EVENT_RECORDS, self.clock.now_ms());
        // One below the first is where a subscription to an empty shard goes on.
        let before = view.end.checked_sub(1).and_then(|at| shard.records.get(at)).map(|r| r.sequence.clone());
        let continuation = if view.at_end { None } else { before.or_else(|| SequenceNumber::new("0")) };
        self.offset = view.end;
        Ok(Event { records: view.records, continuation, behind_ms: view.behind_ms })
    }
}

#[async_trait::async_trait]
impl Subscription for Push {
    async fn next(&mut self) -> Option<Result<Event, LogError>> {
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            if self.done || self.ended.is_cancelled() || Instant::now() >= self.over {
                return None;
            }
            let event = self.look();
            let says_something = match &event {
                Ok(event) => !event.records.is_empty() || event.continuation.is_none(),
                Err(_) => true,
            };
            if says_something || Instant::now() >= heartbeat {
                self.done = !matches!(&event, Ok(Event { continuation: Some(_), .. }));
                return Some(event);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
