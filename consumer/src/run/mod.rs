//! Running a job: the worker, the leader, and one driver task per held lease.
//!
//! Read in this order: `worker` (how a job is put together), `runner` and `shard` (its shards), `leader` (who decides)
//! and `missing` (which shards lack a row), `beat`, `roster` and `items` (who lives), `renewals` (on which thread),
//! `foreign` (whom not to run beside), `retention` (how long streams keep records), `role` and `task` (what a driver is
//! and is given), `fetch`, `found` (what it starts with), `stage_driver` (state and checkpoint), `map_driver`,
//! `map_claim`, `map_cut`, `map_check`, `map_run`, `map_commit` (batches and cuts), `lane_stage` (marks around a
//! reducer), `control` (source set, idleness). Not here: what is written ([`crate::commit`]) and sent
//! ([`crate::exchange`]).

mod beat;
mod config;
mod control;
mod fetch;
mod foreign;
mod found;
pub(crate) mod items;
mod lane_stage;
mod leader;
mod map_back;
mod map_check;
mod map_claim;
mod map_commit;
mod map_cut;
mod map_driver;
mod map_run;
mod missing;
mod reading;
mod renewals;
mod retention;
mod role;
mod roster;
mod runner;
mod shard;
mod stage_driver;
mod task;
mod worker;

pub use config::{CrcMismatch, StartPosition, StateMismatch, Tables, Timing, WorkerConfig};
pub(crate) use lane_stage::is_marks;
pub use lane_stage::{LaneStage, lane_of_key};
pub use reading::{Fetch, Reading};
pub use renewals::RenewalThread;
pub use role::Handle;
pub use worker::{Worker, WorkerError};

/// Ends the process without any clean-up when the named fail point is set to return: the tests' kill -9 at a place.
macro_rules! crash_point {
    ($name:expr) => {
        fail::fail_point!($name, |_| std::process::abort())
    };
}
pub(crate) use crash_point;

/// How a driver ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The worker leaves: committed and released.
    Left,
    /// The lease is gone.
    Lost,
    /// The shard is closed and consumed.
    ShardEnd,
    /// A finite input is consumed and everything it led to is done.
    Finished,
}

/// Why a driver stopped before its shard did; it is started again from the commit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriveError {
    #[error("lease: {0}")]
    Lease(#[from] crate::lease::LeaseError),
    #[error("state: {0}")]
    Chunk(#[from] crate::commit::ChunkError),
    #[error("table: {0}")]
    Table(#[from] crate::table::TableError),
    #[error("stream: {0}")]
    Log(#[from] crate::log::LogError),
    #[error("put: {0}")]
    Put(#[from] crate::log::PutError),
    #[error("snapshot: {0}")]
    Snapshot(#[from] crate::commit::SnapshotError),
    #[error("stage: {}", chain(.0))]
    Stage(#[from] crate::stage::StageError),
    #[error(
        "state of {stream} shard {shard} belongs to checkpoint {state}, the row stands at {row}: another program moved \
         it; `leases resolve state {resolve}` goes on without the state"
    )]
    StateMismatch {
        stream: String,
        shard: crate::shard::ShardId,
        state: String,
        row: String,
        /// Whose start it stops: the shard itself, or a child that begins with the shard's state.
        resolve: crate::shard::ShardId,
    },
    #[error(
        "shard {shard} of {stream} begins with what its parent {parent} commits at its end, and that stands at \
         {checkpoint} again: it waits until the parent is consumed"
    )]
    ParentOpen { stream: String, shard: crate::shard::ShardId, parent: crate::shard::ShardId, checkpoint: String },
    #[error(
        "batch {n} of {stream} shard {shard} was cut up to {cut}, the row's pending checkpoint is {row}: another program \
         wrote it; `leases resolve state {shard}` goes on without the state, behind the cut"
    )]
    ForeignPending { stream: String, shard: crate::shard::ShardId, n: u64, cut: String, row: String },
    #[error(
        "state of {stream} shard {shard} at checkpoint {checkpoint}: {source}; `leases resolve state {resolve}` goes on \
         without the state"
    )]
    StateUnreadable {
        stream: String,
        shard: crate::shard::ShardId,
        checkpoint: String,
        /// Whose start it stops: the shard itself, or a child that begins with the shard's state.
        resolve: crate::shard::ShardId,
        source: Box<crate::commit::ChunkError>,
    },
    #[error(
        "batch {n} of {stream} shard {shard} was cut for {cut} lanes, the job has {ours}: the number never changes in \
         a job's life, because every key would go to another lane; set it back to {cut}, or begin a job under a new name"
    )]
    Lanes { stream: String, shard: crate::shard::ShardId, n: u64, cut: u32, ours: u16 },
    #[error("batch {n} was cut by version {cut} of the stage, this is version {ours}: finish it with the old program")]
    Semantics { n: u64, cut: u32, ours: u32 },
    #[error("batch {n} took aggregates apart in a way (code {code}) this program does not know")]
    Aggregation { n: u64, code: u32 },
    #[error("no source set is committed yet, and lanes that lost records close nothing before they have one")]
    NoSourceSet,
    #[error("the committed source set cannot be read: {0}; a newer version of this program wrote it, or it is damaged")]
    SourceSet(crate::exchange::EnvelopeError),
    #[error(
        "the stage saved part {key:?} for shard {shard}: part keys are global to the stream, two shards would overwrite \
         each other's; expected {shard} or a key below it, {shard}/NAME, where NAME is not pages"
    )]
    ForeignPart { key: String, shard: crate::shard::ShardId },
    #[error("the stage panicked")]
    Panicked,
    #[error(
        "batch {n} of {stream} shard {shard} computed again has checksum {ours:08x}, its cut says {cut:08x}: the stage is \
         not a pure function of records, state and snapshot, or is another program; finish the batch with the program \
         that cut it, or let crc_mismatch = \"emit\" emit it as it is now"
    )]
    Diverged { stream: String, shard: crate::shard::ShardId, n: u64, cut: u32, ours: u32 },
}

impl DriveError {
    /// Whether it only says that the lease is gone or the worker stops.
    pub(crate) fn is_lost(&self) -> bool {
        use crate::commit::ChunkError;
        use crate::lease::LeaseError;
        use crate::log::PutError;
        matches!(
            self,
            Self::Lease(LeaseError::Lost)
                | Self::Chunk(ChunkError::Cancelled | ChunkError::Fenced(_))
                | Self::Put(PutError::Cancelled)
        )
    }
}

/// An error with its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Settings of a worker for tests: default times, tables named `test-…`.
#[cfg(test)]
pub(crate) fn test_config(worker: &str) -> WorkerConfig {
    WorkerConfig::new(crate::lease::WorkerId::new(worker), Tables::new("test"))
}
