//! Rows for shards: every listed shard that is not consumed has one, parents before their children
//! ([`missing`](crate::run::missing)).
//!
//! Shards are listed every `shard_sync`, when a consumed shard has no child among the rows, and when the open rows
//! leave a hole in the hash range three passes in a row. A shard whose parents' rows are there and unread starts where
//! they start; otherwise a shard with a parent's row starts at its oldest record, whatever is set for the stream: so a
//! stream that is first met with closed shards is read from the set time on, all of it and nothing before, and a
//! reshard never skips a record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{FutureExt, StreamExt};

use super::{Leader, WRITES};
use crate::lease::{Checkpoint, LeaseRow, attribute, new_row};
use crate::log::LogError;
use crate::run::control::heirs;
use crate::run::missing::missing;
use crate::run::{DriveError, StartPosition};
use crate::shard::{Shard, ShardId};
use crate::table::{Condition, Item, TableError, TableName, Update, Value};

/// How long a pass waits for lists of shards: no lease should wait for them longer. A call of ListShards gives 1,000
/// shards, so that a stream of 20,000 has half a second for each. A list that was not whole by then is asked for anew at
/// the next pass.
const LISTING: Duration = Duration::from_secs(10);
/// A hole seen this often in a row is one; a reshard in progress may look like one for a moment.
const HOLE_PASSES: u32 = 3;

/// What the leader remembers of a stream's shards between passes.
#[derive(Debug, Default)]
pub(super) struct StreamSync {
    /// Passes in a row in which the open rows left a hole.
    hole_passes: u32,
    /// Consumed shards for which no child was listed when that was last looked up.
    childless: BTreeSet<ShardId>,
    /// The shards as last listed.
    pub(super) listed: BTreeSet<ShardId>,
    /// Whether every one of them that needs a row was seen to have one.
    pub(super) whole: bool,
    /// Rows of shards that were gone from the stream when they were last listed.
    vanished: BTreeSet<ShardId>,
}

impl Leader {
    /// The lists of shards that are `due` or look necessary, by stream; asked for side by side, so that a pass waits for all
    /// of them no longer than for one.
    pub(super) async fn lists(
        &mut self,
        tables: &[(String, Vec<LeaseRow>)],
        due: bool,
    ) -> BTreeMap<String, Result<Vec<Shard>, LogError>> {
        let mut wanted = Vec::new();
        for (stream, rows) in tables {
            // Looked at in any case: it counts passes.
            if self.looks_incomplete(stream, rows) || due {
                wanted.push(stream);
            }
        }
        let log = &self.parts.log;
        let asked = wanted.into_iter().map(|stream| async move {
            let list = tokio::time::timeout(LISTING, log.shards(stream)).await;
            let late = |_| Err(LogError::Unavailable(format!("shards not listed within {LISTING:?}")));
            (stream.clone(), list.unwrap_or_else(late))
        });
        futures::future::join_all(asked).await.into_iter().collect()
    }

    /// Whether the rows leave a hole, or a consumed shard has no child among them that was not looked for before.
    fn looks_incomplete(&mut self, stream: &str, rows: &[LeaseRow]) -> bool {
        let holes = holes(rows);
        self.parts.metrics.hash_holes(stream, holes.len());
        let known = self.syncs.entry(stream.to_owned()).or_default();
        known.hole_passes = if holes.is_empty() { 0 } else { known.hole_passes.saturating_add(1) };
        let hole = known.hole_passes >= HOLE_PASSES && known.hole_passes.is_multiple_of(HOLE_PASSES);
        if hole {
            let (start, end) = holes.first().copied().unwrap_or_default();
            tracing::error!(stream, holes = holes.len(), %start, %end, "open leases leave a hole in the hash range");
        }
        hole || !childless(rows).is_subset(&known.childless)
    }

    /// Makes rows for listed shards that have none, and removes those of consumed ones.
    pub(super) async fn sync(
        &mut self,
        stream: &str,
        rows: &mut Vec<LeaseRow>,
        list: Result<Vec<Shard>, LogError>,
    ) -> Result<(), DriveError> {
        let shards = list?;
        let mut known = self.syncs.remove(stream).unwrap_or_default();
        let synced = self.sync_with(&mut known, stream, &shards, rows).await;
        self.syncs.insert(stream.to_owned(), known);
        synced?;
        self.clean_up(stream, &shards, rows).await
    }

    async fn sync_with(
        &self,
        known: &mut StreamSync,
        stream: &str,
        shards: &[Shard],
        rows: &mut Vec<LeaseRow>,
    ) -> Result<(), DriveError> {
        known.listed = shards.iter().map(|shard| shard.id.clone()).collect();
        known.whole = false;
        self.make_rows(stream, shards, rows).await?;
        known.whole = true;
        known.childless = childless(rows);
        known.vanished = self.note_vanished(stream, shards, rows, &known.vanished);
        Ok(())
    }

