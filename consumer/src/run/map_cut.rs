//! Where a source's last cut ends, and whether its row still says so.
//!
//! The cut alone says what its batch holds. `pendingCheckpoint` tells KCL's programs the same, and tells us one thing
//! more: that the batch may not be emitted whole. Another program may prepare a checkpoint of its own there, or take
//! ours away by a checkpoint at the place where the row stands. Invariant: what is in the row and not in the cut is
//! never taken for the end of a batch; it is a mismatch, which [`super::found`] refuses or discards by policy.
//! Read next: [`super::map_run`].

use std::fmt;

use crate::commit::Cut;
use crate::lease::{Checkpoint, LeaseRow};
use crate::shard::SequenceNumber;

/// A place in a shard: behind this record, and behind this one of the records inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) checkpoint: Checkpoint,
    pub(super) sub_sequence: u64,
}

impl Place {
    /// Where the row's checkpoint stands.
    pub(super) fn of(row: &LeaseRow) -> Self {
        Self { checkpoint: row.checkpoint.clone(), sub_sequence: row.sub_sequence }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.checkpoint, self.sub_sequence) {
            (Checkpoint::At(_), sub @ 1..) => write!(f, "{}/{sub}", self.checkpoint),
            (checkpoint, _) => checkpoint.fmt(f),
        }
    }
}

/// What is known of the last cut's batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Emission {
    /// Every record of it was acknowledged; the checkpoint stands behind it.
    Whole,
    /// Some records of it, or all, may not be in the exchange stream. The batch ends here.
    Perhaps(Place),
}

/// The row's pending checkpoint is not that of its cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    /// The batch that was cut.
    pub(super) n: u64,
    /// Where it ends.
    pub(super) cut: Place,
    /// What the row says, none: nothing is pending.
    pub(super) row: Option<Place>,
}

/// The cut that the row's own epoch made.
pub(super) fn own_cut(row: &LeaseRow) -> Option<&Cut> {
    row.cut.as_ref().filter(|cut| Some(cut.epoch) == row.epoch)
}

/// What became of a cut's batch, as far as the row tells.
///
/// # Errors
/// Another program wrote the row's pending checkpoint, or removed ours.
pub(super) fn emission(row: &LeaseRow, cut: &Cut) -> Result<Emission, Foreign> {
    let (end, here) = (end(row, cut), Place::of(row));
    let pending = row.pending.clone();
    let pending = pending.map(|checkpoint| Place { checkpoint, sub_sequence: row.pending_sub_sequence });
    // A batch without records ends where it begins: then only its being pending says that it may not be emitted.
    let moves = end != here;
    let empty = cut.records == 0 && end.checkpoint != Checkpoint::ShardEnd;
    match pending {
        None if !moves => Ok(Emission::Whole),
        Some(pending) if pending == end && (moves || empty) => Ok(Emission::Perhaps(end)),
        row => Err(Foreign { n: cut.n, cut: end, row }),
    }
}

/// Where the batch of a cut ends.
fn end(row: &LeaseRow, cut: &Cut) -> Place {
    let ended = [Some(&row.checkpoint), row.pending.as_ref()].contains(&Some(&Checkpoint::ShardEnd));
    if cut.end && (ended || !cut.children.is_empty()) {
        return Place { checkpoint: Checkpoint::ShardEnd, sub_sequence: 0 };
    }
    let Some(last) = SequenceNumber::new(&cut.last) else { return Place::of(row) };
    let checkpoint = Checkpoint::At(last);
    let sub_sequence = match cut.last_sub {
        Some(sub_sequence) => sub_sequence,
        // Cuts of older versions do not say, but batches end with whole aggregates.
        None if row.pending.as_ref() == Some(&checkpoint) => row.pending_sub_sequence,
        None if row.checkpoint == checkpoint => row.sub_sequence,
        None => WHOLE_AGGREGATE,
    };
    Place { checkpoint, sub_sequence }
}

/// Behind the last record of any aggregate, as DynamoDB and KCL can hold it.
const WHOLE_AGGREGATE: u64 = i64::MAX as u64;

