//! Steps for which a lane is not waited for, and what it says of them too late.
//!
//! For: telling evidence that comes too late from a repeat, and a step that lacks a lane from one in which nothing was seen.
//! Not for: waiting; a skipped lane counts as having spoken (see [`super::progress`]).
//! Invariant: a skipped step is counted as late once, however often its evidence comes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evidence::StepEvidence;
use crate::feed::FeedKind;

/// What is skipped now, and what came too late so far. Stored beside the correlator's own state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skips {
    gaps: BTreeMap<(FeedKind, u16), Gap>,
    /// Steps of evidence dropped because their lane had been skipped for them.
    pub late_steps: u64,
}

/// Steps of one lane, epoch s: skipped from `begin_s` to `until_s`, of which it has spoken up to `told_s` since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Gap {
    begin_s: i64,
    told_s: i64,
    until_s: i64,
}

impl Skips {
    /// Lanes that have not spoken yet for all that they were skipped for, each with its feed kind and the end of its last
    /// skipped step (epoch s).
    pub fn waiting(&self) -> impl Iterator<Item = (FeedKind, u16, i64)> + '_ {
        let open = self.gaps.iter().filter(|(_, gap)| gap.told_s < gap.until_s);
        open.map(|((kind, lane), gap)| (*kind, *lane, gap.until_s))
    }

    /// A lane that counted as having spoken up to `from_s` is skipped up to `until_s`.
    pub(super) fn add(&mut self, kind: FeedKind, lane: u16, from_s: i64, until_s: i64) {
        let new = Gap { begin_s: from_s, told_s: from_s, until_s };
        let gap = self.gaps.entry((kind, lane)).or_insert(new);
        if gap.told_s >= gap.until_s {
            *gap = new;
        }
        gap.until_s = gap.until_s.max(until_s);
    }

    /// Whether evidence is about steps its lane was skipped for and has not spoken for yet: then it is counted and to be
    /// dropped. A run of empty steps that goes on beyond them is not; it ends the gap.
    pub(super) fn is_late(&mut self, lane: u16, evidence: &StepEvidence) -> bool {
        let Some(gap) = self.gaps.get_mut(&(evidence.kind, lane)) else { return false };
        let end_s = evidence.end_s();
        if evidence.steps == 0 || evidence.step_start_s >= gap.until_s || end_s <= gap.told_s {
            return false;
        }
        gap.told_s = end_s.min(gap.until_s);
        if end_s > gap.until_s {
            return false;
        }
        self.late_steps = self.late_steps.saturating_add(evidence.steps);
        true
    }

    /// Whether a lane is not in the step that starts at `start_s`.
    pub(super) fn covers(&self, kind: FeedKind, start_s: i64) -> bool {
        let of_kind = self.gaps.range((kind, 0)..=(kind, u16::MAX));
        of_kind.into_iter().any(|(_, gap)| gap.begin_s <= start_s && start_s < gap.until_s)
    }

    /// Forgets gaps that are told and taken: the steps up to `taken_s` are.
    pub(super) fn forget(&mut self, kind: FeedKind, taken_s: i64) {
        self.gaps.retain(|(k, _), gap| *k != kind || gap.told_s < gap.until_s || gap.until_s > taken_s);
    }
}
