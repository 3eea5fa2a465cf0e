//! The simulated world, shared by the simulation and by the proof that its oracle can fail (`tests/planted`).
//!
//! `world` makes streams, tables and workers and keeps the books; `storm` does to them what can go wrong, `ambush`
//! where it hurts, `expiry`, `trim` and `retention` what retention does, `stuck` a shard that stands still, `waits`
//! sources that must be waited for; `port` (with `push` for subscriptions) is a worker's way to the services, where
//! calls fail; `audit` watches every row that is written; `job` is the small job that runs (its stages may panic:
//! `trips`); `oracle` judges at the end, knowing only what was put into the input stream, and `account` what of it must
//! be late. `seeds` runs many of them.

pub(crate) mod account;
pub(crate) mod ambush;
pub(crate) mod audit;
pub(crate) mod expiry;
pub(crate) mod job;
pub(crate) mod judge;
pub(crate) mod oracle;
pub(crate) mod port;
pub(crate) mod push;
pub(crate) mod retention;
pub(crate) mod seeds;
pub(crate) mod storm;
pub(crate) mod stuck;
pub(crate) mod trim;
pub(crate) mod trips;
pub(crate) mod waits;
pub(crate) mod world;

use std::sync::{Arc, Mutex, PoisonError};

/// What must never happen, noted where it is seen and read at the end of the run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Violations(Arc<Mutex<Vec<String>>>);

impl Violations {
    pub(crate) fn note(&self, what: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The first ones tell the story; a shard that stops says the same again and again.
        if all.len() < 5 && !all.contains(&what) {
            all.push(what);
        }
    }

    pub(crate) fn first(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }
}
