//! Carrying out a plan: what the leader sees of the rows, the writes, and the bells.
//!
//! Each write is conditional on the owners and, where it takes a lease from someone, on the counter as read, so an
//! owner that renewed meanwhile keeps its lease. A write that was refused is left to the next pass.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::assign::{LeaseView, Limits, Move, plan};
use super::{Leader, Member, WRITES, lease_name};
use crate::lease::{Checkpoint, LeaseRow, attribute};
use crate::run::beat::ring;
use crate::run::{DriveError, StartPosition};
use crate::shard::ShardId;
use crate::table::{Condition, TableError, Update, Value};

/// A lease moved by hand-over stays at least this long, so that a short burst moves nothing to and fro.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(60);

impl Leader {
    /// Assigns what nobody renews, evens out the rest, and tells the workers concerned.
    pub(super) async fn assign(
        &mut self,
        tables: &[(String, Vec<LeaseRow>)],
        members: &[Member],
    ) -> Result<(), DriveError> {
        let mut going = BTreeMap::new();
        let mut failed = Ok(());
        for (stream, rows) in tables {
            let elsewhere = count_elsewhere(tables, stream);
            let takers = Self::takers(members, stream, &elsewhere);
            let mut unread = unread(rows);
            if self.is_input(stream) {
                unread.extend(&self.unreadable);
            }
            let rows: Vec<&LeaseRow> = rows.iter().filter(|row| is_open(row, &unread)).collect();
            let views: Vec<LeaseView> = rows.iter().map(|row| self.view(stream, row, members, &mut going)).collect();
            let timing = &self.parts.config.timing;
            let limits = Limits { failover: timing.lease.failover, hand_over: timing.hand_over };
            let moves = plan(&views, &takers, limits);
            let writes: Vec<_> = moves.iter().map(|one| self.carry_out(stream, &rows, one).boxed()).collect();
            let done: Vec<Result<Option<String>, DriveError>> =
                futures::stream::iter(writes).buffered(WRITES).collect().await;
            for (one, told) in moves.iter().zip(done) {
                if let Move::HandOver { lease, .. } = one {
                    self.moved.insert(lease_name(stream, rows[*lease]), Instant::now());
                }
                match told {
                    Ok(told) => self.unrung.extend(told),
                    Err(e) => failed = failed.and(Err(e)),
                }
            }
        }
        self.hand_overs = going;
        self.moved.retain(|_, at| at.elapsed() < SETTLE);
        let names = |(stream, rows): &(String, Vec<LeaseRow>)| {
            rows.iter().map(|row| lease_name(stream, row)).collect::<Vec<_>>()
        };
        let known: BTreeSet<String> = tables.iter().flat_map(names).collect();
        self.leases.retain(|name| known.contains(name));
        self.rates.retain(|name| known.contains(name));
        self.ring_bells().await;
        failed
    }

    fn view(
        &mut self,
        stream: &str,
        row: &LeaseRow,
        members: &[Member],
        going: &mut BTreeMap<String, Instant>,
    ) -> LeaseView {
        let name = lease_name(stream, row);
        let holder = row.checkpoint_owner.as_ref().or(row.owner.as_ref());
        let handing = match (&row.checkpoint_owner, &row.owner) {
            (Some(old), Some(next)) => {
                let key = format!("{name} {old} {next}");
                let since = self.hand_overs.get(&key).copied().unwrap_or_else(Instant::now);
                going.insert(key, since);
                since.elapsed()
            }
            _ => std::time::Duration::ZERO,
        };
        LeaseView {
            shard: row.shard.as_str().to_owned(),
            owner: row.owner.clone(),
            leaving: row.checkpoint_owner.clone(),
            still: self.leases.age(&name, row.counter),
            handing,
            gone: self.parts.config.alone && holder.is_some_and(|holder| !members.iter().any(|m| m.seat.id == *holder)),
            bytes_per_second: self.rates.level(&name, row.bytes_per_second),
            settled: self.moved.contains_key(&name),
        }
    }

