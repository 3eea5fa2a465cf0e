//! A source's new epoch: when its row has no valid cut of its own (new, re-created, reset, moved, or without its state).
//!
//! The lanes take a higher epoch from batch 1 and refuse the lower ones. Invariant: nothing is cut under an epoch that
//! was ever used before, and what lanes may have closed by the source's last cut stays closed.
//! Not here: what a valid cut says ([`super::map_run`]).

use super::DriveError;
use super::map_cut::{Place, without_state};
use super::task::ShardTask;
use crate::commit::Manifest;
use crate::exchange::{Status, Watermarks};
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
/// parent was out as it ended, or when the source has spoken under a row that is gone. What the first claim of a row found
/// holds for the next ones, too: whoever put out a source again that had not yet cut made its backlog late. `discarded`: the row has state
/// that is not used, so that the next start must not find it either.
pub(super) async fn claim(task: &ShardTask, row: &LeaseRow, discarded: bool) -> Result<Claim, DriveError> {
    let epoch = task.epochs.raise(&[task.lease.key().to_owned()], row.epoch.unwrap_or_default()).await?;
    let epoch = if planted("planted::restart_n_without_a_new_epoch") { 1 } else { epoch };
    let (checkpoint, sub_sequence) = (row.checkpoint.clone(), row.sub_sequence);
    let mut claim = Claim { epoch, checkpoint, sub_sequence, floor: floor(row) };
    let mut update = Update::new()
        .set(attribute::EPOCH, Value::number(epoch))
        .remove(attribute::CUT)
        .remove(attribute::PENDING)
        .remove(attribute::PENDING_SUB_SEQUENCE)
        .remove(attribute::PENDING_STATE);
    // A row that was claimed before says by itself where lanes stand, also when no cut followed.
    if row.epoch.is_none() {
        let forgotten = task.epochs.has_spoken(task.lease.key()).await?;
        let parents = parents(task, row).await?;
        for (kind, name) in attribute::STATUS.into_iter().enumerate() {
            if forgotten || parents.iter().any(|parent| parent.status[kind] != Status::Live) {
                update = update.set(name, Value::number(Status::Idle.code()));
            }
        }
    }
    if discarded {
        let Place { checkpoint, sub_sequence } = without_state(row);
        (claim.checkpoint, claim.sub_sequence) = (checkpoint, sub_sequence);
        claim
            .floor
            .raise_all(&row.cut.as_ref().map_or(Watermarks::NONE, |cut| Watermarks::from_slice(&cut.watermarks)));
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
        for (kind, name) in attribute::FLOOR.into_iter().enumerate() {
            let floor = claim.floor.get(kind);
            if floor != i64::MIN {
                update = update.set(name, Value::number(floor));
            }
        }
    }
    task.lease.write(update, Condition::None).await?;
    Ok(claim)
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
