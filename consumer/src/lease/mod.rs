//! Leases: one row per shard, with the items, types, sentinels and counter rules of KCL 3.x, and our own attributes.
//!
//! The row is the only commit point of the engine. Expiry is judged by others watching its counter stand still, never
//! by comparing clocks. Who writes what (c: the counter as the writer knows it; owners: owner and `checkpointOwner`;
//! mine: owner = me without `checkpointOwner`, or `checkpointOwner` = me):
//!
//! | who | condition | writes |
//! |---|---|---|
//! | leader: new shard | no row | the row, counter 0 |
//! | leader: assign | owners as seen, counter c | owner, c + 1, switches + 1 from another, no `checkpointOwner` |
//! | leader: begin a hand-over | owners as seen | owner := next, `checkpointOwner` := old; not the counter |
//! | owner: acquire, renew, commit | mine, counter c | c + 1 and its attributes; a commit sets switches to 0 |
//! | owner: give away | as a commit | owner := next, c + 1, switches + 1, no `checkpointOwner` |
//! | leader: source out | data as seen; if idle, at the tip | status; not the counter |
//! | leader: source back | it asks to come back; data as seen | status, floor; not the counter |
//! | leader: clean-up | SHARD_END, counter c | deletes the row |
//! | leader: row put late | counter c, no owner, no state | deletes the row |
//! | next owner: end a hand-over that nobody drives | as seen, counter c | c + 1, switches + 1, no `checkpointOwner` |
//! | leaving worker: pass on what it does not run | owner = me, counter c | as give away |
//! | operator: evict | owners as seen, counter c | c + 1, no owner, or no `checkpointOwner` |
//! | operator: resolve | decision as seen | `fs_resolve`; not the counter |
//!
//! An owner writes through [`HeldLease`] alone, one write at a time, so that a zombie's write is refused and its own
//! lost answers are recognised; every write that changes who may write raises the counter, but for the beginning of a
//! hand-over, of which the old owner is told by its next refusal. A worker runs a row when it is the owner and there is
//! no `checkpointOwner`.

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
