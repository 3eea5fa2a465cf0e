//! Committing state and checkpoint together by a pointer swap.
//!
//! Chunks are written first, to keys nobody references yet; then one conditional update of the lease row moves
//! checkpoint, manifest and counter at once. Invariants: the slots of the live generation are never written by the next
//! one; a chunk put by an older owner is refused by its fence; a restore proves every byte by CRC.

mod chunk;
mod cut;
mod epoch;
mod manifest;
mod snapshot;

pub use chunk::{ChunkError, Chunks};
pub use cut::Cut;
pub use epoch::Epochs;
pub use manifest::{Fence, Manifest, Part};
pub use snapshot::{Snapshot, SnapshotError, Snapshots};

/// Name of the key attribute of the state table.
pub const STATE_KEY: &str = "k";
