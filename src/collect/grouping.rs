//! Which record goes into which PutRecords call, and when again.
//!
//! A call is made when it is full or its oldest record has lingered. A record that Kinesis refuses goes back alone and comes
//! again with a later call after a pause that doubles, until its deadline; records of a request that has failed already are
//! dropped. A hot shard thus holds up only its own records, not the calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::batcher::{Job, Ticket};
use super::kinesis::{CallError, EntryError, PutRecords};
use super::{Record, SinkError, SinkOptions};
use crate::metrics::collect::CollectMetrics;

/// Kinesis' limits of one call.
const MAX_CALL_RECORDS: usize = 500;
const MAX_CALL_BYTES: usize = 5 << 20;

/// One record on its way.
#[derive(Debug)]
struct Slot {
    record: Record,
    ticket: Arc<Ticket>,
    arrived: Instant,
    refusals: u32,
}

type Called = (Vec<Slot>, Result<Vec<Result<(), EntryError>>, CallError>);

/// The task behind a [`super::KinesisSink`].
pub(super) struct Task {
    stream: Arc<dyn PutRecords>,
    metrics: CollectMetrics,
    options: SinkOptions,
    chance: SmallRng,
    fresh: VecDeque<Slot>,
    /// Refused records by when they may come again; the number keeps them apart.
    again: BTreeMap<(Instant, u64), Slot>,
    next_number: u64,
    calls: FuturesUnordered<BoxFuture<'static, Called>>,
}

impl Task {
    pub(super) fn new(stream: Arc<dyn PutRecords>, metrics: CollectMetrics, options: SinkOptions) -> Self {
        Self {
            stream,
            metrics,
            chance: SmallRng::seed_from_u64(options.seed),
            options,
            fresh: VecDeque::new(),
            again: BTreeMap::new(),
            next_number: 0,
            calls: FuturesUnordered::new(),
        }
    }

