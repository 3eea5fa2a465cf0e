//! Which lanes have spoken for which steps of one feed kind, and what they said.
//!
//! For: deciding when a step is complete.
//! Not for: the meaning of what was said.
//! Invariant: sums are integer sums and every pair lives in one lane, so the pool of a step does not depend on the order
//! of its lanes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evidence::{ElementSum, PairRow, StepEvidence};
use crate::map;
use crate::topology::{Element, Pair};

/// All that was said about one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepPool {
    #[serde(with = "map")]
    pub(super) elements: BTreeMap<Element, ElementSum>,
    #[serde(with = "map")]
    pub(super) rows: BTreeMap<Pair, PairRow>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Lane {
    /// Start of the first step it spoke for; `None` when it only said that its input has ended.
    from_s: Option<i64>,
    /// End of the last step it spoke for, or was skipped for.
    until_s: i64,
    ended: bool,
}

/// Progress of one feed kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    lanes: BTreeMap<u16, Lane>,
    pools: BTreeMap<i64, StepPool>,
    /// Start of the next step to be taken; unknown until every lane has spoken.
    next_s: Option<i64>,
}

impl Progress {
    /// Takes what a lane says; false when it has spoken for these steps already.
    pub(super) fn apply(&mut self, lane: u16, evidence: &StepEvidence) -> bool {
        let known = self.lanes.get(&lane).copied();
        let until_s = known.map_or(i64::MIN, |l| l.until_s);
        if known.is_some_and(|l| l.ended) || (evidence.end_s() <= until_s && !evidence.last) {
            return false;
        }
        if evidence.steps > 0 && evidence.step_start_s < until_s && !evidence.is_empty() {
            return false;
        }
        let from_s = known.and_then(|l| l.from_s).or((evidence.steps > 0).then_some(evidence.step_start_s));
        let until_s = if evidence.steps > 0 { evidence.end_s().max(until_s) } else { until_s };
        self.lanes.insert(lane, Lane { from_s, until_s, ended: evidence.last });
        if evidence.is_empty() || self.next_s.is_some_and(|next| evidence.step_start_s < next) {
            return true;
        }
        let pool = self.pools.entry(evidence.step_start_s).or_default();
        for sum in &evidence.elements {
            pool.elements.entry(sum.element.clone()).and_modify(|kept| add(kept, sum)).or_insert_with(|| sum.clone());
        }
        pool.rows.extend(evidence.rows.iter().map(|row| (row.pair.clone(), row.clone())));
        true
    }

    /// Counts a lane as having spoken up to `until_s`. Returns up to where it counted before; `None` when that is as far,
    /// or it has ended.
    pub(super) fn skip(&mut self, lane: u16, until_s: i64) -> Option<i64> {
        let kept = self.lanes.entry(lane).or_insert(Lane { from_s: None, until_s: i64::MIN, ended: false });
        if kept.ended || kept.until_s >= until_s {
            return None;
        }
        Some(std::mem::replace(&mut kept.until_s, until_s))
    }

    /// A lane's input has ended, and what it said with that is not taken.
    pub(super) fn end(&mut self, lane: u16) {
        if let Some(kept) = self.lanes.get_mut(&lane) {
            kept.ended = true;
        }
    }

    /// Start of the next step, once every one of `lanes` has spoken. `Err` when there will never be another.
    pub(super) fn next(&mut self, lanes: u16, idle: bool) -> Result<Option<i64>, Finished> {
        if self.lanes.len() < usize::from(lanes) {
            return Ok(None);
        }
        let horizon = self.horizon();
        if self.next_s.is_none() {
            self.next_s = self.lanes.values().filter_map(|lane| lane.from_s).min();
        }
        let first_pool = self.pools.keys().next().copied();
        if first_pool.is_none() && horizon.is_none() {
            return Err(Finished);
        }
        let Some(next) = self.next_s else {
            return Ok(None);
        };
        if !idle {
            return Ok(Some(next));
        }
        // Nothing is open: steps of which nobody said anything need not be walked through.
        let skip_to = first_pool.into_iter().chain(horizon).min().unwrap_or(next).max(next);
        self.next_s = Some(skip_to);
        Ok(Some(skip_to))
    }

    /// End of the last step that was taken; unknown before the first.
    pub(super) fn taken_s(&self) -> Option<i64> {
        self.next_s
    }

    /// Takes the step that starts at `start_s` if every lane has spoken for it.
    pub(super) fn take(&mut self, start_s: i64, step_s: u32) -> Option<StepPool> {
        let end_s = start_s.saturating_add(i64::from(step_s));
        if self.horizon().is_some_and(|horizon| horizon < end_s) {
            return None;
        }
        self.next_s = Some(end_s);
        Some(self.pools.remove(&start_s).unwrap_or_default())
    }

    /// End of the last step for which every lane has spoken; `None` when all have ended.
    fn horizon(&self) -> Option<i64> {
        self.lanes.values().filter(|lane| !lane.ended).map(|lane| lane.until_s).min()
    }
}

/// All lanes have ended and everything they said was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finished;

fn add(kept: &mut ElementSum, other: &ElementSum) {
    kept.pairs = kept.pairs.saturating_add(other.pairs);
    kept.powered = kept.powered.saturating_add(other.powered);
    kept.against_mn = kept.against_mn.saturating_add(other.against_mn);
    kept.loss_mn = kept.loss_mn.saturating_add(other.loss_mn);
    kept.latency_mn = kept.latency_mn.saturating_add(other.latency_mn);
}
