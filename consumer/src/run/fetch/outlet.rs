//! What was read on its way to the stage: consumed records left out, aggregates taken apart, pages of a bearable size.
//!
//! Here: counting what happens to aggregates, and telling that records expired unread. Not here: reading.
//! Invariant: whatever reads (polling, subscription), the stage gets the same records in the same order.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Fetched, Retention, Start};
use crate::kpl::{Kpl, Split, split};
use crate::log::Record;
use crate::metrics::EngineMetrics;
use crate::shard::{HashRange, SequenceNumber};
use crate::stage::ShardContext;

/// A page is sent when it holds this many records; aggregates can make many of a few.
const PAGE_RECORDS: usize = 10_000;
/// Pause between two alarms of one shard.
const ALARM: Duration = Duration::from_secs(60);

/// The stage is gone, and nobody waits for pages.
#[derive(Debug)]
pub(super) struct Closed;

/// Sends what was read.
#[derive(Debug)]
pub(super) struct Outlet {
    sender: mpsc::Sender<Fetched>,
    kpl: Option<Kpl>,
    range: HashRange,
    consumed: Option<(SequenceNumber, u64)>,
    /// The first record must be this one, or some have expired.
    expected: Option<SequenceNumber>,
    resharded_until_ms: Option<i64>,
    retention: Retention,
    /// When the last read that came to the tip began.
    tip: Option<Instant>,
    metrics: EngineMetrics,
    stream: String,
    shard: String,
    counts: Counts,
    alarmed: Option<Instant>,
}

/// What one read held of aggregates, for the metrics.
#[derive(Debug, Default)]
struct Counts {
    split: u64,
    plain: BTreeMap<&'static str, u64>,
    /// Sub-records outside the range, by whether a reshard was near.
    outside: BTreeMap<bool, u64>,
}

impl Outlet {
    pub(super) fn new(
        shard: &ShardContext,
        kpl: Option<Kpl>,
        metrics: EngineMetrics,
        start: Start,
        retention: Retention,
        sender: mpsc::Sender<Fetched>,
    ) -> Self {
        Self {
            sender,
            kpl,
            range: shard.range,
            expected: start.consumed.as_ref().filter(|_| !start.complete).map(|(sequence, _)| sequence.clone()),
            consumed: start.consumed,
            resharded_until_ms: start.resharded_until_ms,
            retention,
            tip: None,
            metrics,
            stream: shard.stream.name.clone(),
            shard: shard.shard.as_str().to_owned(),
            counts: Counts::default(),
            alarmed: None,
        }
    }

    /// Reading begins anew AT `sequence`, which is consumed.
    pub(super) fn again_at(&mut self, sequence: SequenceNumber) {
        // The record itself may expire while nothing comes behind it.
        let complete = self.tip.is_some_and(|tip| self.retention.keeps_since(tip.elapsed()));
        self.expected = (!complete).then(|| sequence.clone());
        self.consumed = Some((sequence, u64::MAX));
    }

    /// Sends what one read gave; `last`: nothing follows.
    pub(super) async fn page(
        &mut self,
        records: Vec<Record>,
        behind_ms: i64,
        asked: Instant,
        last: bool,
    ) -> Result<(), Closed> {
        if behind_ms == 0 {
            self.tip = Some(asked);
        }
        if let Some(first) = records.first() {
            let expected = self.expected.take();
            if let Some(after) = expected.filter(|expected| first.sequence > *expected) {
                self.send(Fetched::Trimmed { after }).await?;
            }
        }
        let mut ready: Vec<Record> = Vec::new();
        for record in records {
            if ready.len() >= PAGE_RECORDS {
                // Not the tip, whatever the whole read says.
                let records = std::mem::take(&mut ready);
                self.send(Fetched::Page { records, behind_ms: behind_ms.max(1), asked }).await?;
            }
            self.take(record, &mut ready);
        }
        self.count();
        // The last, empty page of a closed shard is its end, not a look at a tip.
        if ready.is_empty() && last {
            return Ok(());
        }
        self.send(Fetched::Page { records: ready, behind_ms, asked }).await
    }

    /// Tells how the shard ended. When not even the record that reading began at was there, those behind it may have
    /// expired with it.
    pub(super) async fn end(&mut self, end: Fetched) -> Result<(), Closed> {
        if let (Some(after), Fetched::ShardEnd) = (self.expected.take(), &end) {
            self.send(Fetched::Trimmed { after }).await?;
        }
        self.send(end).await
    }

    async fn send(&self, fetched: Fetched) -> Result<(), Closed> {
        self.sender.send(fetched).await.map_err(|_| Closed)
    }

    fn take(&mut self, record: Record, ready: &mut Vec<Record>) {
        let Some((sequence, sub_sequence)) = self.consumed.clone() else {
            return self.unpack(record, ready);
        };
        if record.sequence < sequence {
            return;
        }
        if record.sequence > sequence {
            self.consumed = None;
            return self.unpack(record, ready);
        }
        let before = ready.len();
        self.unpack(record, ready);
        let rest: Vec<Record> = ready.drain(before..).filter(|r| r.sub_sequence > sub_sequence).collect();
        ready.extend(rest);
    }

    fn unpack(&mut self, record: Record, ready: &mut Vec<Record>) {
        let Some(kpl) = self.kpl else { return ready.push(record) };
        let arrived_ms = record.arrived_ms;
        match split(kpl, self.range, record) {
            Split::Plain { record, reason } => {
                if let Some(reason) = reason {
                    *self.counts.plain.entry(reason.as_str()).or_default() += 1;
                }
                ready.push(record);
            }
            Split::Aggregate { records, outside } => {
                self.counts.split += 1;
                if outside > 0 {
                    let resharded = self.resharded_until_ms.is_some_and(|until| arrived_ms < until);
                    *self.counts.outside.entry(resharded).or_default() += outside;
                }
                ready.extend(records);
            }
        }
    }

    /// Once a read: metrics, and an alarm for what is loss rather than a reshard's repeat.
    fn count(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        if counts.split > 0 {
            self.metrics.kpl_aggregates(&self.stream, counts.split);
        }
        for (reason, records) in counts.plain {
            self.metrics.kpl_undecodable(&self.stream, reason, records);
            tracing::debug!(
                stream = self.stream,
                shard = self.shard,
                reason,
                records,
                "look like aggregates and are none"
            );
        }
        for (resharded, records) in counts.outside {
            self.metrics.kpl_out_of_range(&self.stream, &self.shard, resharded, records);
            if !resharded && self.alarmed.is_none_or(|at| at.elapsed() >= ALARM) {
                self.alarmed = Some(Instant::now());
                let action = self.kpl.map(|kpl| kpl.out_of_range);
                let (stream, shard) = (&self.stream, &self.shard);
                tracing::error!(
                    stream,
                    shard,
                    records,
                    ?action,
                    "aggregated records outside the shard's hash range, away from a reshard"
                );
            }
        }
    }
}
