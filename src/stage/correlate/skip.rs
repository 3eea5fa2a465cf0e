//! How the job says that nobody waits for a lane: the engine's leader and `leases resolve skip` put it.
//!
//! Not here: who decides it ([`flowshift_consumer::skip`]) and what follows from it ([`flowshift_detector::Correlator`]).

use bytes::Bytes;
use flowshift_consumer::exchange::LaneId;
use flowshift_consumer::log::Entry;
use flowshift_consumer::skip::{SkipRecord, SkipRecords};
use flowshift_detector::{FeedKind, Settings};

use crate::convert::evidence;

/// The feed kind whose watermark is a lane's of this number.
pub fn feed_kind(kind: usize) -> Option<FeedKind> {
    [FeedKind::Reports, FeedKind::FlowLogs].get(kind).copied()
}

/// SKIP records for the evidence stream of a job with these settings; none for kinds that are not judged.
pub fn skip_records(settings: &Settings) -> SkipRecords {
    let settings = settings.clone();
    SkipRecords::new(move |lane, kind, moment_ms| record(&settings, lane, kind, moment_ms))
}

/// As the lane itself closes its steps: whole ones, and none before the epoch.
fn record(settings: &Settings, lane: LaneId, kind: usize, moment_ms: i64) -> Option<SkipRecord> {
    let kind = feed_kind(kind).filter(|kind| settings.feeds().contains_key(kind))?;
    let step_s = i64::from(settings.step_s());
    let until_s = moment_ms.div_euclid(1_000).div_euclid(step_s).checked_mul(step_s).filter(|until_s| *until_s > 0)?;
    let data = Bytes::from(evidence::encode_skip(lane.index(), kind, settings.step_s(), until_s));
    let entry = Entry { partition_key: lane.index().to_string(), hash_key: None, data };
    Some(SkipRecord { until_ms: until_s.checked_mul(1_000)?, entry })
}

#[cfg(test)]
mod tests {
    use flowshift_consumer::exchange::Lanes;

    use super::*;
    use crate::convert::evidence::Said;

    #[test]
    fn a_skip_names_the_lane_and_the_end_of_its_last_whole_step() {
        let settings = Settings::default();
        let lane = Lanes::new(64).unwrap().get(17).unwrap();
        let skip = skip_records(&settings).record(lane, 0, 1_800_000_059_999).unwrap();
        assert_eq!(skip.until_ms, 1_800_000_000_000);
        assert_eq!(skip.entry.partition_key, "17");
        let said = evidence::decode(&skip.entry.data).unwrap();
        assert_eq!(said, Said::Skip(17, FeedKind::Reports, 1_800_000_000));
        let again = skip_records(&settings).record(lane, 0, skip.until_ms).unwrap();
        assert_eq!(again.entry, skip.entry, "the same moment, the same bytes");
    }

    #[test]
    fn what_is_not_judged_or_lies_before_all_steps_is_not_skipped() {
        let (records, lane) = (skip_records(&Settings::default()), Lanes::new(1).unwrap().get(0).unwrap());
        for (kind, moment_ms) in [(0, 59_999), (0, i64::MIN), (3, 1_800_000_000_000)] {
            assert!(records.record(lane, kind, moment_ms).is_none(), "kind {kind} at {moment_ms}");
        }
    }
}
