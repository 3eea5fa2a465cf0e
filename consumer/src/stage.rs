//! The traits a job implements. Everything else in this crate exists to call them exactly as promised here.
//!
//! * [`Stage`]: state per shard, committed together with the checkpoint. The simplest useful job is one stage.
//! * [`Mapper`]: turns batches of an input shard into parts for lanes, as a pure function.
//! * [`Reducer`]: owns lanes; sees each part once, in order, and is told when event time has passed.
//!
//! An error from any of them stops the shard; it is tried again from the last commit. Nothing is skipped: bad bytes
//! are for the stage to count and pass.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::commit::{PageName, Snapshot};
use crate::exchange::{LaneId, Loss, Watermarks};
use crate::log::{Entry, Record, StreamId};
use crate::shard::{HashRange, ShardId};

/// A stage cannot go on; the shard stops and is tried again from its last commit.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct StageError {
    context: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StageError {
    /// An error in words.
    pub fn new(context: impl Into<String>) -> Self {
        Self { context: context.into(), source: None }
    }

    /// An error with its cause.
    pub fn with(context: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { context: context.into(), source: Some(source.into()) }
    }
}

/// Which shard a stage runs for.
#[derive(Debug, Clone)]
pub struct ShardContext {
    /// The stream.
    pub stream: StreamId,
    /// The shard.
    pub shard: ShardId,
    /// Its hash range.
    pub range: HashRange,
}

/// A keyed part of a stage's state: its key and its bytes.
///
/// Keys are global to the stream, not to the shard. A [`Stage`] saves under its shard's id ([`ShardContext::shard`]) or
/// below it, `SHARD/NAME`, where NAME is anything but `pages` (the engine's own); any other key is refused and stops
/// the shard, because two shards that save under one key would overwrite each other's committed state.
pub type StatePart = (String, Bytes);

/// State that is committed together with the checkpoint of one shard.
///
/// What `save` returns is stored in the state table, part by part: a part is given whole and stored as a delta on its
/// last commit when that is smaller; the engine keeps the last bytes of every part in memory for this, so a state costs
/// its size once more. The shard's lease row names the parts, next to the checkpoint ([`crate::commit`] has the
/// format).
///
/// The engine calls `restore` once, then `process` for every record in order, and from time to time `outputs`, `save`
/// and, after the commit went through, `committed`. After a crash everything since the last commit happens again.
pub trait Stage: Send + 'static {
    /// Takes over committed parts: this shard's own, or those of its parents after a reshard, or none.
    ///
    /// # Errors
    /// The parts cannot be understood.
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError>;

    /// Takes one record.
    ///
    /// # Errors
    /// The shard stops and is tried again from the last commit.
    fn process(&mut self, record: &Record) -> Result<(), StageError>;

    /// The parts that changed since the last call, each whole, each under a key of this shard ([`StatePart`]).
    ///
    /// # Errors
    /// The shard stops.
    fn save(&mut self) -> Result<Vec<StatePart>, StageError>;

    /// Pages of parts that are new or changed since the last call (`None`: dropped), asked for just before `save` and
    /// committed with what that returns. For what is large, changes rarely and is not always needed.
    ///
    /// # Errors
    /// The shard stops.
    fn pages(&mut self) -> Result<Vec<PageChange>, StageError> {
        Ok(Vec::new())
    }

    /// Committed pages that are needed before [`Stage::proceed`], as (part, name); asked for after every record.
    fn wanted(&mut self) -> Vec<(String, PageName)> {
        Vec::new()
    }

    /// A page that was wanted, as committed last; `None`: there is none.
    ///
    /// # Errors
    /// The bytes cannot be understood.
    fn page(&mut self, part: &str, name: &PageName, page: Option<Bytes>) -> Result<(), StageError> {
        let _ = (part, name, page);
        Ok(())
    }

    /// Called after every `process`, once what was `wanted` is delivered: the rest of the record's work.
    ///
    /// # Errors
    /// As for `process`.
    fn proceed(&mut self) -> Result<(), StageError> {
        Ok(())
    }

    /// Whether a part of a parent shard is wanted by `restore`. A part that moved to another child may no longer be
    /// readable, so it must not be asked for.
    fn restores(&self, key: &str) -> bool {
        let _ = key;
        true
    }

    /// Keys of parts that live on without being saved again. Parts under other keys are dropped at the next commit
    /// unless it saves them. After a reshard a parent's parts are kept by every child that says so here, each of which
    /// then restores them: what is to count once belongs to one child, or stays with the parent.
    fn keeps(&self, key: &str) -> bool {
        let _ = key;
        true
    }

    /// Records to put into the output stream before the next commit, in waves: one wave is put only when the one
    /// before is acknowledged. They are put again after a crash, so they must be idempotent by content.
    fn outputs(&mut self) -> Vec<Vec<Entry>> {
        Vec::new()
    }

    /// Called after every page of records, and every 50 ms while none comes; never inside a page, nor while a commit, a
    /// wave of outputs or a page of state is under way.
    ///
    /// # Errors
    /// As for `process`.
    fn idle(&mut self) -> Result<(), StageError> {
        Ok(())
    }

    /// Records of the shard were lost before they were read (they expired), or its state was discarded by policy.
    /// Told before the first record that follows, or before the first record at all.
    fn lost(&mut self, loss: ShardLoss) {
        let _ = loss;
    }

    /// Event time by feed kind that is processed for good with what `save` returned: nothing will be said about it any
    /// more. Stands on the lease row, where the leader sees who falls behind ([`crate::skip`]). None: it has no such
    /// time.
    fn reached(&self) -> Option<Watermarks> {
        None
    }

    /// Whether a commit should not wait for its interval.
    fn urgent(&self) -> bool {
        false
    }

    /// The commit of what `save` returned went through.
    fn committed(&mut self) {}

    /// Whether a finite input has been consumed to its end and nothing is left to do.
    fn finished(&self) -> bool {
        false
    }
}