    async fn make_rows(&self, stream: &str, shards: &[Shard], rows: &mut Vec<LeaseRow>) -> Result<(), DriveError> {
        let table = self.parts.config.tables.leases(stream);
        let mut known: BTreeSet<ShardId> = rows.iter().map(|row| row.shard.clone()).collect();
        if self.is_input(stream) {
            known.extend(self.unreadable.iter().cloned());
        }
        let mut missing = missing(shards, &known);
        while !missing.is_empty() {
            // A generation at a time: no row is made before its parents' rows are there.
            let young: BTreeSet<&ShardId> = missing.iter().map(|shard| &shard.id).collect();
            let with_parents = missing.iter().position(|shard| shard.parents.iter().any(|p| young.contains(p)));
            // Were a shard its own ancestor, it would be made all the same.
            let rest = missing.split_off(with_parents.unwrap_or(missing.len()).max(1));
            let items = missing.iter().map(|shard| self.first_row(stream, shard, rows));
            let puts: Vec<_> = items.map(|item| self.make_row(&table, item).boxed()).collect();
            let made: Vec<Result<Option<LeaseRow>, DriveError>> =
                futures::stream::iter(puts).buffered(WRITES).collect().await;
            for row in made {
                rows.extend(row?);
            }
            missing = rest;
        }
        rows.sort_by(|a, b| a.shard.cmp(&b.shard));
        Ok(())
    }

    /// Puts a first row unless there is one, and returns what stands there then.
    async fn make_row(&self, table: &TableName, item: Item) -> Result<Option<LeaseRow>, DriveError> {
        let item = match self.parts.table.put(table, item.clone(), Condition::Absent(attribute::KEY)).await {
            Ok(()) => item,
            Err(TableError::Conflict { current: Some(current) }) => *current,
            Err(TableError::Conflict { current: None }) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let row = LeaseRow::read(&item).ok().flatten();
        if let Some(row) = &row {
            tracing::debug!(%table, shard = %row.shard, "lease made");
        }
        Ok(row)
    }

    fn first_row(&self, stream: &str, shard: &Shard, rows: &[LeaseRow]) -> Item {
        let parents: Vec<&LeaseRow> = rows.iter().filter(|row| shard.parents.contains(&row.shard)).collect();
        let now = self.parts.clock.now_ms();
        let start = match self.parts.starts.get(stream) {
            _ if !parents.is_empty() => inherited_start(&parents),
            // Its parents came and went while nobody looked.
            _ if !shard.parents.is_empty() && rows.iter().any(is_read) => None,
            None | Some(StartPosition::TrimHorizon) => None,
            Some(StartPosition::Latest) => Some(now),
            Some(StartPosition::AtTimestamp(ms)) => Some(*ms),
        };
        let checkpoint = if start.is_some() { Checkpoint::AtTimestamp } else { Checkpoint::TrimHorizon };
        let mut item = new_row(shard, &checkpoint, now);
        if let Some(start) = start {
            item.set(attribute::START, Value::number(start));
        }
        settle_status(&mut item, &parents);
        item
    }

    /// A row of a shard that expired whole is still read by its owner, which finds it gone and ends it; here it is
    /// told.
    fn note_vanished(
        &self,
        stream: &str,
        shards: &[Shard],
        rows: &[LeaseRow],
        before: &BTreeSet<ShardId>,
    ) -> BTreeSet<ShardId> {
        let listed: BTreeSet<&ShardId> = shards.iter().map(|shard| &shard.id).collect();
        let gone = |row: &&LeaseRow| !listed.contains(&row.shard);
        let unread = rows.iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd).filter(gone);
        let vanished: BTreeSet<ShardId> = unread.map(|row| row.shard.clone()).collect();
        for shard in vanished.difference(before) {
            tracing::error!(stream, %shard, "shard is gone from the stream and was not read to its end");
        }
        vanished
    }
}

/// Whether anybody has read the shard.
fn is_read(row: &LeaseRow) -> bool {
    row.is_begun() || matches!(row.checkpoint, Checkpoint::At(_) | Checkpoint::ShardEnd)
}

/// Where a shard starts whose parents have rows: with them, if nobody has read them, else at its oldest record.
fn inherited_start(parents: &[&LeaseRow]) -> Option<i64> {
    let unread = parents.iter().all(|parent| parent.checkpoint == Checkpoint::AtTimestamp);
    if unread { parents.iter().map(|parent| parent.start_ms).min().flatten() } else { None }
}

