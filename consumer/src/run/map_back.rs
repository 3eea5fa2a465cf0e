//! How a source that was put out of the minimum comes back: it asks, and waits for its floor.
//!
//! Invariant: nothing is cut of a kind for which the source does not count, nor below a floor its row was given. Not
//! here: who gives floors ([`super::control`]).

use super::DriveError;
use super::map_claim::floor;
use super::map_run::MapRun;
use crate::exchange::Status;
use crate::lease::{LeaseError, LeaseRow, attribute};
use crate::stage::Mapper;
use crate::table::{Condition, Update, Value};

/// Whether a batch may be cut.
pub(super) enum Counted {
    /// The source counts for every kind in it.
    Yes,
    /// Its row has a floor above what the state stood at; the state stands there now, and the batch must be computed
    /// again.
    AboveFloor,
    /// The lease is to go.
    Left,
}

impl<M: Mapper> MapRun<'_, M> {
    /// Waits until the source counts for every kind in the batch; where it does not, it asks to come back. The last
    /// worker to leave would wait for ever: the leader that gives floors leaves with it.
    pub(super) async fn counted(&mut self, kinds: &[bool; 4]) -> Result<Counted, DriveError> {
        let out = |row: &LeaseRow, kind: usize| kinds[kind] && row.status[kind] != Status::Live;
        let any_out = |row: &LeaseRow| (0..kinds.len()).any(|kind| out(row, kind));
        let mut row = self.task.lease.row().await?;
        while any_out(&row) {
            row = self.task.lease.refresh().await?;
            let idle = |kind: &usize| out(&row, *kind) && row.status[*kind] == Status::Idle;
            self.ask(&row, (0..kinds.len()).filter(idle)).await?;
            if any_out(&row) {
                tokio::select! {
                    biased;
                    () = self.task.lease.lost().cancelled() => return Err(LeaseError::Lost.into()),
                    () = self.task.leave.cancelled() => return Ok(Counted::Left),
                    () = tokio::time::sleep(self.task.timing.poll) => {}
                }
            }
        }
        // Given to an earlier owner that asked, and after this one first saw the row: then nothing was out here.
        let mut floor = floor(&row);
        floor.raise_all(&self.floor);
        if floor == self.floor {
            return Ok(Counted::Yes);
        }
        self.mapper.raise(&mut self.state, &floor);
        self.floor = floor;
        Ok(Counted::AboveFloor)
    }

    /// Asks for the kinds to count again.
    async fn ask(&self, row: &LeaseRow, mut kinds: impl Iterator<Item = usize>) -> Result<(), DriveError> {
        let Some(first) = kinds.next() else { return Ok(()) };
        let ask = Update::new().set(attribute::ASKED, Value::number(row.asked.saturating_add(1)));
        let ask = std::iter::once(first)
            .chain(kinds)
            .fold(ask, |update, kind| update.set(attribute::STATUS[kind], Value::number(Status::Return.code())));
        match self.task.lease.write(ask, Condition::None).await {
            Ok(()) | Err(LeaseError::Refused) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