/// Where a source goes on whose state is not used.
///
/// A batch that was cut behind the row's checkpoint may stand in the lanes, whole or in part, and cannot be told apart
/// without the state: it is not cut again, so that nothing counts twice. A checkpoint that was moved since is where
/// someone wants it to go on.
pub(super) fn without_state(row: &LeaseRow) -> Place {
    let here = Place::of(row);
    let moved = row.manifest.as_ref().is_none_or(|manifest| manifest.checkpoint != row.checkpoint.to_string());
    let Some(cut) = own_cut(row).filter(|_| !moved) else { return here };
    let end = end(row, cut);
    if end == here || !matches!(end.checkpoint, Checkpoint::At(_)) {
        return here;
    }
    tracing::error!(
        shard = %row.shard,
        batch = cut.n,
        records = cut.records,
        "a cut batch goes with the discarded state: its records are counted only where it was emitted already"
    );
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Manifest;
    use crate::lease::{attribute, new_row};
    use crate::shard::{HashRange, Shard, ShardId};
    use crate::table::Value;

    fn at(sequence: &str, sub_sequence: u64) -> Place {
        Place { checkpoint: Checkpoint::parse(sequence).unwrap(), sub_sequence }
    }

    /// A row that stands at `here`, with a cut of five records from there up to 20/3.
    fn row(here: &Place, pending: Option<&Place>) -> LeaseRow {
        let shard = Shard { id: ShardId::new("s"), parents: vec![], range: HashRange::ALL, closed: false };
        let cut = Cut { epoch: 1, n: 4, last: "20".into(), records: 5, last_sub: Some(3), ..Cut::default() };
        let manifest = Manifest::new(here.checkpoint.to_string(), Vec::new());
        let mut item = new_row(&shard, &here.checkpoint, 0)
            .with(attribute::SUB_SEQUENCE, Value::number(here.sub_sequence))
            .with(attribute::EPOCH, Value::number(1))
            .with(attribute::MANIFEST, Value::B(manifest.encode_bytes()))
            .with(attribute::CUT, Value::B(cut.encode_bytes()));
        if let Some(pending) = pending {
            item.set(attribute::PENDING, Value::string(pending.checkpoint.to_string()));
            item.set(attribute::PENDING_SUB_SEQUENCE, Value::number(pending.sub_sequence));
        }
        LeaseRow::read(&item).unwrap().unwrap()
    }

    fn judged(row: &LeaseRow) -> Result<Emission, Foreign> {
        emission(row, row.cut.as_ref().unwrap())
    }

    #[test]
    fn only_what_the_cut_says_is_pending() {
        let (start, end) = (at("10", 0), at("20", 3));
        assert_eq!(judged(&row(&start, Some(&end))), Ok(Emission::Perhaps(end.clone())));
        assert_eq!(judged(&row(&end, None)), Ok(Emission::Whole));
        for foreign in [at("15", 0), at("20", 1), at("21", 3), at("SHARD_END", 0)] {
            let refused = judged(&row(&start, Some(&foreign))).unwrap_err();
            assert_eq!((refused.cut, refused.row), (end.clone(), Some(foreign)));
        }
    }

    /// Were taken for our own: the batch would have been computed again from the state behind it, or read twice.
    #[test]
    fn a_checkpoint_prepared_behind_an_emitted_batch_and_one_taken_away_are_foreign() {
        let (start, end) = (at("10", 0), at("20", 3));
        assert!(judged(&row(&end, Some(&end))).is_err());
        assert!(judged(&row(&end, Some(&at("30", 0)))).is_err());
        assert_eq!(judged(&row(&start, None)).unwrap_err().row, None);
    }

    #[test]
    fn a_batch_without_records_is_pending_where_the_row_stands() {
        let start = at("10", 2);
        let empty = |row: LeaseRow| {
            let cut = Cut { records: 0, last: String::new(), last_sub: None, ..row.cut.clone().unwrap() };
            LeaseRow { cut: Some(cut), ..row }
        };
        assert_eq!(judged(&empty(row(&start, Some(&start)))), Ok(Emission::Perhaps(start.clone())));
        assert_eq!(judged(&empty(row(&start, None))), Ok(Emission::Whole));
        assert!(judged(&empty(row(&start, Some(&at("11", 0))))).is_err());
        let ended = |row: LeaseRow| LeaseRow { cut: row.cut.clone().map(|cut| Cut { end: true, ..cut }), ..row };
        let shard_end = at("SHARD_END", 0);
        assert_eq!(judged(&ended(empty(row(&start, Some(&shard_end))))), Ok(Emission::Perhaps(shard_end.clone())));
        assert_eq!(judged(&ended(empty(row(&shard_end, None)))), Ok(Emission::Whole));
        assert_eq!(judged(&ended(empty(row(&start, Some(&start))))), Ok(Emission::Perhaps(start)), "a finite input");
    }

    #[test]
    fn a_cut_of_an_older_version_takes_the_place_inside_the_aggregate_from_the_row() {
        let old = |row: LeaseRow| LeaseRow { cut: row.cut.clone().map(|cut| Cut { last_sub: None, ..cut }), ..row };
        let (start, end) = (at("10", 0), at("20", 7));
        assert_eq!(judged(&old(row(&start, Some(&end)))), Ok(Emission::Perhaps(end.clone())));
        assert_eq!(judged(&old(row(&end, None))), Ok(Emission::Whole));
        assert_eq!(without_state(&old(row(&start, Some(&at("15", 0))))).sub_sequence, WHOLE_AGGREGATE);
    }

    #[test]
    fn without_its_state_a_source_goes_on_behind_its_cut_unless_someone_moved_its_checkpoint() {
        let (start, end) = (at("10", 0), at("20", 3));
        for pending in [Some(&end), None, Some(&at("15", 0))] {
            assert_eq!(without_state(&row(&start, pending)), end);
        }
        assert_eq!(without_state(&row(&end, None)), end);
        // A reset script that knows nothing of what is pending.
        let reset = LeaseRow { checkpoint: Checkpoint::TrimHorizon, ..row(&start, Some(&end)) };
        assert_eq!(without_state(&reset), at("TRIM_HORIZON", 0));
    }
}
