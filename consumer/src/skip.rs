//! SKIP: nobody waits any longer for a lane that does not come on.
//!
//! A stage that merges what the lanes say, step by step, waits for every lane: one exchange shard that stands still
//! stops it whole. So the leader, after [`Timing::stuck_after`](crate::run::Timing), or an operator puts SKIP records
//! into that stage's stream, each valid from its place there: the lane counts as having spoken up to a moment of event
//! time, and what it says about that time later is for the stage to count and drop. How such a record looks is the
//! job's ([`SkipRecords`]). Invariants: a record is idempotent by (lane, kind, moment), and a later moment takes in the
//! earlier ones; nothing is given up beyond the place that every shard on the move has committed, so a record skips no
//! step that would have had to wait for another lane. Read next: `run::leader::skips` (when), [`crate::resolve::skip`]
//! (by hand).

use std::fmt;
use std::sync::Arc;

use crate::exchange::{LaneId, Lanes};
use crate::lease::{Checkpoint, LeaseRow};
use crate::log::Entry;
use crate::shard::ShardId;

/// Event time by feed kind, epoch milliseconds; none: nothing yet.
pub type Reached = [Option<i64>; 4];

/// A SKIP record of the job's making.
#[derive(Debug, Clone)]
pub struct SkipRecord {
    /// End of the last step it skips, event time, epoch milliseconds; at most the moment it was asked for.
    pub until_ms: i64,
    /// The record to put.
    pub entry: Entry,
}

/// Makes the record that skips a lane, for a feed kind, up to a moment (event time, epoch milliseconds); `None` when
/// the kind is not judged or no step ends by then. The same arguments must give the same bytes.
#[derive(Clone)]
pub struct SkipRecords(Arc<dyn Fn(LaneId, usize, i64) -> Option<SkipRecord> + Send + Sync>);

impl SkipRecords {
    /// By this function of (lane, kind, moment).
    pub fn new(record: impl Fn(LaneId, usize, i64) -> Option<SkipRecord> + Send + Sync + 'static) -> Self {
        Self(Arc::new(record))
    }

    /// The record for a lane.
    pub fn record(&self, lane: LaneId, kind: usize, until_ms: i64) -> Option<SkipRecord> {
        (self.0)(lane, kind, until_ms)
    }
}

impl fmt::Debug for SkipRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SkipRecords")
    }
}

/// An exchange shard with the lanes that wait for it, as the rows tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneShard {
    /// The shard.
    pub shard: ShardId,
    /// How far it is consumed.
    pub checkpoint: Checkpoint,
    /// Its lanes, at least one.
    pub lanes: Vec<LaneId>,
    /// Up to where its slowest lane has judged and said everything.
    pub reached: Reached,
}

impl LaneShard {
    /// The shards of an exchange that are not consumed. A lane is in one of them: in the parent as long as that is not
    /// consumed; in the child from then on, also while the child cannot start because its other parent stands still.
    pub fn of_rows(rows: &[LeaseRow], lanes: Lanes) -> Vec<Self> {
        let open = |row: &&LeaseRow| row.checkpoint != Checkpoint::ShardEnd;
        let mut shards = Vec::new();
        for row in rows.iter().filter(open) {
            let parents = || rows.iter().filter(|parent| row.parents.contains(&parent.shard));
            let still_there: Vec<LaneId> = parents().filter(open).flat_map(|p| lanes.within(p.range)).collect();
            let own = lanes.within(row.range).into_iter().filter(|lane| !still_there.contains(lane));
            // Before its first commit a child's lanes stand where they came from.
            let reached = match parents().filter(|p| !open(p)).map(|parent| parent.reached).reduce(least) {
                Some(inherited) if row.manifest.is_none() => inherited,
                _ => row.reached,
            };
            let (shard, checkpoint) = (row.shard.clone(), row.checkpoint.clone());
            shards.push(Self { shard, checkpoint, lanes: own.collect(), reached });
        }
        shards.retain(|shard| !shard.lanes.is_empty());
        shards
    }

    /// Whether the shard has not come to this moment of a kind.
    pub fn is_behind(&self, kind: usize, moment_ms: i64) -> bool {
        self.reached.get(kind).copied().flatten().is_none_or(|reached| reached < moment_ms)
    }
}

