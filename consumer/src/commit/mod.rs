//! Committing state and checkpoint together by a pointer swap.
//!
//! # What is stored where
//!
//! Checkpoint, manifest and cut stand on the shard's lease row; all else in the state table:
//!
//! | what | where | written |
//! |---|---|---|
//! | checkpoint, manifest, cut | lease row | by one conditional update: the commit |
//! | a part (a lane, a shard): base and deltas | `PART/A`, `PART/B`, `PART/d00` … | before the commit that names it |
//! | directory: the parts, when the row has no room | `directory@SHARD/A`, `…/B` | before the commit that names it |
//! | pages of a part, immutable | `PART/page/NAME/VERSION` | before the commit whose index names it |
//! | index of a part's pages | a part of its own, `PART/pages` | as any part |
//! | snapshots | by the hash of their content | before a cut names them |
//! | highest epoch ever used, outlives rows | `PART/epoch` | before the first cut or chunk of a row |
//!
//! PART is a key of the whole stream: whose it is says [`StatePart`](crate::stage::StatePart).
//!
//! ```text
//! lease row ── checkpoint
//!          └── manifest ─┬─ parts (small) ──────────────┬─ base A|B ─ delta d00 ─ d01 ─ … ─ d46
//!                        └─ directory A|B ── parts ─────┘
//! ```
//!
//! Chunks are written first, to places nobody references yet; then one conditional update of the lease row moves
//! checkpoint, manifest and counter at once. Invariants: what a live manifest names is never written by the next
//! generation; a chunk put by an older owner is refused by its fence; a restore proves every byte by CRC.
//!
//! Read in this order: `manifest`, `chunk` (items and fences), `part` (the proof), `saver` (what a save writes),
//! `page`, `delete`; `pack` is compression; `cut`, `epoch` and `snapshot` stand for themselves.

mod chunk;
mod cut;
mod delete;
mod epoch;
mod manifest;
mod pack;
mod page;
mod part;
mod saver;
mod snapshot;
#[cfg(test)]
mod tests;

pub use chunk::{ChunkError, Chunks};
pub use cut::Cut;
pub use epoch::Epochs;
pub use manifest::{Directory, Fence, Manifest, Part, Slot};
pub use page::{Page, PageIndex, PageName, PageNameError, Pages, index_key, indexed_part};
pub use part::MAX_DELTAS;
pub use saver::{Form, Saver, Written};
pub use snapshot::{Snapshot, SnapshotError, Snapshots};

/// Name of the key attribute of the state table.
pub const STATE_KEY: &str = "k";
