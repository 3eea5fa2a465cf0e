//! Groups the records of many requests into few PutRecords calls.
//!
//! This side is what requests see: a request's records go in as one job and get one answer, when all are in or one has failed
//! for good. `grouping` is the task behind it. Order across requests is the clients': each waits for its answer.
//!
//! Bounded by bytes: what does not fit is throttled at once, so Kinesis' limits are felt by clients as 429.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::grouping::Task;
use super::kinesis::PutRecords;
use super::{Record, RecordSink, SinkError};
use crate::metrics::collect::CollectMetrics;

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
        let task = Task::new(stream, metrics, options);
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

/// A request's records.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) records: Vec<Record>,
    pub(super) ticket: Arc<Ticket>,
}

/// A request's claim: answered once.
#[derive(Debug)]
pub(super) struct Ticket {
    answer: Mutex<Option<oneshot::Sender<Result<(), SinkError>>>>,
    missing: AtomicUsize,
    bytes: i64,
    queue_bytes: IntGauge,
    _room: OwnedSemaphorePermit,
}

impl Ticket {
    /// One record is in; with the last the request is answered.
    pub(super) fn record_done(&self) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.end(Ok(()));
        }
    }

    /// Answers the request, unless it has been.
    pub(super) fn end(&self, result: Result<(), SinkError>) {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(answer) = answer {
            // The client may have hung up.
            drop(answer.send(result));
        }
    }

    /// Failed already: its other records need not be put.
    pub(super) fn is_over(&self) -> bool {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queue_bytes.sub(self.bytes);
    }
}
