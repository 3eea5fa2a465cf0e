//! Reading by enhanced fan-out: records are pushed to a subscription of five minutes, and the next goes on behind it.
//!
//! A subscription fences nobody: five seconds after it began another worker's may take its place, and a zombie may take
//! it back. That is tolerated, because only the lease row decides what counts; here the end of a subscription, whatever
//! the reason, leads to the next one. Back-pressure is not asking for the next event. Not here: what the records become
//! (`outlet`, the same as for polling).
//! Invariant: two subscriptions to a shard are never asked for less than [`APART`] after one another.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::outlet::{Closed, Outlet};
use super::{Fetched, Place};
use crate::log::{ConsumerId, Event, LogError, Subscription};
use crate::shard::{Position, SequenceNumber};

/// A subscription younger than this refuses the next one.
const APART: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// A subscription says every few seconds that nothing is there; one that does not is cut off without knowing it.
const SILENCE: Duration = Duration::from_secs(30);
/// No stream keeps its records for less: what was put since the tip was seen is still there.
const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Subscribes to one shard.
pub(super) struct Subscriber {
    place: Place,
    consumer: String,
    outlet: Outlet,
    /// When a finite input ends: a subscription that began earlier cannot tell that nothing more will come.
    ends: watch::Receiver<Option<Instant>>,
    registered: Option<ConsumerId>,
    pause: Duration,
    /// The last Kinesis record seen, sent on or not.
    last: Option<SequenceNumber>,
    /// When nothing was unread.
    tip: Option<Instant>,
}

/// How a subscription ended.
enum End {
    /// The next one goes on.
    Over,
    /// The shard is read to its end.
    Shard,
    Failed(LogError),
}

impl Subscriber {
    pub(super) fn new(place: Place, consumer: &str, outlet: Outlet, ends: watch::Receiver<Option<Instant>>) -> Self {
        Self {
            place,
            consumer: consumer.to_owned(),
            outlet,
            ends,
            registered: None,
            pause: APART,
            last: None,
            tip: None,
        }
    }

    /// Reads to the shard's end, which it tells, or until nobody listens.
    pub(super) async fn run(mut self) -> Result<(), Closed> {
        loop {
            let asked = Instant::now();
            let end = match self.subscribe().await {
                Ok(subscription) => {
                    self.pause = APART;
                    self.listen(subscription, asked).await?
                }
                Err(e) => End::Failed(e),
            };
            match end {
                End::Over => {}
                End::Shard => return self.outlet.end(Fetched::ShardEnd).await,
                End::Failed(LogError::NotFound(what)) => {
                    if self.place.is_gone().await.unwrap_or(false) {
                        return self.outlet.end(Fetched::Gone).await;
                    }
                    // The consumer itself may be gone: it is looked for, and registered, again.
                    self.registered = None;
                    self.wait_longer(&LogError::NotFound(what));
                }
                // A worker that held the shard before us, or our own answer that was lost: it is over in seconds.
                End::Failed(LogError::InUse) => {
                    tracing::debug!(stream = self.place.stream, shard = %self.place.shard, "another subscription is young");
                }
                End::Failed(e) => self.wait_longer(&e),
            }
            tokio::time::sleep_until(asked + self.pause).await;
            self.seek_again();
        }
    }

    /// Where records may have expired meanwhile, the next subscription begins at the last record seen, which the outlet
    /// leaves out; another one in its place shows that they have.
    fn seek_again(&mut self) {
        let nothing_expired = self.tip.is_some_and(|tip| tip.elapsed() < RETENTION);
        if let (Some(last), false) = (self.last.clone(), nothing_expired) {
            self.outlet.again_at(last.clone());
            self.place.position = Position::At(last);
        }
    }

    fn wait_longer(&mut self, error: &LogError) {
        let (stream, shard) = (&self.place.stream, &self.place.shard);
        tracing::warn!(stream, %shard, %error, "subscription failed, trying again");
        self.pause = (self.pause * 2).min(LONGEST);
    }

    async fn subscribe(&mut self) -> Result<Box<dyn Subscription>, LogError> {
        let Place { log, stream, shard, position } = &self.place;
        let consumer = match &self.registered {
            Some(consumer) => consumer.clone(),
            None => log.register(stream, &self.consumer).await?,
        };
        let subscription = log.subscribe(&consumer, shard, position).await?;
        self.registered = Some(consumer);
        Ok(subscription)
    }

    async fn listen(&mut self, mut subscription: Box<dyn Subscription>, asked: Instant) -> Result<End, Closed> {
        let mut ends = self.ends.clone();
        loop {
            let event = tokio::select! {
                biased;
                event = subscription.next() => event,
                () = ended_after(&mut ends, asked) => return Ok(End::Over),
                () = tokio::time::sleep(SILENCE) => {
                    let (stream, shard) = (&self.place.stream, &self.place.shard);
                    tracing::warn!(stream, %shard, "the subscription is silent, taking a new one");
                    return Ok(End::Over);
                }
            };
            match event {
                None => return Ok(End::Over),
                Some(Err(e)) => return Ok(End::Failed(e)),
                Some(Ok(Event { records, continuation, behind_ms })) => {
                    let last = continuation.is_none();
                    if let Some(record) = records.last() {
                        self.last = Some(record.sequence.clone());
                    }
                    if behind_ms == 0 {
                        self.tip = Some(Instant::now());
                    }
                    // An event may have waited long on its way: what it saw is sure only as of the subscription.
                    self.outlet.page(records, behind_ms, asked, last).await?;
                    match continuation {
                        None => return Ok(End::Shard),
                        Some(sequence) => self.place.position = Position::After(sequence),
                    }
                }
            }
        }
    }
}

/// Waits until the input is known to have ended later than `asked`.
async fn ended_after(ends: &mut watch::Receiver<Option<Instant>>, asked: Instant) {
    let over = ends.wait_for(|end| end.is_some_and(|end| end > asked)).await.is_ok();
    if !over {
        std::future::pending::<()>().await;
    }
}
