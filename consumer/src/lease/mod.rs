//! Leases: one row per shard, with the items, types, sentinels and counter rules of KCL 3.x, and our own attributes.
//!
//! The row is the only commit point of the engine. Every write to it that an owner makes goes through [`HeldLease`],
//! which holds one mutex for renewals and commits and raises `leaseCounter` by one each time, so that a zombie's write
//! is refused. Expiry is judged by others watching the counter stand still, never by comparing clocks.

pub mod attribute;
mod evict;
mod held;
mod row;

pub use evict::{EvictError, Evicted, evict};
pub use held::{HeldLease, LeaseError, LeaseTimes};
pub use row::{Checkpoint, LeaseRow, RowError, new_row};

use std::fmt;

/// A worker's identity: unique per process start, so that a restarted process is another worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(String);

impl WorkerId {
    /// Takes an id that no other process uses or ever used.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