/// A change of one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageChange {
    /// Key of the part it belongs to.
    pub part: String,
    /// Its name.
    pub name: PageName,
    /// The new bytes; `None`: the page is dropped.
    pub bytes: Option<Bytes>,
}

impl fmt::Debug for dyn Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stage")
    }
}

/// What happened to a shard that its stage must know to judge what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardLoss {
    /// Records expired before they were read: reading goes on at the oldest that is left.
    Trimmed,
    /// The committed state was discarded, by setting or by an operator; the stage starts empty at the checkpoint.
    Discarded,
    /// An operator accepts whatever is missing among the records that arrived up to then (epoch milliseconds).
    Accepted {
        /// The moment, by the operator's clock.
        until_ms: i64,
    },
}

/// A batch of one input shard.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The shard.
    pub shard: &'a ShardContext,
    /// The records in order; possibly none.
    pub records: &'a [Record],
    /// Records that the cut counted and the stream no longer has (only when a batch is recomputed).
    pub expired: u64,
}

/// What a batch becomes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// Per lane the parts of its payload, each below 900 KB. A lane without parts gets a heartbeat. A part for a lane
    /// that the job has not, or one that makes no record ([`MAX_RECORD_BYTES`](crate::log::MAX_RECORD_BYTES) with its
    /// envelope), stops the shard before the batch is cut.
    pub parts: BTreeMap<LaneId, Vec<Bytes>>,
    /// For each feed kind whether the batch held records of it.
    pub kinds: [bool; 4],
}