    /// Writes one move; returns whom to tell of it.
    async fn carry_out(&self, stream: &str, rows: &[&LeaseRow], one: &Move) -> Result<Option<String>, DriveError> {
        let (row, to, assigns) = match one {
            Move::Assign { lease, to } => (rows[*lease], to, true),
            Move::HandOver { lease, to } => (rows[*lease], to, false),
        };
        let as_seen = |name, owner: &Option<String>| match owner {
            None => Condition::Absent(name),
            Some(owner) => Condition::Equals(name, Value::string(owner)),
        };
        let mut conditions = vec![
            as_seen(attribute::OWNER, &row.owner),
            as_seen(attribute::CHECKPOINT_OWNER, &row.checkpoint_owner),
            Condition::Exists(attribute::KEY),
        ];
        let mut update =
            Update::new().set(attribute::OWNER, Value::string(to)).set(attribute::ASSIGNED, Value::string(to));
        let old = row.owner.as_deref();
        if assigns {
            // As KCL counts: the first owner is no switch, nor is the same one again.
            let switch = old.is_some_and(|old| old != to) || row.checkpoint_owner.is_some();
            conditions.push(Condition::Equals(attribute::COUNTER, Value::number(row.counter)));
            update = update
                .set(attribute::COUNTER, Value::number(row.counter.saturating_add(1)))
                .set(attribute::SWITCHES, Value::number(row.switches.saturating_add(i64::from(switch))))
                .remove(attribute::CHECKPOINT_OWNER);
            update = self.with_start(stream, row, update);
        } else {
            let Some(old) = old else { return Ok(None) };
            update = update.set(attribute::CHECKPOINT_OWNER, Value::string(old));
        }
        let table = self.parts.config.tables.leases(stream);
        match self.parts.table.update(&table, row.shard.as_str(), update, Condition::All(conditions)).await {
            Ok(()) => {}
            Err(TableError::Conflict { .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        if !assigns {
            tracing::info!(stream, shard = %row.shard, from = old, to, "lease to be handed over");
            return Ok(old.map(str::to_owned));
        }
        if row.owner.is_some() {
            self.parts.metrics.lease_expired(stream);
        }
        tracing::info!(stream, shard = %row.shard, from = old, to, "lease assigned");
        Ok(Some(to.clone()))
    }

    /// Gives a row that starts at a time the time, before anyone reads. Rows of our own have it from the beginning; a
    /// row of another program does not say when it was made. LATEST that nobody has read yet is now. AT_TIMESTAMP is
    /// the time that is set for the stream; without one nobody knows it, and everything is read rather than some lost.
    fn with_start(&self, stream: &str, row: &LeaseRow, update: Update) -> Update {
        if row.start_ms.is_some() {
            return update;
        }
        match (&row.checkpoint, self.parts.starts.get(stream)) {
            (Checkpoint::Latest, _) => update.set(attribute::START, Value::number(self.parts.clock.now_ms())),
            (Checkpoint::AtTimestamp, Some(StartPosition::AtTimestamp(ms))) => {
                update.set(attribute::START, Value::number(*ms))
            }
            (Checkpoint::AtTimestamp, _) => {
                tracing::warn!(stream, shard = %row.shard, "row starts at a time that only its maker knew: reading everything");
                update.set(attribute::CHECKPOINT, Value::string(Checkpoint::TrimHorizon.to_string()))
            }
            _ => update,
        }
    }

    /// Tells workers that there is news; who could not be told is told at the next pass.
    async fn ring_bells(&mut self) {
        let (state, table) = (self.state(), &*self.parts.table);
        let workers: Vec<String> = std::mem::take(&mut self.unrung).into_iter().collect();
        let rings: Vec<_> = workers.iter().map(|worker| ring(table, &state, worker).boxed()).collect();
        let rung: Vec<_> = futures::stream::iter(rings).buffered(WRITES).collect().await;
        for (worker, result) in workers.into_iter().zip(rung) {
            if let Err(e) = result {
                tracing::debug!(worker, error = %e, "worker not told of a lease");
                self.unrung.insert(worker);
            }
        }
    }
}

/// Shards that are not consumed.
fn unread(rows: &[LeaseRow]) -> BTreeSet<&ShardId> {
    rows.iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd).map(|row| &row.shard).collect()
}

/// Whether the shard can be read now: not consumed, and with state of its own, or every parent with a row is consumed. A
/// parent without a row is gone and blocks nothing; nor does one that somebody opened again, or whose row can no longer be
/// read, of a shard that has committed, or that goes on from another program's checkpoint. One that has not would begin
/// with what the parent has by now.
fn is_open(row: &LeaseRow, unread: &BTreeSet<&ShardId>) -> bool {
    let goes_on = row.manifest.is_some() || row.epoch.is_some() && matches!(row.checkpoint, Checkpoint::At(_));
    let waits = || !goes_on && row.parents.iter().any(|parent| unread.contains(parent));
    unread.contains(&row.shard) && !waits()
}

/// Leases that each worker has of the other streams.
fn count_elsewhere(tables: &[(String, Vec<LeaseRow>)], stream: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in tables.iter().filter(|(name, _)| name != stream).flat_map(|(_, rows)| rows) {
        if let Some(owner) = row.owner.as_ref().filter(|_| row.checkpoint != Checkpoint::ShardEnd) {
            *counts.entry(owner.clone()).or_default() += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Manifest;
    use crate::lease::new_row;
    use crate::shard::{HashRange, Shard};

    /// Somebody moved its parent's checkpoint back, or the parent's row could no longer be read: a shard in the middle
    /// of its work was assigned to nobody once its owner had died. One that was only claimed takes its parent's state: it
    /// was assigned, and began with half of it.
    #[test]
    fn a_shard_that_has_committed_is_assigned_whatever_its_parents_show() {
        let shard = Shard {
            id: ShardId::new("child"),
            parents: vec![ShardId::new("parent")],
            range: HashRange::ALL,
            closed: false,
        };
        let young = new_row(&shard, &Checkpoint::TrimHorizon, 0).with(attribute::EPOCH, Value::number(1));
        let state = Manifest::new("5".into(), Vec::new()).encode_bytes();
        let begun = young.clone().with(attribute::MANIFEST, Value::B(state));
        let resumed = young.clone().with(attribute::CHECKPOINT, Value::string("7"));
        let resumed = LeaseRow::read(&resumed).unwrap().unwrap();
        let (young, begun) = (LeaseRow::read(&young).unwrap().unwrap(), LeaseRow::read(&begun).unwrap().unwrap());
        let (parent, child) = (ShardId::new("parent"), ShardId::new("child"));
        let (before, after) = (BTreeSet::from([&parent, &child]), BTreeSet::from([&child]));
        assert_eq!([is_open(&young, &before), is_open(&young, &after)], [false, true]);
        assert!(is_open(&resumed, &before), "it inherits nothing");
        assert_eq!([is_open(&begun, &before), is_open(&begun, &BTreeSet::new())], [true, false]);
    }
}
