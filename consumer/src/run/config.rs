//! Settings of a worker: who it is, its tables, its times.
//!
//! Plain values; nothing here reads a file or the environment. What they must satisfy together (a renewal well below
//! failover, say) is for the caller to check: the defaults do.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::commit::STATE_KEY;
use crate::lease::{LeaseTimes, WorkerId, attribute};
use crate::table::TableName;

/// Times that decide how fast things happen and what they cost.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Renewal and expiry of leases.
    pub lease: LeaseTimes,
    /// How often a stage commits when nothing is urgent.
    pub commit: Duration,
    /// How long a mapper collects records before it cuts a batch; longer when the exchange stream cannot carry that
    /// ([`ShardCounts`](crate::exchange::ShardCounts)).
    pub batch: Duration,
    /// How often a mapper without records says that it is at the tip.
    pub heartbeat: Duration,
    /// Pause between two reads of a shard that has something to read; never below 200 ms (Kinesis allows 5 per second).
    pub poll: Duration,
    /// Longest pause between two reads of a shard where nothing comes.
    pub idle_poll: Duration,
    /// The leader's lock expires when its beat stands still this long.
    pub leader_lock: Duration,
    /// How often the leader beats, and others look at its beat.
    pub leader_beat: Duration,
    /// How often the leader assigns leases and looks after the source set.
    pub assign: Duration,
    /// How often shards are listed anew.
    pub shard_sync: Duration,
    /// How often a worker looks at its bell, which rings when a lease was assigned to it.
    pub discovery: Duration,
    /// How often a worker looks through the lease tables although its bell did not ring. Each look reads every row, so
    /// a fleet of more than four workers looks more rarely, in proportion; six times as rarely at most.
    pub look: Duration,
    /// A hand-over that the old owner has not finished by then is finished by the leader, without a last commit.
    pub hand_over: Duration,
    /// A source at its tip without records for this long stops holding watermarks back.
    pub idle_after: Duration,
    /// A source that made no cut for this long stops holding watermarks back, with an alarm; and nobody waits for the
    /// lanes of an exchange shard that committed nothing for this long while others did ([`crate::skip`]).
    pub stuck_after: Duration,
    /// How long rows of another program are watched at the start for a sign of life, at least the failover time. A KCL
    /// worker renews three times in its own failover time, so a live one is seen when that is at most three times this.
    pub foreign_watch: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            lease: LeaseTimes { renewal: seconds(3), failover: seconds(10) },
            commit: seconds(10),
            batch: seconds(5),
            heartbeat: seconds(5),
            poll: Duration::from_millis(250),
            idle_poll: seconds(1),
            leader_lock: seconds(6),
            leader_beat: seconds(2),
            assign: seconds(2),
            shard_sync: seconds(30),
            discovery: Duration::from_millis(500),
            look: seconds(10),
            hand_over: seconds(30),
            idle_after: seconds(30),
            stuck_after: seconds(600),
            foreign_watch: seconds(30),
        }
    }
}

/// Where the rows of a stream's shards start that nobody has read yet. It decides nothing about rows that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartPosition {
    /// At the oldest record kept.
    #[default]
    TrimHorizon,
    /// At the records that arrive after the row was made, by the leader's wall clock, which is written into the row
    /// before the first read: whoever reads first, and however late, starts at the same record.
    Latest,
    /// At the records that arrived at or after this time, epoch milliseconds.
    AtTimestamp(i64),
}

/// Names of a job's tables.
#[derive(Debug, Clone)]
pub struct Tables {
    prefix: String,
    state: String,
    leases: BTreeMap<String, String>,
}

impl Tables {
    /// `PREFIX-state`, and for each stream `PREFIX-leases-STREAM` unless it is named otherwise.
    pub fn new(prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        Self { state: format!("{prefix}-state"), prefix, leases: BTreeMap::new() }
    }

    /// With another name for the state table.
    #[must_use]
    pub fn with_state(mut self, table: impl Into<String>) -> Self {
        self.state = table.into();
        self
    }

    /// With another name for the lease table of a stream, such as that of a KCL application to go on from.
    #[must_use]
    pub fn with_leases(mut self, stream: impl Into<String>, table: impl Into<String>) -> Self {
        self.leases.insert(stream.into(), table.into());
        self
    }

    /// The lease table of a stream.
    pub fn leases(&self, stream: &str) -> TableName {
        let name = self.leases.get(stream).cloned().unwrap_or_else(|| format!("{}-leases-{stream}", self.prefix));
        TableName { name, key: attribute::KEY }
    }

    /// The state table, which also holds the leader's lock, worker beats, epochs, snapshots and control records.
    pub fn state(&self) -> TableName {
        TableName { name: self.state.clone(), key: STATE_KEY }
    }
}

/// What to do when committed state and checkpoint are not of one commit (another program moved the checkpoint), or
/// state is missing or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateMismatch {
    /// The shard stops, with an error that names both positions, and is tried again until someone decides.
    #[default]
    Fail,
    /// The shard goes on at the row's checkpoint without the state: an error in the log, a metric, a new epoch; windows
    /// of its lanes are marked incomplete.
    Discard,
}

/// What to do with a batch that was cut, perhaps emitted, and that comes out with other bytes when it is computed again
/// from the same records. A batch of which records expired meanwhile is not meant: it is always emitted, and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrcMismatch {
    /// The shard stops, with an error that names the cut and both checksums, and is tried again until someone decides.
    #[default]
    Fail,
    /// The batch is emitted as it is now, under its number: an error in the log, a metric. A lane that has the first
    /// emission whole keeps it; one that has a part of it keeps that part alone; the others take the second one. Each
    /// lane that took or kept less than one whole emission is told that it is incomplete. A record that the two
    /// computations sent to different lanes may count in both, or in none.
    Emit,
}

/// Settings of a worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// This process; never used by another.
    pub worker: WorkerId,
    /// Table names.
    pub tables: Tables,
    /// Times.
    pub timing: Timing,
    /// The caller knows that no other worker of the job lives (a lock on the data folder, say): leases and the
    /// leader's lock are taken over at once instead of being watched until they expire.
    pub alone: bool,
    /// What to do with state that does not belong to its checkpoint.
    pub state_mismatch: StateMismatch,
    /// What to do with a batch that does not come out as it was cut.
    pub crc_mismatch: CrcMismatch,
}

impl WorkerConfig {
    /// This worker on these tables, everything else by default.
    pub fn new(worker: WorkerId, tables: Tables) -> Self {
        let (timing, state_mismatch, crc_mismatch) = Default::default();
        Self { worker, tables, timing, alone: false, state_mismatch, crc_mismatch }
    }
}
