//! The sequential tests: what one step of one pair says against the pair's own baseline, in nats.
//!
//! For: baselines, log-likelihood ratios and their accumulation, one module per signal.
//! Not for: anything about other pairs, incidents or time zones of steps; see [`crate::lane`].
//! Invariant: a step is judged before it is learned, and it is learned only when its own score is at most
//! [`LEARN_LIMIT`]; equal inputs in equal order give equal bits.
//! Method: e-CUSUM over a small set of alternatives (sums of log-likelihood ratios started anew at zero), null
//! hypotheses are composite ("not worse than the upper bound of what was learned").

mod cohort;
mod connect;
mod cusum;
mod drift;
mod histogram;
mod latency;
mod mixture;
mod probation;
mod ranks;
mod rate;
mod retransmit;
mod silence;
mod slow;
mod split;

pub(crate) use connect::ConnectTest;
pub(crate) use histogram::Histogram;
pub(crate) use latency::LatencyTest;
pub(crate) use rate::Counts;
pub(crate) use retransmit::RetransmitTest;
pub(crate) use silence::SilenceTest;
pub(crate) use split::Split;

use crate::evidence::{POOLED, Stage};
use crate::pane::PaneCell;
use crate::season::SlotBaseline;
use crate::topology::PathClass;

/// Nats above which a step is not learned.
pub(crate) const LEARN_LIMIT: f64 = 5.0;

/// Nats that a step can add at most when fewer than [`CARRIERS`] flows (or failed attempts) carry its evidence.
const FEW_CARRIERS_CLIP: f64 = 6.0;
const CARRIERS: u64 = 3;

/// What a test is given about one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepInput<'a> {
    pub(crate) cell: &'a PaneCell,
    pub(crate) start_s: i64,
    pub(crate) step_s: u32,
    /// Score that opens, nats.
    pub(crate) threshold: f64,
    pub(crate) class: PathClass,
    pub(crate) stage: Stage,
    /// What is usual at this time of day; `None` without history.
    pub(crate) season: Option<&'a SlotBaseline>,
}

impl StepInput<'_> {
    /// Most nats a step may add to a CUSUM over `alternatives`: two clear steps can open, one never can.
    fn clip(&self, carriers: u64, alternatives: usize) -> f64 {
        if carriers < CARRIERS { FEW_CARRIERS_CLIP } else { (self.threshold + (alternatives as f64).ln()) / 2.0 + 1.0 }
    }

    /// Nats that a word asked for in every step must be surer by, because it is asked for more often than once a minute: so
    /// many more steps can each pass by chance.
    fn looks(&self) -> f64 {
        (60.0 / f64::from(self.step_s)).ln().max(0.0)
    }

    /// Steps in a quarter of an hour, the stretch over which slow noise is taken as constant.
    fn steps_per_block(&self) -> f64 {
        (900.0 / f64::from(self.step_s)).max(1.0)
    }
}

/// What a test says about one step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Judged {
    /// Whether the step had anything to judge.
    pub(crate) judged: bool,
    /// Evidence of this step alone for each of a few faults, nats: what is summed over the pairs of an element, the second
    /// being a middling one. (The largest ratio of a step would drift upwards without any fault.)
    pub(crate) pooled: [f64; POOLED],
    /// Set when the baseline was moved to a lasting new level: the start of the change, epoch s.
    pub(crate) new_normal: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_asked_for_six_times_a_minute_must_be_surer_by_ln_6_and_a_rarer_one_no_less() {
        let cell = PaneCell::default();
        let (stage, class) = (Stage::PairRate, PathClass::InterAz);
        let looks = |step_s: u32| {
            StepInput { cell: &cell, start_s: 0, step_s, threshold: 14.2, class, stage, season: None }.looks()
        };
        assert_eq!((looks(60), looks(300)), (0.0, 0.0));
        assert!((looks(10) - 6f64.ln()).abs() < 1e-12);
    }
}
