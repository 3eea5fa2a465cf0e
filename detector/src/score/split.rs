//! Do some flows of the known peers take about twice as long, while the others go on as before?
//!
//! For: one of several parallel paths that got slower, on pairs of a few flows a minute: too few to see a tail move, but
//! what a peer's flows usually take is known well.
//! Not for: small shifts of all flows; the mean over the peers tells (see `cohort`).
//! Method: the deviations of a peer's step mean from its own level are learned as histograms, by the number of flows behind
//! the mean. The alternative mixes shifted copies of them; so does the null, with a small share that is no news, which
//! also bounds what one flow can say. The null may have drifted (the smaller evidence counts); what is left is tempered by
//! how much quarters of an hour differ by themselves; e-CUSUM.
//! Invariant: what is learned changes only between half hours, so the table made from it is a function of the state.

use serde::{Deserialize, Serialize};

use crate::pane::PEER_SAMPLE_SIZE;
use crate::season::Bins;

use super::StepInput;
use super::cusum::{Cusum, Ratio};
use super::histogram::Kept;
use super::mixture::{CLASSES, LEAST, LOOKED_FOR, Table, bin_of, class_of};
use super::slow::SlowVariance;

/// Means of a class beyond which old ones fade.
const MOST: u32 = 10_000;
const BLOCK_S: i64 = 1_800;
/// Standard deviations of the drift by which the null may have moved, for each alternative: a mild slow-down of most flows
/// looks like a drift, a doubling of some does not.
const DRIFTED: [f64; LOOKED_FOR] = [1.5, 2.5];
/// Prior variance of a quarter's mean evidence beyond sampling, nats².
const SLOW_PRIOR: f64 = 4e-4;
/// The least variance of one mean's evidence, nats².
const LEAST_VARIANCE: f64 = 0.05;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Split {
    learned: [Bins; CLASSES],
    /// Of the present half hour.
    waiting: [Bins; CLASSES],
    block_s: i64,
    cusum: Cusum,
    slow: SlowVariance,
    /// Usual mean and mean square of a mean's evidence.
    usual: (f64, f64),
    #[serde(skip)]
    table: Kept<Box<Table>>,
}

/// The deviations (log) of one step's known peers, each with the class of the number of its flows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deviations {
    list: [(u8, f64); PEER_SAMPLE_SIZE],
    len: usize,
}

impl Deviations {
    /// Adds the deviation of the mean of so many flows.
    pub(crate) fn add(&mut self, flows: u64, deviation: f64) {
        if let (Some(class), Some(entry)) = (class_of(flows), self.list.get_mut(self.len)) {
            *entry = (class, deviation);
            self.len += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.list[..self.len].iter().map(|&(class, deviation)| (usize::from(class), deviation))
    }
}

impl Split {
    /// Judges one step; `drift` is the standard deviation (log) of the slow drift of all flows.
    pub(crate) fn judge(&mut self, input: &StepInput<'_>, step: &Deviations, drift: f64) {
        self.enter(input.start_s);
        if step.len == 0 || self.learned.iter().all(|bins| bins.total() < LEAST) {
            return;
        }
        let (mut nats, mut drifted) = ([0.0; LOOKED_FOR], [0.0; LOOKED_FOR]);
        let (mut means, mut carriers, mut squares) = (0.0, 0, 0.0);
        let table = self.table.get_or_init(|| Table::of(&self.learned));
        for (class, deviation) in step.iter() {
            let Some(rows) = table.class(class) else { continue };
            for (index, row) in rows.iter().enumerate() {
                let says = |deviation: f64| f64::from(row[bin_of(deviation)]);
                nats[index] += says(deviation);
                drifted[index] += says(deviation - DRIFTED[index] * drift);
            }
            let first = f64::from(rows[0][bin_of(deviation)]);
            means += 1.0;
            squares += first * first;
            carriers += u64::from(first > 0.0);
        }
        if means == 0.0 {
            return;
        }
        let ((mean, square), seen, block) = (self.usual, nats[0] / means, input.steps_per_block());
        let sampling = (square - mean * mean).max(LEAST_VARIANCE) / means;
        let tempered = sampling / (sampling + block * self.slow.value(SLOW_PRIOR));
        let clip = input.clip(carriers, LOOKED_FOR);
        nats.iter_mut().zip(drifted).for_each(|(nats, drifted)| *nats = nats.min(drifted) * tempered);
        self.cusum.step(&nats.map(|nats| Ratio { nats, clip }), input.threshold, input.start_s);
        self.slow.add_unusual(seen - mean, sampling, block, SLOW_PRIOR);
        if self.cusum.score() <= super::LEARN_LIMIT {
            let pace = (means * 0.002).min(0.1);
            self.usual.0 += pace * (seen - mean);
            self.usual.1 += pace * (squares / means - square);
        }
    }