/// What a child counts as is known now if its parents have ended; else it is settled when they have ([`heirs`]).
fn settle_status(item: &mut Item, parents: &[&LeaseRow]) {
    let ended = parents.iter().all(|parent| parent.checkpoint == Checkpoint::ShardEnd);
    if let Some(status) = heirs::inherited(parents.iter().copied()).filter(|_| ended) {
        heirs::with_status(Update::new().set(attribute::HEIR, Value::number(1)), status).apply(item);
    }
}

/// Consumed shards without a child among the rows: their children must be listed.
fn childless(rows: &[LeaseRow]) -> BTreeSet<ShardId> {
    let parents: BTreeSet<&ShardId> = rows.iter().flat_map(|row| &row.parents).collect();
    let ended = rows.iter().filter(|row| row.checkpoint == Checkpoint::ShardEnd && !parents.contains(&row.shard));
    ended.map(|row| row.shard.clone()).collect()
}

/// The parts of the hash range that no open row covers. Rows of consumed shards do not count: their children do.
fn holes(rows: &[LeaseRow]) -> Vec<(u128, u128)> {
    let mut open: Vec<(u128, u128)> = rows
        .iter()
        .filter(|row| row.checkpoint != Checkpoint::ShardEnd)
        .map(|row| (row.range.start, row.range.end))
        .collect();
    if rows.is_empty() {
        return Vec::new();
    }
    open.sort_unstable();
    let mut holes = Vec::new();
    // None: everything up to the end of the space is covered.
    let mut next = Some(0u128);
    for (start, end) in open {
        let Some(from) = next else { break };
        if start > from {
            holes.push((from, start - 1));
        }
        next = end.max(from.saturating_sub(1)).checked_add(1);
    }
    if let Some(from) = next {
        holes.push((from, u128::MAX));
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Status;
    use crate::shard::HashRange;

    /// A child of an idle parent that counted at once held lanes back at a watermark they had long passed. One that was
    /// put out for what its parent was before its end lost the backlog that its parent came back to.
    #[test]
    fn a_child_is_out_for_every_kind_in_which_a_parent_is_out_at_its_end_and_counts_where_all_count() {
        let status = [Status::Live, Status::Idle, Status::Return];
        let row = |id: &str, parents: &[&str]| {
            let parents = parents.iter().map(|id| ShardId::new(*id)).collect();
            new_row(
                &Shard { id: ShardId::new(id), parents, range: HashRange::ALL, closed: false },
                &Checkpoint::TrimHorizon,
                0,
            )
        };
        for (a, b) in status.iter().flat_map(|a| status.iter().map(move |b| (*a, *b))) {
            let parent = |id, status: Status, checkpoint| {
                let item = row(id, &[]).with(attribute::STATUS[1], Value::number(status.code()));
                let item = item.with(attribute::STATUS[0], Value::number(Status::Live.code()));
                LeaseRow::read(&item.with(attribute::CHECKPOINT, Value::string(checkpoint))).unwrap().unwrap()
            };
            let child = |checkpoint| {
                let mut child = row("2", &["0", "1"]);
                settle_status(&mut child, &[&parent("0", a, "SHARD_END"), &parent("1", b, checkpoint)]);
                LeaseRow::read(&child).unwrap().unwrap()
            };
            let wanted = if (a, b) == (Status::Live, Status::Live) { Status::Live } else { Status::Idle };
            let (settled, open) = (child("SHARD_END"), child("7"));
            assert_eq!((settled.heir, &settled.status[..2]), (true, &[Status::Live, wanted][..]), "{a:?} {b:?}");
            assert_eq!(
                (open.heir, open.status),
                (false, LeaseRow::read(&row("2", &[])).unwrap().unwrap().status),
                "{a:?} {b:?}"
            );
        }
        let mut first = row("0", &[]);
        settle_status(&mut first, &[]);
        assert!(!LeaseRow::read(&first).unwrap().unwrap().heir);
    }

    #[test]
    fn holes_are_what_open_rows_leave_uncovered() {
        let row = |id: &str, start: u128, end: u128, checkpoint: Checkpoint| {
            let range = HashRange { start, end };
            let shard = Shard { id: ShardId::new(id), parents: vec![], range, closed: false };
            LeaseRow::read(&new_row(&shard, &checkpoint, 0)).unwrap().unwrap()
        };
        let open = Checkpoint::TrimHorizon;
        let all = [row("0", 0, 9, open.clone()), row("1", 5, u128::MAX, open.clone())];
        assert_eq!(holes(&all), []);
        let two = [row("0", 3, 9, open.clone()), row("1", 12, 20, open), row("2", 0, u128::MAX, Checkpoint::ShardEnd)];
        assert_eq!(holes(&two), [(0, 2), (10, 11), (21, u128::MAX)]);
        assert_eq!(holes(&[]), []);
    }
}
