//! Records at rest: frames in segments, segments in the log of a shard. See [`frame`] for the format.
//!
//! Nothing here locks or knows about shards, streams or HTTP: the shard that owns a log serialises its use.

mod frame;
mod log;
mod segment;

pub(crate) use frame::OVERHEAD;
pub(crate) use log::{Batch, LogSettings, NewRecord, ShardLog};
pub(crate) use segment::StorageError;
