//! The peers a pair knows: did *they* get slower?
//!
//! For: telling a slower path from new, farther clients, which look alike in a histogram.
//! Not for: alarms of its own; the latency test asks for its word, and asks the histogram when the peers alarm.
//! Method: mean log deviation of known peers' round-trip times from each peer's own level, weighted by flows; e-CUSUM over
//! shifts on top of a slow drift (see `drift`).
//! Invariant: at most [`PEERS`] levels are kept; the peer that was not seen for longest leaves first, ties by hash.

use serde::{Deserialize, Serialize};

use crate::pane::{PEER_SAMPLE_SIZE, PeerCounts, PeerSample};
use crate::sorted::SortedMap;

use super::StepInput;
use super::cusum::{Cusum, Ratio};
use super::drift::{Drift, Observed};
use super::slow::SlowVariance;
use super::split::Deviations;

const PEERS: usize = 64;
/// Age and flow records after which a peer is known once the pair itself is old; half the pair's age before that.
const KNOWN_AFTER_S: i64 = 86_400;
const KNOWN_FLOWS: f64 = 100.0;
const SLOWER: [f64; 4] = [0.05, 0.1, 0.2, 0.4];
/// Deviation of one peer that is counted at most (log): a single slow flow is no shift.
const CLEAR: f64 = 0.6;
/// Flows of known peers in a step from which they may alarm by themselves; with fewer, single slow flows add up.
const ENOUGH_TO_ALARM: f64 = 15.0;
/// Mean slow-down (log) that is no news.
const NULL: f64 = 0.03;
const SLOW_PRIOR: f64 = 2e-4;
/// Weight that what was known of the share of known peers keeps over a minute.
const REMEMBERED: f64 = 0.9;
/// Prior variance of one record's log round-trip time around its peer's level, and the records it is worth.
const SPREAD: f64 = 0.08;
const SPREAD_RECORDS: f64 = 200.0;

/// Log mean round-trip time (ln µs) of each peer of a step's sample, in its order; 0 where none was measured.
pub(crate) type Logs = [f64; PEER_SAMPLE_SIZE];

