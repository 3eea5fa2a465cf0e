//! What the pairs of each element say together, step after step.
//!
//! For: faults of an element that no pair can show alone, found before the first pair alarms.
//! Not for: which element it is, and which pairs are in it; see [`super::cover`].
//! Method: every pair's log-likelihood ratio of a step, for a few sizes of fault, is mixed with the chance that the fault
//! does not hit the pair, and summed over the pairs across the element, all quiet ones included. Without the largest of one
//! pair the sums feed a CUSUM per element; with it they fade, to compare elements with each other.
//! Invariant: integers only, and steps without any word change nothing, so it does not matter which of them are walked;
//! one step never alarms, whatever it says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evidence::{POOLED, POOLED_SIGNALS, PooledNats, PooledSum, Signal, StepEvidence};
use crate::feed::FeedKind;
use crate::map;
use crate::topology::Element;

/// Most that a CUSUM holds above the threshold, milli-nats.
const HEADROOM_MN: i64 = 10_000;
/// A step adds at most half the threshold and this, milli-nats: two clear steps can alarm, one never can.
const ONE_STEP_MN: i64 = 1_000;
/// ln 4: paid for having looked for four sizes, milli-nats.
const PENALTY_MN: i64 = 1_386;
/// Time after which what was said in favour of an element has faded to a third, s.
const FADE_S: i64 = 270;
/// Most that the largest pair adds to the faded sum in a minute, milli-nats. Per step it was six times as much at steps of 10 s,
/// and one pair's fault passed for that of its zone.
const LARGEST_MN: i64 = 3_000;

/// What is remembered of the elements. Stored beside the correlator's own state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Together {
    /// What was said of steps that are not taken yet.
    pending: BTreeMap<(FeedKind, i64), Said>,
    /// Elements for which anything speaks.
    running: BTreeMap<FeedKind, Elements>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Said(#[serde(with = "map")] BTreeMap<Element, PooledSum>);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Elements(#[serde(with = "map")] BTreeMap<Element, Running>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Running {
    /// CUSUM without the largest pair, milli-nats.
    sums: PooledNats,
    /// Faded sum with it, at least 0, milli-nats.
    recent: PooledNats,
    /// Start of the step in which the CUSUMs of a signal left zero, epoch s.
    since_s: [i64; POOLED_SIGNALS.len()],
}

impl Together {
    /// Takes what a lane says.
    pub(super) fn hear(&mut self, evidence: &StepEvidence) {
        if evidence.pooled.is_empty() {
            return;
        }
        let said = &mut self.pending.entry((evidence.kind, evidence.step_start_s)).or_default().0;
        for sum in &evidence.pooled {
            let kept =
                said.entry(sum.element.clone()).or_insert_with_key(|element| PooledSum::nothing(element.clone()));
            kept.add(&sum.sum_mn, &sum.top_mn);
        }
    }

    /// Takes a step that all lanes have spoken for.
    pub(super) fn step(&mut self, kind: FeedKind, start_s: i64, step_s: u32, threshold_mn: i64) {
        while let Some(entry) = self.pending.range((kind, i64::MIN)..(kind, start_s)).next().map(|(key, _)| *key) {
            self.pending.remove(&entry);
        }
        let Some(said) = self.pending.remove(&(kind, start_s)) else { return };
        let running = &mut self.running.entry(kind).or_default().0;
        let step_s = i64::from(step_s);
        let largest_mn = LARGEST_MN * step_s / 60;
        for (element, said) in said.0 {
            let kept = running.entry(element).or_default();
            let before = kept.sums.map(|sizes| top(&sizes));
            let sums = kept.sums.as_flattened_mut().iter_mut().zip(kept.recent.as_flattened_mut());
            let words = said.sum_mn.as_flattened().iter().zip(said.top_mn.as_flattened());
            for ((sum, recent), (&all, &top)) in sums.zip(words) {
                let gain = all.saturating_sub(top).min(threshold_mn / 2 + ONE_STEP_MN);
                *sum = sum.saturating_add(gain).clamp(0, threshold_mn + PENALTY_MN + HEADROOM_MN);
                let faded = recent.saturating_mul(FADE_S) / (FADE_S + step_s);
                let bounded = all.saturating_sub(top).saturating_add(top.min(largest_mn));
                *recent = faded.saturating_add(bounded).clamp(0, i64::MAX / FADE_S);
            }
            for (since_s, (before, sizes)) in kept.since_s.iter_mut().zip(before.iter().zip(&kept.sums)) {
                if *before == 0 && top(sizes) > 0 {
                    *since_s = start_s;
                }
            }
        }
        running.retain(|_, kept| kept.sums != PooledNats::default() || kept.recent != PooledNats::default());
    }

    pub(super) fn of(&self, kind: FeedKind) -> Option<&Elements> {
        self.running.get(&kind)
    }
}

impl Elements {
    /// Evidence that more than one pair of the element is worse, milli-nats; 0 or more. Comparable with the threshold.
    pub(super) fn score_mn(&self, element: &Element, signal: Signal) -> i64 {
        let most = self.get(element, signal).map_or(0, |(running, index)| top(&running.sums[index]));
        (most - PENALTY_MN).max(0)
    }

    /// Estimated start of what the element scores for, epoch s; `None` while it scores nothing.
    pub(super) fn since_s(&self, element: &Element, signal: Signal) -> Option<i64> {
        let (running, index) = self.get(element, signal)?;
        (top(&running.sums[index]) > 0).then_some(running.since_s[index])
    }

