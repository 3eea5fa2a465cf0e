//! Leases: one row per shard, with the items, types, sentinels and counter rules of KCL 3.x, and our own attributes.
//!
//! The row is the only commit point of the engine. Expiry is judged by others watching its counter stand still, never by
//! comparing clocks. Who writes what (c: the counter as the writer knows it):
//!
//! | who | condition | writes |
//! |---|---|---|
//! | leader: new shard | no row | the row, counter 0 |
//! | leader: assign | owner and `checkpointOwner` as seen, counter c | owner, c + 1, switches + 1 when another owned it, no `checkpointOwner` |
//! | leader: begin a hand-over | owner as seen, no `checkpointOwner` | owner := next, `checkpointOwner` := old; not the counter |
//! | owner: acquire, renew, commit | counter c, and owner = me without `checkpointOwner`, or `checkpointOwner` = me | c + 1 and its attributes; a commit sets switches to 0 |
//! | owner: give away | as a commit | owner := next, c + 1, switches + 1, no `checkpointOwner` |
//! | leader: source status | the status as seen | status and floors only; not the counter |
//! | leader: clean-up | checkpoint SHARD_END, counter c | deletes the row |
//!
//! An owner writes through [`HeldLease`] alone, one write at a time, so that a zombie's write is refused and its own
//! lost answers are recognised. A worker runs a row when it is the owner and there is no `checkpointOwner`.

pub mod attribute;
mod evict;
mod held;
mod row;

pub use evict::{EvictError, Evicted, evict};
pub use held::{HeldLease, LeasePlace};
pub use row::{Checkpoint, LeaseRow, RowError, new_row, stream_of};

use std::fmt;
use std::time::Duration;

use crate::table::TableError;

/// How often a lease is renewed and when it is given up.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTimes {
    /// Pause between renewals.
    pub renewal: Duration,
    /// A lease whose counter stands still this long is expired.
    pub failover: Duration,
}

/// Why a write to a held lease failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another worker owns the lease now, or it could not be renewed in time.
    #[error("lease lost")]
    Lost,
    /// The caller's own extra condition did not hold; the lease is still ours. The row as it stands is taken over.
    #[error("row refused the write by its own condition")]
    Refused,
    /// The table refused the request for good.
    #[error(transparent)]
    Table(TableError),
    /// The row stands there but cannot be read.
    #[error(transparent)]
    Row(#[from] RowError),
}

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
