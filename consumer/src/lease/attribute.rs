//! Attribute names of a lease row: KCL 3.x's, and our own behind the prefix `fs_`.
//!
//! KCL's updates name the attributes they change, so ours survive a Java writer, and its dashboards read ours. The
//! names are a stored format: none is renamed or given a second meaning.

/// Hash key: the shard id.
pub const KEY: &str = "leaseKey";
/// Worker that owns the lease; absent: nobody.
pub const OWNER: &str = "leaseOwner";
/// Raised by one on every write by an owner or the leader.
pub const COUNTER: &str = "leaseCounter";
/// Sequence number or sentinel up to which everything is in the committed state.
pub const CHECKPOINT: &str = "checkpoint";
/// Index inside a KPL aggregate, 0 for plain records.
pub const SUB_SEQUENCE: &str = "checkpointSubSequenceNumber";
/// End of the batch whose cut is committed and whose emission is not known to be complete.
pub const PENDING: &str = "pendingCheckpoint";
/// As `checkpointSubSequenceNumber`, for the pending checkpoint.
pub const PENDING_SUB_SEQUENCE: &str = "pendingCheckpointSubSequenceNumber";
/// Bytes that a KCL application prepared with its pending checkpoint. Never written here, and removed with what they
/// belong to.
pub const PENDING_STATE: &str = "pendingCheckpointState";
/// Times the owner changed since the last checkpoint.
pub const SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
/// Parent shards.
pub const PARENTS: &str = "parentShardId";
/// Child shards, written at shard end.
pub const CHILDREN: &str = "childShardIds";
/// First hash key of the shard, decimal.
pub const RANGE_START: &str = "startingHashKey";
/// Last hash key of the shard, decimal.
pub const RANGE_END: &str = "endingHashKey";
/// The old owner during a graceful hand-over.
pub const CHECKPOINT_OWNER: &str = "checkpointOwner";
/// Running mean of what the owner's stage was given, kilobytes per second, a decimal.
pub const THROUGHPUT: &str = "throughputKBps";
/// Stream of a row in KCL's multi-stream mode, whose tables are refused.
pub const STREAM_NAME: &str = "streamName";
/// Kind of row: `LEASE`.
pub const ENTITY: &str = "entityType";

/// Creation time of the row, epoch milliseconds.
pub const CREATED: &str = "fs_created";
/// Epoch of the source (input streams) or of the lanes (other streams), part of every fence.
pub const EPOCH: &str = "fs_epoch";
/// The manifest of the committed state.
pub const MANIFEST: &str = "fs_manifest";
/// The last cut.
pub const CUT: &str = "fs_cut";
/// 1 when the last cut stood at the tip of the shard, else 0.
pub const TIP: &str = "fs_tip";
/// Number of the last cut that held records of a kind, by kind.
pub const DATA: [&str; 4] = ["fs_data0", "fs_data1", "fs_data2", "fs_data3"];
/// Status of the source for a kind, by kind.
pub const STATUS: [&str; 4] = ["fs_status0", "fs_status1", "fs_status2", "fs_status3"];
/// 1: the parents of the row have ended, and the status was taken over from them. The status of a row without this that
/// nobody has claimed and that has parents means nothing.
pub const HEIR: &str = "fs_heir";
/// Floor under the watermark of a kind after a return, by kind, epoch milliseconds.
pub const FLOOR: [&str; 4] = ["fs_floor0", "fs_floor1", "fs_floor2", "fs_floor3"];
/// How often the source has asked to come back; a floor answers one of these times and no other.
pub const ASKED: &str = "fs_asked";
/// Event time that every lane of an exchange shard has judged and said, by kind, epoch milliseconds.
pub const REACHED: [&str; 4] = ["fs_reached0", "fs_reached1", "fs_reached2", "fs_reached3"];
/// An operator's decision about the shard: its number and what it says (see `crate::resolve`).
pub const RESOLVE: &str = "fs_resolve";
/// Number of the last decision that a commit rests on.
pub const RESOLVED: &str = "fs_resolved";
/// Where a row that starts at a time starts, epoch milliseconds; without it the row starts as KCL's would.
pub const START: &str = "fs_start";
/// When the shard was last read to its tip, as committed: the owner's wall clock, epoch milliseconds. Hours of
/// difference between two clocks are allowed for.
pub const SEEN: &str = "fs_seen";
/// Why the owner could not go on from its commit, for people; a commit, or a read up to the tip, takes it away.
pub const TROUBLE: &str = "fs_trouble";
/// The owner as this engine last wrote it: another owner was put there by another program.
pub const ASSIGNED: &str = "fs_owner";