    /// Runs until the channel is closed and nothing waits.
    pub(super) async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut closed = false;
        loop {
            let wake = self.start_calls(closed);
            if closed && self.fresh.is_empty() && self.again.is_empty() && self.calls.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some((slots, result)) = self.calls.next() => self.settle(slots, result),
                job = jobs.recv(), if !closed => match job {
                    Some(job) => self.accept(job),
                    None => closed = true,
                },
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn accept(&mut self, job: Job) {
        let arrived = Instant::now();
        let Job { records, ticket } = job;
        let slot = |record| Slot { record, ticket: Arc::clone(&ticket), arrived, refusals: 0 };
        self.fresh.extend(records.into_iter().map(slot));
    }

    /// Starts every call that is due; says when the next one will be, unless only the end of a call can tell.
    fn start_calls(&mut self, closed: bool) -> Option<Instant> {
        loop {
            let due = self.next_due(closed)?;
            if self.calls.len() >= self.options.calls.max(1) {
                return None;
            }
            if due > Instant::now() {
                return Some(due);
            }
            let slots = self.take_call();
            if slots.is_empty() {
                continue;
            }
            let records = slots.iter().map(|slot| slot.record.clone()).collect();
            let (stream, limit) = (Arc::clone(&self.stream), self.options.call_timeout);
            self.calls.push(Box::pin(async move {
                let late = || Err(CallError::Unavailable(format!("no answer in {limit:?}")));
                let result = tokio::time::timeout(limit, stream.put_records(records)).await;
                (slots, result.unwrap_or_else(|_| late()))
            }));
        }
    }

    /// When the next call may start; `None` when nothing waits.
    fn next_due(&self, closed: bool) -> Option<Instant> {
        let again = self.again.keys().next().map(|(at, _)| *at);
        let fresh = self.fresh.front().map(|oldest| {
            let full = self.fresh.len() >= MAX_CALL_RECORDS || self.fresh_bytes_reach(MAX_CALL_BYTES);
            if closed || full { oldest.arrived } else { oldest.arrived + self.options.linger }
        });
        again.into_iter().chain(fresh).min()
    }

    fn fresh_bytes_reach(&self, limit: usize) -> bool {
        let mut sum = 0;
        self.fresh.iter().any(|slot| {
            sum += slot.record.size();
            sum >= limit
        })
    }

    /// The records of one call: refused ones that may come again first, then new ones.
    fn take_call(&mut self) -> Vec<Slot> {
        let now = Instant::now();
        let (mut slots, mut bytes) = (Vec::new(), 0);
        while slots.len() < MAX_CALL_RECORDS {
            let again = self.again.first_entry().filter(|entry| entry.key().0 <= now);
            let size = match (&again, self.fresh.front()) {
                (Some(entry), _) => entry.get().record.size(),
                (None, Some(slot)) => slot.record.size(),
                (None, None) => break,
            };
            if bytes + size > MAX_CALL_BYTES && !slots.is_empty() {
                break;
            }
            let Some(slot) = again.map_or_else(|| self.fresh.pop_front(), |entry| Some(entry.remove())) else { break };
            if slot.ticket.is_over() {
                continue;
            }
            if now >= slot.arrived + self.options.deadline {
                slot.ticket.end(Err(SinkError::Throttled { retry_after: self.options.backoff.1 }));
                continue;
            }
            bytes += size;
            slots.push(slot);
        }
        slots
    }

    fn settle(&mut self, slots: Vec<Slot>, result: Result<Vec<Result<(), EntryError>>, CallError>) {
        match result {
            Ok(entries) => {
                // An answer with fewer entries than records says nothing about the rest: they come again.
                let missing = std::iter::repeat_with(|| Err(EntryError::Internal("no entry in the answer".to_owned())));
                for (slot, entry) in slots.into_iter().zip(entries.into_iter().chain(missing)) {
                    match entry {
                        Ok(()) => self.put(&slot),
                        Err(EntryError::Throttled) => self.refuse(slot, None),
                        Err(EntryError::Internal(detail)) => self.refuse(slot, Some(&detail)),
                    }
                }
            }
            Err(CallError::Throttled) => slots.into_iter().for_each(|slot| self.refuse(slot, None)),
            Err(CallError::Unavailable(detail)) => slots.into_iter().for_each(|slot| self.refuse(slot, Some(&detail))),
            Err(CallError::Rejected(detail)) => {
                tracing::error!(%detail, "kinesis rejects records");
                for slot in slots {
                    self.metrics.put_failures.with_label_values(&["unavailable"]).inc();
                    slot.ticket.end(Err(SinkError::Unavailable { detail: detail.clone() }));
                }
            }
        }
    }

    fn put(&self, slot: &Slot) {
        self.metrics.records_put.inc();
        self.metrics.bytes_put.inc_by(slot.record.size() as u64);
        slot.ticket.record_done();
    }

    /// Lets a record come again, or ends its request when there is no time left. Without a detail it was throttled.
    fn refuse(&mut self, mut slot: Slot, detail: Option<&str>) {
        let reason = if detail.is_some() { "unavailable" } else { "throttled" };
        self.metrics.put_failures.with_label_values(&[reason]).inc();
        let (first, longest) = self.options.backoff;
        let full = first.saturating_mul(1 << slot.refusals.min(16)).min(longest);
        // Half of the pause is left to chance, so that records refused together do not return together.
        let pause = full.mul_f64(0.5 + 0.5 * self.chance.random::<f64>());
        let at = Instant::now() + pause;
        if at >= slot.arrived + self.options.deadline {
            let error = match detail {
                None => SinkError::Throttled { retry_after: longest },
                Some(detail) => SinkError::Unavailable { detail: detail.to_owned() },
            };
            slot.ticket.end(Err(error));
            return;
        }
        slot.refusals += 1;
        self.next_number += 1;
        self.again.insert((at, self.next_number), slot);
    }
}