/// What a step said about the peers, for learning it afterwards.
#[derive(Debug)]
pub(crate) struct Heard {
    logs: Logs,
    pub(crate) deviations: Deviations,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Level {
    first_s: i64,
    last_s: i64,
    flows: f64,
    log_us: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cohort {
    levels: SortedMap<u64, Level>,
    first_s: Option<i64>,
    /// Smoothed share of sampled flows that known peers have.
    known_share: f64,
    /// Smoothed number of their flows in a step.
    known_flows: f64,
    cusum: Cusum,
    slow: SlowVariance,
    drift: Drift,
    squares: f64,
    records: f64,
    /// Mean deviation of known peers in the last judged step (log).
    deviation: f64,
}

impl Cohort {
    /// Judges one step. Call [`Cohort::learn`] afterwards when the step may be learned, with the logarithms given back.
    pub(crate) fn judge(&mut self, input: &StepInput<'_>) -> Heard {
        let mut heard = Heard { logs: [0.0; PEER_SAMPLE_SIZE], deviations: Deviations::default() };
        let sample = &input.cell.peers;
        let first_s = *self.first_s.get_or_insert(input.start_s);
        let (mut weight, mut sum, mut known, mut all) = (0.0, 0.0, 0.0, 0.0);
        for ((hash, counts), log_us) in sample.iter().zip(&mut heard.logs) {
            if counts.rtt_n > 0 && counts.rtt_sum_us > 0 {
                *log_us = (counts.rtt_sum_us as f64 / counts.rtt_n as f64).ln();
            }
            all += counts.flows as f64;
            let Some(level) = self.levels.get(&hash).filter(|level| is_known(level, first_s, input.start_s)) else {
                continue;
            };
            known += counts.flows as f64;
            if counts.rtt_n > 0 && counts.rtt_sum_us > 0 {
                let n = counts.rtt_n as f64;
                let deviation = *log_us - level.log_us;
                heard.deviations.add(counts.flows.min(counts.rtt_n), deviation);
                let deviation = deviation.clamp(-CLEAR, CLEAR);
                weight += n.min(30.0);
                sum += n.min(30.0) * deviation;
            }
        }
        if all > 0.0 {
            let pace = 1.0 - REMEMBERED.powf(f64::from(input.step_s) / 60.0);
            self.known_share += pace * (known / all - self.known_share);
            self.known_flows += pace * (known - self.known_flows);
        }
        if weight <= 0.0 {
            return heard;
        }
        self.deviation = sum / weight;
        // A few flows are no Gaussian mean: a single slow one would count too much.
        let sampling = self.spread() * (1.0 + 2.0 / weight) / weight;
        let seen = Observed {
            value: self.deviation,
            sampling,
            slow: self.slow.value(SLOW_PRIOR),
            step_s: f64::from(input.step_s),
            null: NULL,
        };
        let cusum = &self.cusum;
        let nats = self.drift.step(&seen, SLOWER, |index| cusum.is_running(index), cusum.alarmed());
        let clip = input.clip(weight as u64, SLOWER.len());
        self.cusum.step(&nats.map(|nats| Ratio { nats, clip }), input.threshold, input.start_s);
        self.slow.add_unusual(self.deviation, sampling, input.steps_per_block(), SLOW_PRIOR);
        if self.cusum.score() <= super::LEARN_LIMIT {
            self.squares = self.squares * 0.999 + (self.deviation * self.deviation * weight).min(2.0);
            self.records = self.records * 0.999 + 1.0;
        }
        heard
    }

    /// Learns the levels of the peers seen in a step.
    pub(crate) fn learn(&mut self, sample: &PeerSample, heard: &Heard, start_s: i64) {
        let measured = |counts: &PeerCounts| counts.rtt_n > 0 && counts.rtt_sum_us > 0;
        for ((hash, counts), &log_us) in sample.iter().zip(&heard.logs).filter(|((_, counts), _)| measured(counts)) {
            let n = counts.rtt_n as f64;
            let fresh = || Level { first_s: start_s, last_s: start_s, flows: 0.0, log_us };
            let level = self.levels.or_insert_with(hash, fresh);
            let seen = level.flows.min(2_000.0);
            level.log_us = (level.log_us * seen + log_us * n) / (seen + n);
            level.flows += n;
            level.last_s = start_s;
        }
        while self.levels.len() > PEERS {
            let Some(oldest) = self.levels.iter().min_by_key(|(hash, level)| (level.last_s, *hash)).map(|(h, _)| *h)
            else {
                break;
            };
            self.levels.remove(&oldest);
        }
    }

    /// What the known peers say, nats; `None` when too few are known to ask.
    pub(crate) fn score(&self) -> Option<f64> {
        self.may_speak().then(|| self.cusum.score())
    }

    /// Whether the known peers alarm.
    pub(crate) fn alarmed(&self) -> bool {
        self.may_speak() && self.known_flows >= ENOUGH_TO_ALARM && self.cusum.alarmed()
    }

    /// Whether enough of the traffic is of known peers.
    pub(crate) fn may_speak(&self) -> bool {
        self.known_share >= 0.3
    }

    /// Standard deviation (log) of the slow drift of the known peers' mean.
    pub(crate) fn drift(&self) -> f64 {
        self.slow.value(SLOW_PRIOR).sqrt()
    }

    /// Moves all levels to the present ones (a lasting shift became the baseline).
    pub(crate) fn rebase(&mut self) {
        for level in self.levels.values_mut() {
            level.log_us += self.deviation;
        }
        self.cusum.reset();
        self.drift.reset();
    }

    fn spread(&self) -> f64 {
        (self.squares + SPREAD * SPREAD_RECORDS) / (self.records + SPREAD_RECORDS)
    }
}

fn is_known(level: &Level, first_s: i64, now_s: i64) -> bool {
    let half_age = (now_s - first_s) / 2;
    let age = now_s - level.first_s;
    if half_age >= KNOWN_AFTER_S {
        age >= KNOWN_AFTER_S && level.flows >= KNOWN_FLOWS
    } else {
        age >= half_age && level.flows >= 3.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Stage;
    use crate::pane::PaneCell;
    use crate::topology::PathClass;

    /// Steps from `from_s` until `until_s` of one flow each, of this peer.
    fn steps(cohort: &mut Cohort, step_s: u32, from_s: i64, until_s: i64, peer: u64) {
        let mut cell = PaneCell::default();
        cell.peers.record(peer, &PeerCounts { flows: 1, retransmits: 0, rtt_n: 1, rtt_sum_us: 800 });
        for start_s in (from_s..until_s).step_by(step_s as usize) {
            let (stage, class) = (Stage::PairRate, PathClass::InterAz);
            let input = StepInput { cell: &cell, start_s, step_s, threshold: 14.2, class, stage, season: None };
            let heard = cohort.judge(&input);
            cohort.learn(&cell.peers, &heard, start_s);
        }
    }

    #[test]
    fn a_minute_or_two_without_known_peers_does_not_take_their_word_at_any_step_length() {
        // The share was smoothed over ten steps: at 10 s two minutes of new clients sufficed for nobody to be asked.
        for step_s in [60, 10] {
            let mut cohort = Cohort::default();
            steps(&mut cohort, step_s, 0, 3_600, 1);
            steps(&mut cohort, step_s, 3_600, 3_720, 2);
            assert!(cohort.may_speak(), "{step_s} s: {}", cohort.known_share);
            steps(&mut cohort, step_s, 3_720, 5_000, 2);
            assert!(!cohort.may_speak(), "{step_s} s: {}", cohort.known_share);
        }
    }
}