/// Up to where all of these have come: what a stage behind them could take if it waited for no other. None for a kind
/// in which one has said nothing yet or all have ended, and when there are none.
pub fn all_reached<'a>(shards: impl Iterator<Item = &'a LaneShard>) -> Reached {
    let reached = shards.map(|shard| shard.reached).reduce(least).unwrap_or_default();
    // The end of time names no step: what is left there ends with the lane itself.
    reached.map(|moment| moment.filter(|ms| *ms != i64::MAX))
}

fn least(a: Reached, b: Reached) -> Reached {
    std::array::from_fn(|kind| Some(a[kind]?.min(b[kind]?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::new_row;
    use crate::shard::{HashRange, Shard};

    fn row(id: &str, (start, end): (u128, u128), parents: &[&str], ended: bool, reached: Option<i64>) -> LeaseRow {
        let parents = parents.iter().map(|id| ShardId::new(*id)).collect();
        let shard = Shard { id: ShardId::new(id), parents, range: HashRange { start, end }, closed: false };
        let checkpoint = if ended { Checkpoint::ShardEnd } else { Checkpoint::TrimHorizon };
        let row = LeaseRow::read(&new_row(&shard, &checkpoint, 0)).unwrap().unwrap();
        LeaseRow { reached: [reached, None, None, None], ..row }
    }

    fn placed(rows: &[LeaseRow]) -> Vec<(String, Vec<u16>, Option<i64>)> {
        let shards = LaneShard::of_rows(rows, Lanes::new(4).unwrap()).into_iter();
        let placed = shards.map(|s| (s.shard.to_string(), s.lanes.iter().map(|l| l.index()).collect(), s.reached[0]));
        placed.collect()
    }

    /// Found by the simulation: a merge with a stuck shard took lanes along that were in no shard that is read.
    #[test]
    fn lanes_behind_a_merge_with_a_shard_that_stands_still_are_in_the_child_that_cannot_start() {
        let half = u128::MAX / 2;
        let rows = [
            row("0", (0, half), &[], true, Some(30)),
            row("1", (half + 1, u128::MAX), &[], false, Some(10)),
            row("2", (0, u128::MAX), &["0", "1"], false, None),
        ];
        let expected = [("1".to_owned(), vec![2, 3], Some(10)), ("2".to_owned(), vec![0, 1], Some(30))];
        assert_eq!(placed(&rows), expected);
    }

    #[test]
    fn lanes_stay_with_the_parent_until_it_is_consumed() {
        let half = u128::MAX / 2;
        let mut rows = [
            row("0", (0, u128::MAX), &[], false, Some(5)),
            row("1", (0, half), &["0"], false, None),
            row("2", (half + 1, u128::MAX), &["0"], false, None),
        ];
        assert_eq!(placed(&rows), [("0".to_owned(), vec![0, 1, 2, 3], Some(5))]);
        rows[0].checkpoint = Checkpoint::ShardEnd;
        let children = [("1".to_owned(), vec![0, 1], Some(5)), ("2".to_owned(), vec![2, 3], Some(5))];
        assert_eq!(placed(&rows), children);
    }

    fn shard(reached: Reached) -> LaneShard {
        LaneShard { shard: ShardId::new("0"), checkpoint: Checkpoint::TrimHorizon, lanes: Vec::new(), reached }
    }

    #[test]
    fn all_have_reached_what_the_slowest_has_and_nothing_when_one_is_silent_or_all_have_ended() {
        let shards = [
            shard([Some(9), None, Some(3), Some(i64::MAX)]),
            shard([Some(7), Some(4), Some(i64::MAX), Some(i64::MAX)]),
        ];
        assert_eq!(all_reached(shards.iter()), [Some(7), None, Some(3), None]);
        assert_eq!(all_reached([].iter()), [None; 4]);
    }

    #[test]
    fn a_shard_that_never_spoke_is_behind_every_moment() {
        assert!(shard([None; 4]).is_behind(0, i64::MIN));
        assert!(shard([Some(5), None, None, None]).is_behind(0, 6));
        assert!(!shard([Some(5), None, None, None]).is_behind(0, 5));
    }
}