    /// What speaks for the element now, milli-nats; 0 or more. Comparable between elements.
    pub(super) fn value_mn(&self, element: &Element, signal: Signal) -> i64 {
        self.get(element, signal).map_or(0, |(running, index)| top(&running.recent[index]))
    }

    /// Whether any element scores at least `least_mn`.
    pub(super) fn any(&self, signal: Signal, least_mn: i64) -> bool {
        let index = POOLED_SIGNALS.iter().position(|s| *s == signal);
        index.is_some_and(|index| self.0.values().any(|running| top(&running.sums[index]) - PENALTY_MN >= least_mn))
    }

    fn get(&self, element: &Element, signal: Signal) -> Option<(&Running, usize)> {
        Some((self.0.get(element)?, POOLED_SIGNALS.iter().position(|s| *s == signal)?))
    }
}

fn top(sizes: &[i64; POOLED]) -> i64 {
    sizes.iter().fold(0, |top, &size| top.max(size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::ElementKind;

    const KIND: FeedKind = FeedKind::Reports;
    const OPENS_MN: i64 = 14_000;

    fn path() -> Element {
        Element { kind: ElementKind::AzPath, id: "az1|az2".into() }
    }

    /// What one lane's pairs say about loss in the step of this number, milli-nats of each.
    fn said(step: i64, pairs: &[i64]) -> StepEvidence {
        let mut pooled = PooledSum::nothing(path());
        for &nats in pairs {
            let mut one = PooledNats::default();
            one[1] = [nats; POOLED];
            pooled.add(&one, &one);
        }
        StepEvidence {
            kind: KIND,
            step_start_s: step * 60,
            step_s: 60,
            steps: 1,
            last: false,
            elements: Vec::new(),
            pooled: vec![pooled],
            rows: Vec::new(),
            rows_left_out: 0,
        }
    }

    /// What speaks for the path after ten minutes in steps of this length, in each of which the pairs say this.
    fn value_after_ten_minutes(step_s: u32, pairs: &[i64]) -> i64 {
        let mut together = Together::default();
        for step in 0..600 / i64::from(step_s) {
            let start_s = step * i64::from(step_s);
            together.hear(&StepEvidence { step_start_s: start_s, step_s, ..said(0, pairs) });
            together.step(KIND, start_s, step_s, OPENS_MN);
        }
        together.of(KIND).map_or(0, |elements| elements.value_mn(&path(), Signal::Retransmit))
    }

    #[test]
    fn one_pair_speaks_no_louder_for_an_element_because_steps_are_short() {
        // Five quiet pairs refute as much a minute at either length; the loud one is clipped in every step.
        let long = value_after_ten_minutes(60, &[3_000, -60, -60, -60, -60, -60]);
        let short = value_after_ten_minutes(10, &[3_000, -10, -10, -10, -10, -10]);
        assert!(long > 10_000 && short <= long * 11 / 10, "{long} {short}");
        // What several say is not less.
        assert!(value_after_ten_minutes(10, &[3_000, 3_000, -10]) > 2 * short);
    }

    fn after(steps: i64, lanes: &[&[i64]]) -> Together {
        let mut together = Together::default();
        for step in 0..steps {
            lanes.iter().for_each(|pairs| together.hear(&said(step, pairs)));
            together.step(KIND, step * 60, 60, OPENS_MN);
        }
        together
    }

    fn score(together: &Together) -> i64 {
        together.of(KIND).map_or(0, |elements| elements.score_mn(&path(), Signal::Retransmit))
    }

    #[test]
    fn one_pair_alone_never_makes_an_element_score_however_long_it_lasts() {
        assert_eq!(score(&after(100, &[&[3_000, -10, -10]])), 0);
        assert!(score(&after(10, &[&[3_000, 2_000, -10]])) >= OPENS_MN);
    }

    #[test]
    fn quiet_pairs_refute_what_a_few_say() {
        assert!(score(&after(10, &[&[2_000, 2_000, 2_000]])) >= OPENS_MN);
        assert_eq!(score(&after(10, &[&[2_000, 2_000, 2_000], &[-690; 8]])), 0);
    }

    #[test]
    fn one_step_never_alarms_and_two_clear_ones_do() {
        let many = [3_000; 60];
        assert!(score(&after(1, &[&many])) < OPENS_MN);
        assert!(score(&after(2, &[&many])) >= OPENS_MN);
    }

    #[test]
    fn it_does_not_matter_which_lane_says_what() {
        let together = after(4, &[&[900, -200, 1_500, 700]]);
        assert_eq!(after(4, &[&[1_500, 700], &[-200], &[900]]), together);
        assert_eq!(after(4, &[&[-200], &[900, 1_500], &[700]]), together);
    }

    #[test]
    fn numbers_of_a_liar_do_not_overflow() {
        let together = after(3, &[&[i64::MAX, i64::MAX], &[i64::MIN; 3], &[i64::MAX; 9]]);
        assert!((0..=OPENS_MN + HEADROOM_MN).contains(&score(&together)));
    }

    #[test]
    fn elements_for_which_nothing_speaks_are_forgotten_as_is_what_came_too_late() {
        let mut together = after(2, &[&[-100, -50]]);
        together.hear(&said(0, &[3_000, 3_000]));
        together.step(KIND, 240, 60, OPENS_MN);
        assert_eq!(together.pending.len() + together.of(KIND).map_or(0, |elements| elements.0.len()), 0);
    }
}