/// Turns batches into parts for lanes: a pure function of (records, state, snapshot).
///
/// No clock, no chance, no iteration in hash order: the same arguments must give the same bytes in any process.
pub trait Mapper: Send + Sync + 'static {
    /// Small state per source: watermarks, de-duplication.
    type State: Clone + Default + Send + Sync;
    /// The decoded snapshot.
    type Prepared: Send + Sync;

    /// Version of the function's meaning: a batch cut by another version is not recomputed.
    fn semantics(&self) -> u32;

    /// Decodes a snapshot once.
    ///
    /// # Errors
    /// The snapshot cannot be understood.
    fn prepare(&self, snapshot: &Snapshot) -> Result<Self::Prepared, StageError>;

    /// Maps a batch and moves the state on.
    ///
    /// # Errors
    /// The shard stops; undecodable records are not errors but counted.
    fn map(&self, state: &mut Self::State, batch: &Batch<'_>, snapshot: &Self::Prepared) -> Result<Mapped, StageError>;

    /// The source's watermarks by its state.
    fn watermarks(&self, state: &Self::State) -> Watermarks;

    /// Raises a watermark: by a floor after a return, or to the end of time at the end of a finite input.
    fn raise(&self, state: &mut Self::State, to: &Watermarks);

    /// A child's first state from its parents' last.
    fn inherit(&self, parents: Vec<Self::State>) -> Self::State;

    /// The stored form.
    ///
    /// # Errors
    /// The state cannot be encoded.
    fn save(&self, state: &Self::State) -> Result<Vec<u8>, StageError>;

    /// Reads the stored form.
    ///
    /// # Errors
    /// The bytes are not a state.
    fn load(&self, bytes: &Bytes) -> Result<Self::State, StageError>;
}

/// Owns the keyed state of lanes.
pub trait Reducer: Send + 'static {
    /// Takes over a lane's committed state; `None`: the lane is new.
    ///
    /// # Errors
    /// The bytes are not a state.
    fn restore(&mut self, lane: LaneId, state: Option<&Bytes>) -> Result<(), StageError>;

    /// Applies one part's payload to a lane, exactly once.
    ///
    /// # Errors
    /// The shard stops; an undecodable payload is not an error but counted.
    fn apply(&mut self, lane: LaneId, payload: &Bytes) -> Result<(), StageError>;

    /// Event time has moved: everything that ends at or before the watermarks may be judged. Returns the output
    /// records of the lane, in order; the same state and watermarks must give the same bytes.
    ///
    /// # Errors
    /// The shard stops.
    fn advance(&mut self, lane: LaneId, watermarks: &Watermarks) -> Result<Vec<Bytes>, StageError>;

    /// Something of the lane is lost and the loss is accepted: its open windows are incomplete. Called before what
    /// follows the loss is applied; it happens again after a crash, as `apply` does.
    fn incomplete(&mut self, lane: LaneId, why: &Loss) {
        let _ = (lane, why);
    }

    /// The lane's stored form.
    ///
    /// # Errors
    /// The state cannot be encoded.
    fn save(&mut self, lane: LaneId) -> Result<Vec<u8>, StageError>;

    /// Pages of the lane that are new or changed since the last save of the lane (`None`: dropped); asked for
    /// before every commit, which then saves the lane too. A page is never changed in place: readers of the committed
    /// state see its version before until the commit.
    ///
    /// # Errors
    /// A page cannot be encoded.
    fn pages(&mut self, lane: LaneId) -> Result<Vec<(PageName, Option<Bytes>)>, StageError> {
        let _ = lane;
        Ok(Vec::new())
    }

    /// Pages the lane needs before `advance` with these watermarks and does not hold. What `pages` returned can be had
    /// from the next commit on; until then the reducer has to hold it.
    fn wanted(&self, lane: LaneId, watermarks: &Watermarks) -> Vec<PageName> {
        let _ = (lane, watermarks);
        Vec::new()
    }

    /// A wanted page, as committed last; `None`: the lane has no such page. A page that should be there and is not
    /// never comes here: it stops the shard.
    ///
    /// # Errors
    /// The bytes cannot be understood.
    fn page(&mut self, lane: LaneId, name: &PageName, page: Option<Bytes>) -> Result<(), StageError> {
        let _ = (lane, name, page);
        Ok(())
    }
}
