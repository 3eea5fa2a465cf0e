//! Reading by GetRecords.
//!
//! One read at a time, at the pace of [`Pace`]; a place (shard iterator) is asked for only in the same step as a read,
//! so GetShardIterator stays within its five a second too. Errors are never the end: a throttled, lost or expired read
//! is made again from the record behind the last one seen.

use std::time::Duration;

use tokio::time::Instant;

use super::outlet::{Closed, Outlet};
use super::pace::Pace;
use super::{Fetched, Place};
use crate::log::{LogError, Page, ReadToken, Record};
use crate::shard::{Position, SequenceNumber};

/// Polls one shard.
#[derive(Debug)]
pub(super) struct Poll {
    place: Place,
    pace: Pace,
    outlet: Outlet,
    token: Option<ReadToken>,
    /// The last Kinesis record seen, sent on or not.
    last: Option<SequenceNumber>,
}

impl Poll {
    pub(super) fn new(place: Place, busy: Duration, idle: Duration, outlet: Outlet) -> Self {
        Self { place, pace: Pace::new(busy, idle), outlet, token: None, last: None }
    }

    /// Reads to the shard's end, which it tells, or until nobody listens.
    pub(super) async fn run(mut self) -> Result<(), Closed> {
        loop {
            let asked = Instant::now();
            let pause = match self.step().await {
                Ok(page) => {
                    let next = page.next.clone();
                    let pause = self.deliver(page, asked).await?;
                    if next.is_none() {
                        return self.outlet.end(Fetched::ShardEnd).await;
                    }
                    self.token = next;
                    pause
                }
                Err(LogError::Expired) => {
                    tracing::debug!(stream = self.place.stream, shard = %self.place.shard, "shard iterator expired");
                    self.pace.soon()
                }
                Err(LogError::NotFound(_)) if self.place.is_gone().await.unwrap_or(false) => {
                    return self.outlet.end(Fetched::Gone).await;
                }
                Err(e) => {
                    tracing::warn!(stream = self.place.stream, shard = %self.place.shard, error = %e, "read failed, trying again");
                    self.pace.failed()
                }
            };
            if self.token.is_none() {
                self.seek_again();
            }
            // A stage that was slow to take the page has used the pause up.
            tokio::time::sleep_until(asked + pause).await;
        }
    }

    async fn step(&mut self) -> Result<Page, LogError> {
        let Place { log, stream, shard, position } = &self.place;
        let token = match self.token.take() {
            Some(token) => token,
            None => log.seek(stream, shard, position).await?,
        };
        match log.read(stream, &token).await {
            // The place is as good as before.
            Err(e) if e.is_retryable() => {
                self.token = Some(token);
                Err(e)
            }
            other => other,
        }
    }

    async fn deliver(&mut self, page: Page, asked: Instant) -> Result<Duration, Closed> {
        let Page { records, next, behind_ms } = page;
        let pause = self.pace.read(wire_bytes(&records), records.len(), behind_ms);
        if let Some(last) = records.last() {
            self.last = Some(last.sequence.clone());
        }
        self.outlet.page(records, behind_ms, asked, next.is_none()).await?;
        Ok(pause)
    }

    /// Goes on at the last record, which the outlet leaves out; another one in its place shows that some expired.
    fn seek_again(&mut self) {
        if let Some(last) = self.last.clone() {
            self.outlet.again_at(last.clone());
            self.place.position = Position::At(last);
        }
    }
}

/// What counts against a shard's rate.
fn wire_bytes(records: &[Record]) -> usize {
    records.iter().map(|r| r.data.len() + r.partition_key.len()).sum()
}
