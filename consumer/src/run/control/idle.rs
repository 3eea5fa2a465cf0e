//! Who is put out of the source set: sources idle at their tip, and stuck ones.
//!
//! Judged by watching rows with a monotonic clock. What is written is conditional on the epoch and the data the row
//! showed, and on its END not being cut, so an owner that cut records meanwhile stays in. A fleet that falls silent is
//! put out in one pass, many writes at a time: one after the other they would take the leader longer than its lock
//! lasts. Read next: `back`, the way in again.

use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;

use super::{SourceControl, all, as_seen, consumed, has_ended, open};
use crate::exchange::Status;
use crate::lease::{LeaseRow, attribute};
use crate::planted::planted;
use crate::run::DriveError;
use crate::table::{Condition, TableError, Update, Value};

/// One kind of a source that is to be put out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    pub(super) kind: usize,
    /// Not for idleness: it made no cut for too long.
    pub(super) stuck: bool,
}

impl SourceControl {
    /// Puts out the sources that are idle at their tip, or stuck.
    pub(super) async fn judge(&mut self, rows: &[LeaseRow]) -> Result<(), DriveError> {
        let mut out = Vec::new();
        // Nobody begins a shard before its parents' end; they hold lanes back for it.
        let consumed = consumed(rows);
        let read = |row: &&LeaseRow| {
            row.is_begun() || row.parents.iter().filter_map(|parent| consumed.get(parent)).all(|consumed| *consumed)
        };
        for row in open(rows).filter(read) {
            out.extend(self.idle(row).into_iter().map(|kind| (row, kind)));
        }
        all(out.into_iter().map(|(row, out)| self.put_out(row, out).boxed()).collect()).await
    }

    /// How long this value of a row has stood still, as this leader has observed it.
    fn still(&mut self, row: &LeaseRow, what: &'static str, value: i64) -> Duration {
        let now = Instant::now();
        let key = (row.shard.as_str().to_owned(), what);
        let entry = self.still.entry(key).or_insert((value, now));
        if entry.0 != value {
            *entry = (value, now);
        }
        now.duration_since(entry.1)
    }

    /// The kinds of a source to be put out.
    fn idle(&mut self, row: &LeaseRow) -> Vec<Out> {
        // A finite input that ended holds nothing back and will cut no more.
        if has_ended(row) {
            return Vec::new();
        }
        let n = row.cut.as_ref().map_or(0, |cut| i64::try_from(cut.n).unwrap_or(i64::MAX));
        // By its heartbeats an owner says that it still reads at the tip and finds nothing. One whose reads fail, or
        // who is gone, says nothing: what lies unread in its shard must not be late when it is back.
        let unheard = self.still(row, "cut", n);
        let stuck = unheard >= self.plan.stuck_after;
        // Records that are cut and perhaps not emitted will still come: lanes must not go past them.
        let emitted = |kind: usize| {
            let data = i64::try_from(row.cut.as_ref().map_or(0, |cut| cut.n)).is_ok_and(|n| n == row.data[kind]);
            row.pending.is_none() || !data || row.cut.as_ref().is_none_or(|cut| cut.records == 0)
        };
        // A source that is back, or on its way, gets its time anew for every kind: else one kind could be put out again
        // while the batch waits for the floor of another, and so on for ever.
        let asking = row.status.contains(&Status::Return);
        let statuses = row.status.iter().fold(0, |sum, status| sum * 4 + i64::from(status.code()));
        const WHAT: [&str; 4] = ["data0", "data1", "data2", "data3"];
        let mut out = Vec::new();
        for (kind, what) in WHAT.into_iter().enumerate().take(self.plan.kinds.count()) {
            let seen = row.data[kind].saturating_mul(256).saturating_add(statuses);
            let silent = self.still(row, what, seen);
            let unheard = if planted("planted::put_a_waiting_source_out") { Duration::ZERO } else { unheard };
            let silent = silent.saturating_sub(unheard);
            let quiet = silent >= self.plan.idle_after && !asking;
            if row.status[kind] == Status::Live && emitted(kind) && (stuck || (quiet && row.at_tip)) {
                out.push(Out { kind, stuck });
            }
        }
        out
    }

    /// The condition holds the owner off: it cannot have cut records since the row was read, or come to its shard's
    /// end.
    pub(super) async fn put_out(&self, row: &LeaseRow, Out { kind, stuck }: Out) -> Result<(), DriveError> {
        let mut conditions = vec![Condition::Exists(attribute::KEY), as_seen(row, kind)];
        conditions.push(match (stuck, &row.pending) {
            (false, _) => Condition::Equals(attribute::TIP, Value::number(1)),
            // Who cuts again is not stuck.
            (true, None) => Condition::Absent(attribute::PENDING),
            (true, Some(pending)) => Condition::Equals(attribute::PENDING, Value::string(pending.to_string())),
        });
        let update = Update::new().set(attribute::STATUS[kind], Value::number(Status::Idle.code()));
        match self.table.update(&self.leases, row.shard.as_str(), update, Condition::All(conditions)).await {
            Ok(()) if stuck => {
                tracing::error!(shard = %row.shard, kind, "source is stuck: watermarks no longer wait for it");
            }
            Ok(()) => tracing::info!(shard = %row.shard, kind, "source is idle at its tip"),
            Err(TableError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }
}
