//! One shard: its log, its throughput limits and how it ended, behind one lock.
//!
//! Invariant: a record's position, its arrival time and its appearance to readers are decided in one step under that
//! lock, so a reader at the tip can never step past a position that appears later. A closed shard takes no record.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use tokio::sync::watch;

use crate::{
    config::{EmulatorConfig, Limits, millis, now_ms},
    ids::{HashRange, Position, SequenceNumber, ShardIndex},
    storage::{Batch, LogSettings, NewRecord, ShardLog, StorageError},
    sync::lock,
    throttle::ShardThrottle,
};

/// How and when a shard was closed.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    pub(crate) at_ms: u64,
    /// The position behind the last record.
    pub(crate) ending: Position,
    pub(crate) children: Vec<ShardIndex>,
}

/// What never changes in the life of a shard.
#[derive(Debug, Clone)]
pub(crate) struct ShardSpec {
    pub(crate) index: ShardIndex,
    /// The shard it was split from or the first of two merged.
    pub(crate) parent: Option<ShardIndex>,
    /// The second of two merged.
    pub(crate) adjacent_parent: Option<ShardIndex>,
    pub(crate) range: HashRange,
    pub(crate) opened_ms: u64,
    pub(crate) start: Position,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) spec: ShardSpec,
    state: Mutex<ShardState>,
    /// Changes whenever a subscription has something new to look at.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
pub(crate) struct ShardState {
    pub(crate) log: ShardLog,
    pub(crate) closed: Option<Closed>,
    throttle: Option<ShardThrottle>,
}

/// Why a shard did not take a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The shard's write limit.
    Throttled,
    /// The disk refused; logged where it happened.
    Storage,
}

/// What one read of a shard found.
#[derive(Debug)]
pub(crate) struct ReadOutcome {
    pub(crate) batch: Batch,
    /// Age of the next unread record in ms, at least 1; 0 at the tip.
    pub(crate) behind_ms: u64,
    /// The children, once a closed shard is read to its end.
    pub(crate) ended: Option<Vec<ShardIndex>>,
}

impl Shard {
    /// Opens a shard's log at `dir`.
    pub(crate) fn open(
        spec: ShardSpec,
        closed: Option<Closed>,
        dir: Option<PathBuf>,
        config: &EmulatorConfig,
    ) -> Result<Arc<Self>, StorageError> {
        let settings = LogSettings {
            dir,
            segment_bytes: config.segment_bytes.min(config.max_stream_bytes / 4).max(4096),
            segment_age_ms: (millis(config.retention) / 8).clamp(1000, 24 * 3_600_000),
        };
        let mut log = ShardLog::open(settings, spec.start)?;
        if let Some(closed) = &closed {
            log.advance_to(closed.ending);
            log.seal();
        }
        let throttle = (config.limits == Limits::Aws).then(|| ShardThrottle::new(Instant::now()));
        let state = Mutex::new(ShardState { log, closed, throttle });
        Ok(Arc::new(Self { spec, state, changed: watch::Sender::new(()) }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ShardState> {
        lock(&self.state)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.lock().closed.is_none()
    }

    /// The sequence number of a position of this shard.
    pub(crate) fn sequence(&self, position: Position) -> SequenceNumber {
        SequenceNumber { position, shard: self.spec.index }
    }

    /// Appends the records that the limits allow; one answer per record, in order.
    pub(crate) fn append(&self, records: &[NewRecord<'_>]) -> Vec<Result<SequenceNumber, Refusal>> {
        let mut state = self.lock();
        let now = Instant::now();
        let mut answers = Vec::with_capacity(records.len());
        let mut accepted = Vec::with_capacity(records.len());
        for record in records {
            let bytes = record.partition_key.len() + record.data.len();
            if state.throttle.as_mut().is_none_or(|t| t.write(now, bytes)) {
                answers.push(Ok(self.sequence(Position(accepted.len() as u64))));
                accepted.push(*record);
            } else {
                answers.push(Err(Refusal::Throttled));
            }
        }
        if accepted.is_empty() {
            return answers;
        }
        match state.log.append(now_ms(), &accepted) {
            Ok(first) => {
                for answer in answers.iter_mut().flatten() {
                    answer.position = first.plus(answer.position.0);
                }
            }
            Err(error) => {
                tracing::error!(shard = %self.spec.index, %error, source = ?std::error::Error::source(&error), "cannot store records");
                for answer in &mut answers {
                    if answer.is_ok() {
                        *answer = Err(Refusal::Storage);
                    }
                }
            }
        }
        drop(state);
        self.changed.send_replace(());
        answers
    }

    /// Reads from `from`, or from the oldest record not older than `retention_ms`.
    pub(crate) fn read(
        &self,
        from: Position,
        records: usize,
        bytes: u64,
        retention_ms: u64,
    ) -> Result<ReadOutcome, StorageError> {
        let state = self.lock();
        let horizon = state.horizon(retention_ms);
        let batch = state.log.read(from.max(horizon), records, bytes)?;
        let behind_ms = state.log.arrival_ms(batch.next).map_or(0, |at| now_ms().saturating_sub(at).max(1));
        let at_end = state.log.first_from(batch.next) >= state.log.next();
        let ended = state.closed.as_ref().filter(|_| at_end).map(|c| c.children.clone());
        Ok(ReadOutcome { batch, behind_ms, ended })
    }

    /// Whether the read limits allow a `GetRecords` call now.
    pub(crate) fn may_read(&self) -> bool {
        self.lock().throttle.as_mut().is_none_or(|t| t.read(Instant::now()))
    }

    /// Counts what a `GetRecords` call gave out against the read limit.
    pub(crate) fn count_read(&self, bytes: u64) {
        if let Some(throttle) = &mut self.lock().throttle {
            throttle.count_read(bytes);
        }
    }

    /// Whether the limits allow a `GetShardIterator` call now.
    pub(crate) fn may_give_iterator(&self) -> bool {
        self.lock().throttle.as_mut().is_none_or(|t| t.iterator(Instant::now()))
    }

    /// Ends the shard; it takes no record from here on. Returns the ending position.
    pub(crate) fn close(&self, at_ms: u64, children: Vec<ShardIndex>) -> Position {
        let mut state = self.lock();
        let ending = state.log.next();
        state.closed = Some(Closed { at_ms, ending, children });
        state.log.seal();
        drop(state);
        self.changed.send_replace(());
        ending
    }

    /// Takes a closing back that could not be recorded.
    pub(crate) fn reopen(&self) {
        self.lock().closed = None;
    }

    /// Wakes subscriptions, for instance because the stream is gone.
    pub(crate) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// A receiver that sees every change from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl ShardState {
    /// The oldest position that may still be read.
    pub(crate) fn horizon(&self, retention_ms: u64) -> Position {
        self.log.first_at(now_ms().saturating_sub(retention_ms))
    }
}
