//! DETECT and CORRELATE without streams between them: panes in, events out.
//!
//! For `backtest`. The lane of a pair, the judging of a lane, the encoding of what it says and the correlator are the
//! stages' own; left out are commits, the outbox and delivery. Invariant: the events are those of a job that was given
//! the same panes and watermarks, whatever its number of lanes.

use flowshift_consumer::exchange::Lanes;
use flowshift_consumer::stage::StageError;
use flowshift_detector::{Correlator, FeedKind, LaneDetector, MergeOutcome, Pair, PaneCell, Settings};
use flowshift_proto::anomaly::AnomalyEvent;

use super::aggregate::lane_of;
use super::{correlate, detect};
use crate::convert::event::to_proto;

/// All lanes of a job and its correlator.
#[derive(Debug)]
pub struct Direct {
    lanes: Lanes,
    /// By lane number.
    detectors: Vec<LaneDetector>,
    correlator: Correlator,
    topology_hash: [u8; 16],
}

impl Direct {
    /// A job that has seen nothing.
    pub fn new(settings: &Settings, lanes: Lanes, topology_hash: [u8; 16]) -> Self {
        Self {
            lanes,
            detectors: (0..lanes.count()).map(|_| LaneDetector::new(settings.clone())).collect(),
            correlator: Correlator::new(settings.clone(), lanes.count()),
            topology_hash,
        }
    }

    /// Gives the pair's lane a pane that starts at `start_s` (epoch s).
    ///
    /// # Errors
    /// Never: every lane number of these lanes has its detector.
    pub fn merge(&mut self, pair: &Pair, start_s: i64, cell: &PaneCell) -> Result<MergeOutcome, StageError> {
        let lane = lane_of(self.lanes, &pair.src.id, &pair.dst.id);
        let detector = self.detectors.get_mut(usize::from(lane.index()));
        let detector = detector.ok_or_else(|| StageError::new(format!("lane {lane} is not of this job")))?;
        Ok(detector.merge(pair, FeedKind::Reports, start_s, cell))
    }

    /// Judges every step that ends at or before `mark_ms` (epoch ms; `i64::MAX` ends the input) and says what changed.
    ///
    /// # Errors
    /// A lane said what cannot be read back.
    pub fn judge(&mut self, mark_ms: i64) -> Result<Vec<AnomalyEvent>, StageError> {
        for (lane, detector) in (0..).zip(&mut self.detectors) {
            let (_, said) = detect::judge(lane, detector, &self.topology_hash, mark_ms);
            for record in &said {
                correlate::hear(&mut self.correlator, record).map_err(|e| StageError::with("evidence", e))?;
            }
        }
        Ok(self.correlator.advance().iter().map(to_proto).collect())
    }

    /// Length of a step, s.
    pub fn step_s(&self) -> i64 {
        i64::from(self.correlator.settings().step_s())
    }
}
