//! The way back into the source set: floors.
//!
//! A source that asked to come back gets its floor once every lane has been told to wait for it: whatever a lane has
//! closed by then lies at or below the smallest watermark that a live source has committed. One look at the rows, after
//! the acknowledgement, serves all that ask: a source let back at the same time is live from the floor it was given,
//! which is no lower than anyone else's.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;

use super::{SourceControl, all, as_seen, has_ended, open, passed};
use crate::exchange::Status;
use crate::lease::{LeaseRow, attribute};
use crate::run::DriveError;
use crate::shard::ShardId;
use crate::table::{Condition, TableError, Update, Value};

impl SourceControl {
    /// Lets every source back that asks and that all lanes wait for.
    pub(super) async fn let_back(&mut self, rows: &[LeaseRow]) -> Result<(), DriveError> {
        let kinds = self.plan.kinds.count();
        let asking: Vec<(&ShardId, usize)> = open(rows)
            .flat_map(|row| (0..kinds).map(move |kind| (row, kind)))
            .filter(|(row, kind)| row.status[*kind] == Status::Return && self.told(row, *kind))
            .map(|(row, kind)| (&row.shard, kind))
            .collect();
        if asking.is_empty() {
            return Ok(());
        }
        let look = self.look().await?;
        // After the look, too: what another leader has committed may have told the lanes not to wait any more.
        if self.latest().await? != self.committed {
            return self.begin().await;
        }
        // After the look: a row that was deleted before it is noted.
        let passed = passed::read(&*self.table, &self.state).await?;
        let floors: Vec<Option<i64>> =
            (0..kinds).map(|kind| floor(&look.rows, kind, passed[kind], look.hidden)).collect();
        if asking.iter().any(|(_, kind)| floors[*kind].is_none()) {
            tracing::error!(stream = %self.stream, "sources that ask wait: nobody is live, and one whose row cannot be read, its cut neither, may have gone further");
        }
        let asking = asking.into_iter().filter(|(shard, _)| !look.unreadable.contains(*shard));
        let back = asking.filter_map(|(shard, kind)| Some((look.rows.get(shard)?, kind)));
        let back = back.filter(|(row, _)| !has_ended(row));
        let back = back.filter_map(|(row, kind)| Some(self.floor_for(row, kind, floors[kind]?).boxed()));
        all(back.collect()).await
    }

    /// Whether every lane was told that the source asks.
    fn told(&self, row: &LeaseRow, kind: usize) -> bool {
        let status = self.committed.as_ref().and_then(|control| control.sources.get(&self.source(row)));
        status.and_then(|status| status.get(kind)) == Some(&Status::Return)
    }

    /// One look at all rows. Of those that cannot be read it has what their cuts say, as sources of the status that lanes
    /// were told.
    async fn look(&self) -> Result<Look, DriveError> {
        let (mut read, mut damaged) = (Vec::new(), Vec::new());
        for item in self.table.scan(&self.leases).await? {
            match LeaseRow::read(&item) {
                Ok(row) => read.extend(row),
                Err(_) => damaged.push(LeaseRow::read_watermarks(&item)),
            }
        }
        let hidden = damaged.iter().any(Option::is_none);
        let damaged: Vec<LeaseRow> = damaged.into_iter().flatten().map(|row| self.as_told(row)).collect();
        let unreadable = damaged.iter().map(|row| row.shard.clone()).collect();
        let read = self.as_they_count(&read).into_owned();
        let rows = read.into_iter().chain(damaged).map(|row| (row.shard.clone(), row)).collect();
        Ok(Look { rows, unreadable, hidden })
    }

    /// The row with the status that lanes were told; out, when they were told nothing.
    fn as_told(&self, row: LeaseRow) -> LeaseRow {
        let told = self.committed.as_ref().and_then(|control| control.sources.get(&self.source(&row)));
        let of = |kind: usize| told.and_then(|told| told.get(kind)).copied().unwrap_or(Status::Idle);
        LeaseRow { status: std::array::from_fn(of), ..row }
    }

    /// Whoever asks cuts nothing until it is answered. One that was let back since the look, by another leader, and
    /// asks anew, asks of lanes that may have gone past this floor: it has asked once more, or cut data. So a write
    /// that lands late answers nobody.
    pub(super) async fn floor_for(&self, row: &LeaseRow, kind: usize, floor: i64) -> Result<(), DriveError> {
        let mut update = Update::new().set(attribute::STATUS[kind], Value::number(Status::Live.code()));
        if floor > i64::MIN {
            update = update.set(attribute::FLOOR[kind], Value::number(floor));
        }
        let asked = Condition::All(vec![
            Condition::Equals(attribute::STATUS[kind], Value::number(Status::Return.code())),
            match row.asked {
                0 => Condition::Absent(attribute::ASKED),
                seen => Condition::Equals(attribute::ASKED, Value::number(seen)),
            },
            as_seen(row, kind),
        ]);
        match self.table.update(&self.leases, row.shard.as_str(), update, asked).await {
            Ok(()) => tracing::info!(shard = %row.shard, kind, floor, "source is back"),
            Err(TableError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }
}

/// The rows as they count when a floor is made.
struct Look {
    rows: BTreeMap<ShardId, LeaseRow>,
    /// Those of which only the watermarks can be read.
    unreadable: BTreeSet<ShardId>,
    /// Whether there are some of which not even these can be read.
    hidden: bool,
}

/// Where sources of a kind come back that are not live now; `passed` is how far those went whose rows are gone. None when
/// that hangs on a row that cannot be read.
pub(super) fn floor(rows: &BTreeMap<ShardId, LeaseRow>, kind: usize, passed: Option<i64>, hidden: bool) -> Option<i64> {
    let waits = |row: &&LeaseRow| row.status[kind] == Status::Live && !has_ended(row);
    let live = rows.values().filter(waits).filter_map(|row| mark(rows, row, kind)).min();
    // With nobody live, the lanes have closed up to the last that was; which one it was is not known any more.
    let furthest = || rows.values().filter_map(|row| mark(rows, row, kind)).max().max(passed).unwrap_or(i64::MIN);
    live.or_else(|| (!hidden).then(furthest))
}

/// The watermark lanes have of a source: its last cut's, its floor, or, before its first cut, where the parents that
/// have ended stood (the slowest of them: until the others ended those held lanes back themselves). None when lanes
/// have heard nothing of it: what they have closed they closed without it.
fn mark(rows: &BTreeMap<ShardId, LeaseRow>, row: &LeaseRow, kind: usize) -> Option<i64> {
    let ended = |parent: &&LeaseRow| has_ended(parent);
    let cut = match &row.cut {
        Some(cut) => Some(cut.watermarks.get(kind).copied().unwrap_or(i64::MIN)),
        None => row.parents.iter().filter_map(|p| rows.get(p)).filter(ended).filter_map(|p| mark(rows, p, kind)).min(),
    };
    cut.max(row.floor[kind])
}
