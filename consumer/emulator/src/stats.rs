//! What an emulator counts, so that nothing it refuses or drops is silent.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;

use crate::sync::lock;

/// Counters since the start of the emulator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Answers by operation (`none` where the request named no known one), then by exception name, `ok`, `injected`
    /// (refused by a fault rule) or `cut` (applied, also counted as `ok` or by name, and the answer dropped).
    pub answers: BTreeMap<String, BTreeMap<String, u64>>,
    /// Records accepted.
    pub records_in: u64,
    /// Records given out by `GetRecords` and `SubscribeToShard`.
    pub records_out: u64,
    /// Records of `PutRecords` that were refused one by one (throttled, injected or not stored).
    pub records_refused: u64,
    /// Records dropped because they were older than the retention.
    pub records_expired: u64,
    /// Records dropped because the stream reached `max_stream_bytes`, whether or not anybody had read them.
    pub records_dropped_by_size: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    answers: Mutex<BTreeMap<String, BTreeMap<String, u64>>>,
    pub(crate) records_in: Count,
    pub(crate) records_out: Count,
    pub(crate) records_refused: Count,
    pub(crate) records_expired: Count,
    pub(crate) records_dropped_by_size: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts an answer. `operation` comes from a closed set, so the map stays small.
    pub(crate) fn answer(&self, operation: &str, outcome: &str) {
        let mut answers = lock(&self.answers);
        if let Some(count) = answers.get_mut(operation).and_then(|o| o.get_mut(outcome)) {
            *count += 1;
        } else {
            answers.entry(operation.to_owned()).or_default().insert(outcome.to_owned(), 1);
        }
    }

    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            answers: lock(&self.answers).clone(),
            records_in: self.records_in.get(),
            records_out: self.records_out.get(),
            records_refused: self.records_refused.get(),
            records_expired: self.records_expired.get(),
            records_dropped_by_size: self.records_dropped_by_size.get(),
        }
    }
}
