//! Groups the records of many requests into few PutRecords calls.
//!
//! A call is made when it is full or its oldest record has lingered; a record that Kinesis refuses goes back alone and comes
//! again with the next call after a pause that doubles, until the request's deadline. A request gets one answer, when all its
//! records are in or one has failed for good. Order across requests is the clients': each waits for its answer.
//!
//! Bounded by bytes: what does not fit is throttled at once, so Kinesis' limits are felt by clients as 429.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use prometheus::IntGauge;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::kinesis::{CallError, EntryError, PutRecords};
use super::{Record, RecordSink, SinkError};
use crate::metrics::collect::CollectMetrics;

/// Kinesis' limits of one call.
const MAX_CALL_RECORDS: usize = 500;
const MAX_CALL_BYTES: usize = 5 << 20;
const KIB: usize = 1 << 10;

/// Settings of the sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkOptions {
    /// How long a record waits for company; 10 ms.
    pub linger: Duration,
    /// How long a request's records are tried; 10 s, below the agent's own limit of 20 s.
    pub deadline: Duration,
    /// Limit of one call; 5 s.
    pub call_timeout: Duration,
    /// Calls under way at once, at least 1; 8.
    pub calls: usize,
    /// Bytes waiting or under way; 64 MiB. A request above it is never taken.
    pub queue_bytes: usize,
    /// First and longest pause before a refused record is tried again; 50 ms and 2 s.
    pub backoff: (Duration, Duration),
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for SinkOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(10),
            deadline: Duration::from_secs(10),
            call_timeout: Duration::from_secs(5),
            calls: 8,
            queue_bytes: 64 << 20,
            backoff: (Duration::from_millis(50), Duration::from_secs(2)),
            seed: 0,
        }
    }
}

/// Records into Kinesis, grouped.
#[derive(Debug)]
pub struct KinesisSink {
    jobs: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    room: Arc<Semaphore>,
    queue_bytes: IntGauge,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl KinesisSink {
    /// Starts the grouping task on the current runtime.
    pub fn start(stream: Arc<dyn PutRecords>, metrics: CollectMetrics, options: SinkOptions) -> Self {
        // Not bounded by itself: every job holds permits of `room`.
        let (jobs, received) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(options.queue_bytes.div_ceil(KIB).min(Semaphore::MAX_PERMITS)));
        let queue_bytes = metrics.queue_bytes.clone();
        let task = Task {
            stream,
            metrics,
            chance: SmallRng::seed_from_u64(options.seed),
            options,
            fresh: VecDeque::new(),
            again: BTreeMap::new(),
            next_number: 0,
            calls: FuturesUnordered::new(),
        };
        let task = tokio::spawn(task.run(received));
        Self { jobs: Mutex::new(Some(jobs)), room, queue_bytes, task: Mutex::new(Some(task)) }
    }

    /// Takes nothing more, puts what is waiting (or gives it up at its deadline), and ends the task.
    pub async fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "record sink failed");
        }
    }

    fn enqueue(&self, records: Vec<Record>) -> Result<oneshot::Receiver<Result<(), SinkError>>, SinkError> {
        let unavailable = || SinkError::Unavailable { detail: "sink is closed".to_owned() };
        // Each record costs at least one unit, so that a million small ones cannot slip in.
        let units = records.iter().map(|record| record.size().div_ceil(KIB).max(1)).sum::<usize>();
        let full = |_| SinkError::Throttled { retry_after: Duration::from_secs(1) };
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).try_acquire_many_owned(units).map_err(full)?;
        let (answer, answered) = oneshot::channel();
        let bytes = i64::try_from(records.iter().map(Record::size).sum::<usize>()).unwrap_or(i64::MAX);
        self.queue_bytes.add(bytes);
        let ticket = Arc::new(Ticket {
            answer: Mutex::new(Some(answer)),
            missing: AtomicUsize::new(records.len()),
            bytes,
            queue_bytes: self.queue_bytes.clone(),
            _room: permit,
        });
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.as_ref().ok_or_else(unavailable)?.send(Job { records, ticket }).map_err(|_| unavailable())?;
        Ok(answered)
    }
}

impl RecordSink for KinesisSink {
    fn put(&self, records: Vec<Record>) -> BoxFuture<'_, Result<(), SinkError>> {
        if records.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        let queued = self.enqueue(records);
        Box::pin(async move {
            let gone = SinkError::Unavailable { detail: "sink ended".to_owned() };
            queued?.await.unwrap_or(Err(gone))
        })
    }
}

#[derive(Debug)]
struct Job {
    records: Vec<Record>,
    ticket: Arc<Ticket>,
}

/// A request's claim: answered once.
#[derive(Debug)]
struct Ticket {
    answer: Mutex<Option<oneshot::Sender<Result<(), SinkError>>>>,
    missing: AtomicUsize,
    bytes: i64,
    queue_bytes: IntGauge,
    _room: OwnedSemaphorePermit,
}

impl Ticket {
    fn record_done(&self) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.end(Ok(()));
        }
    }

    fn end(&self, result: Result<(), SinkError>) {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(answer) = answer {
            // The client may have hung up.
            drop(answer.send(result));
        }
    }

    /// Failed already: its other records need not be put.
    fn is_over(&self) -> bool {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queue_bytes.sub(self.bytes);
    }
}

/// One record on its way.
#[derive(Debug)]
struct Slot {
    record: Record,
    ticket: Arc<Ticket>,
    arrived: Instant,
    refusals: u32,
}

type Called = (Vec<Slot>, Result<Vec<Result<(), EntryError>>, CallError>);

struct Task {
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
    async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
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
