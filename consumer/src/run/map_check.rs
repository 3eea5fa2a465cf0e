//! What a batch must be before it is cut: for the job's lanes, and in records that the stream takes.
//!
//! Invariant: what is cut can be emitted. Afterwards it is too late: a cut batch is emitted with the bytes its checksum
//! names, or the shard stops. The checks cost nothing per input record. Read next: [`super::map_run`].

use super::DriveError;
use super::task::ShardTask;
use crate::exchange::Lanes;
use crate::lease::LeaseRow;
use crate::log::{Entry, MAX_RECORD_BYTES};
use crate::stage::{Mapped, StageError};

/// A source that was ever cut for another number of lanes goes no further. Cuts of older versions do not say.
pub(super) fn same_lanes(task: &ShardTask, row: &LeaseRow, lanes: Lanes) -> Result<(), DriveError> {
    let ours = lanes.count();
    match row.cut.as_ref().filter(|cut| cut.lanes != 0 && cut.lanes != u32::from(ours)) {
        None => Ok(()),
        Some(cut) => Err(DriveError::Lanes {
            stream: task.stream().to_owned(),
            shard: row.shard.clone(),
            n: cut.n,
            cut: cut.lanes,
            ours,
        }),
    }
}

/// Every part is for a lane of the job.
pub(super) fn known_lanes(mapped: &Mapped, lanes: Lanes) -> Result<(), StageError> {
    match mapped.parts.keys().next_back().filter(|lane| lanes.get(lane.index()).is_none()) {
        None => Ok(()),
        Some(lane) => Err(StageError::new(format!("a part for lane {lane}, the job has {} lanes", lanes.count()))),
    }
}

/// Every record of the batch is one that the exchange stream takes.
pub(super) fn fit(entries: &[Entry]) -> Result<(), StageError> {
    let bytes = |entry: &Entry| entry.data.len() + entry.partition_key.len();
    match entries.iter().find(|entry| bytes(entry) > MAX_RECORD_BYTES) {
        None => Ok(()),
        Some(entry) => Err(StageError::new(format!(
            "a part for lane {} makes a record of {} bytes, the stream takes {MAX_RECORD_BYTES}: give the lane several parts",
            entry.partition_key,
            bytes(entry)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::run::map_run::lane_entry;

    #[test]
    fn what_does_not_fit_is_named_with_its_lane_its_size_and_the_limit() {
        let lanes = Lanes::new(64).unwrap();
        let entry = |bytes| lane_entry(lanes, lanes.get(63).unwrap(), Bytes::from(vec![0; bytes]));
        assert!(fit(&[entry(0), entry(MAX_RECORD_BYTES - 2)]).is_ok());
        let refused = fit(&[entry(0), entry(MAX_RECORD_BYTES - 1)]).unwrap_err().to_string();
        assert!(refused.contains("lane 63") && refused.contains("1048577") && refused.contains("1048576"), "{refused}");
    }

    #[test]
    fn a_part_for_a_lane_of_another_job_is_named() {
        let (ours, theirs) = (Lanes::new(8).unwrap(), Lanes::new(9).unwrap());
        let mut mapped = Mapped::default();
        mapped.parts.insert(theirs.get(7).unwrap(), Vec::new());
        assert!(known_lanes(&mapped, ours).is_ok());
        mapped.parts.insert(theirs.get(8).unwrap(), Vec::new());
        assert_eq!(known_lanes(&mapped, ours).unwrap_err().to_string(), "a part for lane 8, the job has 8 lanes");
    }
}