    /// Learns a step's deviations, from the next half hour on.
    pub(crate) fn learn(&mut self, step: &Deviations) {
        if self.cusum.score() > super::LEARN_LIMIT {
            self.distrust();
            return;
        }
        for (class, deviation) in step.iter() {
            self.waiting[class].put(bin_of(deviation) as i32, 1);
        }
    }

    /// Forgets what waits to be learned.
    pub(crate) fn distrust(&mut self) {
        self.waiting = Default::default();
    }

    pub(crate) fn score(&self) -> f64 {
        self.cusum.score()
    }

    pub(crate) fn alarmed(&self) -> bool {
        self.cusum.alarmed()
    }

    /// Starts over from a lasting new level.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    fn enter(&mut self, start_s: i64) {
        let block_s = start_s.div_euclid(BLOCK_S).saturating_mul(BLOCK_S);
        if block_s == self.block_s {
            return;
        }
        self.block_s = block_s;
        for (learned, waiting) in self.learned.iter_mut().zip(&mut self.waiting) {
            if waiting.is_empty() {
                continue;
            }
            learned.add(&std::mem::take(waiting));
            if learned.total() > MOST {
                learned.halve();
            }
            self.table = Kept::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Stage;
    use crate::pane::PaneCell;
    use crate::topology::PathClass;

    /// Minutes of four flows of four peers, scattered by ±0.2; `extra` adds to the deviation of a flow.
    fn minutes(split: &mut Split, from: i64, count: i64, extra: impl Fn(i64) -> f64) {
        let cell = PaneCell::default();
        for minute in from..from + count {
            let (stage, class) = (Stage::PairRate, PathClass::InterAz);
            let start_s = minute * 60;
            let input = StepInput { cell: &cell, start_s, step_s: 60, threshold: 14.2, class, stage, season: None };
            let mut step = Deviations::default();
            for flow in 4 * minute..4 * minute + 4 {
                step.add(1, (flow * 7_919 % 41) as f64 / 100.0 - 0.2 + extra(flow));
            }
            split.judge(&input, &step, 0.04);
            split.learn(&step);
        }
    }

    fn settled() -> Split {
        let mut split = Split::default();
        minutes(&mut split, 0, 600, |_| 0.0);
        assert_eq!(split.score(), 0.0);
        split
    }

    #[test]
    fn three_flows_in_ten_that_take_twice_as_long_alarm_within_half_an_hour() {
        let mut split = settled();
        minutes(&mut split, 600, 30, |flow| if flow % 10 < 3 { 2f64.ln() } else { 0.0 });
        assert!(split.alarmed(), "{}", split.score());
    }

    #[test]
    fn neither_one_flow_in_fifty_nor_a_drift_of_all_alarms() {
        let mut split = settled();
        minutes(&mut split, 600, 240, |flow| if flow % 50 == 0 { 2f64.ln() } else { 0.0 });
        assert!(!split.alarmed() && split.score() < 5.0, "{}", split.score());
        let mut split = settled();
        minutes(&mut split, 600, 60, |_| 0.1);
        assert!(!split.alarmed() && split.score() < 5.0, "{}", split.score());
    }

    #[test]
    fn what_a_fault_brings_is_not_learned() {
        let mut split = settled();
        let before = split.learned.clone();
        minutes(&mut split, 600, 60, |flow| if flow % 10 < 5 { 2f64.ln() } else { 0.0 });
        let doubled =
            |learned: &[Bins; CLASSES]| learned[0].iter().filter(|(bin, _)| *bin > bin_of(0.4) as i32).count();
        assert!(split.alarmed());
        assert_eq!(doubled(&split.learned), doubled(&before));
    }
}
