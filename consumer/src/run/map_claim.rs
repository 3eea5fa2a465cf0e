//! A source's new epoch: when its row has no valid cut of its own (new, re-created, reset, moved, or without its
//! state).
//!
//! The lanes take a higher epoch from batch 1 and refuse the lower ones. Invariant: nothing is cut under an epoch that
//! was ever used before, and what lanes may have closed by the source's last cut stays closed.
//! Not here: what a valid cut says ([`super::map_run`]).

use std::borrow::Cow;

use super::DriveError;
use super::control::heirs::{inherited, out_where, with_status};
use super::control::told_out;
use super::map_cut::{Place, without_state};
use super::task::ShardTask;
use crate::commit::Manifest;
use crate::exchange::{SourceId, Status, Watermarks};
use crate::lease::{Checkpoint, LeaseError, LeaseRow, attribute};
use crate::planted::planted;
use crate::table::{Condition, Update, Value};

/// Where and as what a source goes on.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) epoch: u64,
    pub(super) checkpoint: Checkpoint,
    /// Place of the checkpoint's record inside its aggregate.
    pub(super) sub_sequence: u64,
    /// Watermarks it may not fall behind.
    pub(super) floor: Watermarks,
}

/// The floors of a row.
pub(super) fn floor(row: &LeaseRow) -> Watermarks {
    Watermarks::from_slice(&row.floor.map(|floor| floor.unwrap_or(i64::MIN)))
}

/// Starts a new epoch.
///
/// Where lanes may have gone past the state it starts with, it is out of the minimum and must ask for its floor: when a
/// parent was out as it ended, or when the source has spoken under a row that is gone. What the first claim of a row
/// found holds for the next ones, too: whoever put out a source again that had not yet cut made its backlog late. Where
/// it speaks of time that lanes have closed by the word of its parents or of its own last cut, that is its floor.
/// `discarded`: the row has state that is not used, so that the next start must not find it either.
pub(super) async fn claim(task: &ShardTask, row: &LeaseRow, discarded: bool) -> Result<Claim, DriveError> {
    let epoch = task.epochs.raise(&[task.lease.key().to_owned()], row.epoch.unwrap_or_default()).await?;
    let epoch = if planted("planted::restart_n_without_a_new_epoch") { 1 } else { epoch };
    let mut row = Cow::Borrowed(row);
    loop {
        let (claim, update, condition) = prepare(task, &row, epoch, discarded).await?;
        match task.lease.write(update, condition).await {
            Ok(()) => return Ok(claim),
            // The leader settled its status meanwhile.
            Err(LeaseError::Refused) => row = Cow::Owned(task.lease.refresh().await?),
            Err(e) => return Err(e.into()),
        }
    }
}

async fn prepare(
    task: &ShardTask,
    row: &LeaseRow,
    epoch: u64,
    discarded: bool,
) -> Result<(Claim, Update, Condition), DriveError> {
    let (checkpoint, sub_sequence) = (row.checkpoint.clone(), row.sub_sequence);
    let mut claim = Claim { epoch, checkpoint, sub_sequence, floor: end(row) };
    let mut update = Update::new()
        .set(attribute::EPOCH, Value::number(epoch))
        .remove(attribute::CUT)
        .remove(attribute::PENDING)
        .remove(attribute::PENDING_SUB_SEQUENCE)
        .remove(attribute::PENDING_STATE);
    // Numbers begin anew: one of the last epoch must not be taken for one of this.
    update = attribute::DATA.into_iter().fold(update, Update::remove);
    let mut condition = Condition::None;
    // A row that was claimed before says by itself where lanes stand, also when no cut followed.
    if row.epoch.is_none() {
        let parents = parents(task, row).await?;
        // Lanes stand there, also when the parents' state is not used, and where a parent ended before it had anything
        // to say above the floor it was given.
        let ends = parents.iter().map(end).filter(|end| *end != Watermarks::NONE).reduce(|a, b| a.min(&b));
        claim.floor.raise_all(&ends.unwrap_or(Watermarks::NONE));
        let id = SourceId { stream: task.context.stream.clone(), shard: task.context.shard.clone() };
        let mut told_out = told_out(&*task.table, &task.state, &id).await?;
        // Written by a leader of an older version, which may be about to tell the lanes so.
        if !row.heir {
            row.said_out.iter().zip(&mut told_out).for_each(|(said, out)| *out |= said);
        }
        let inherited = inherited(&parents).filter(|_| !row.heir).map(|status| out_where(status, told_out));
        let forgotten = task.epochs.has_spoken(task.lease.key()).await?;
        if let Some(status) = if forgotten { Some([Status::Idle; 4]) } else { inherited } {
            update = with_status(update, status);
        }
        if !row.heir {
            condition = Condition::Absent(attribute::HEIR);
        }
    }
    if discarded {
        let Place { checkpoint, sub_sequence } = without_state(row);
        (claim.checkpoint, claim.sub_sequence) = (checkpoint, sub_sequence);
        let checkpoint = claim.checkpoint.to_string();
        let nothing = Manifest::new(checkpoint.clone(), Vec::new());
        update = update
            .set(attribute::CHECKPOINT, Value::string(checkpoint))
            .set(attribute::SUB_SEQUENCE, Value::number(claim.sub_sequence))
            .set(attribute::MANIFEST, Value::B(nothing.encode_bytes()))
            .remove(attribute::SEEN);
        if let Some(resolution) = row.pending_resolution() {
            update = update.set(attribute::RESOLVED, Value::number(resolution.number));
        }
    }
    for (kind, name) in attribute::FLOOR.into_iter().enumerate() {
        let floor = claim.floor.get(kind);
        if floor != i64::MIN && row.floor[kind] != Some(floor) {
            update = update.set(name, Value::number(floor));
        }
    }
    Ok((claim, update, condition))
}

/// Up to where lanes may have closed by the word of a source that has ended.
fn end(row: &LeaseRow) -> Watermarks {
    let mut end = floor(row);
    end.raise_all(&row.cut.as_ref().map_or(Watermarks::NONE, |cut| Watermarks::from_slice(&cut.watermarks)));
    end
}

async fn parents(task: &ShardTask, row: &LeaseRow) -> Result<Vec<LeaseRow>, DriveError> {
    let mut rows = Vec::new();
    for parent in &row.parents {
        if let Some(item) = task.table.get(&task.leases, parent.as_str()).await? {
            rows.extend(LeaseRow::read(&item).map_err(LeaseError::Row)?);
        }
    }
    Ok(rows)
}
