//! What a lane remembers.
//!
//! For: storing a lane and taking it up again elsewhere.
//! Not for: reading statistics; use [`super::LaneDetector`].
//! Invariant: restoring and going on equals never having stopped.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::pair::PairState;
use crate::feed::FeedKind;
use crate::map;
use crate::pane::{Counters, PaneCell};
use crate::season::PageIndex;
use crate::topology::Pair;

/// Why stored state was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// The state was made with other lengths of panes or steps.
    #[error(
        "state has panes of {state_pane_s} s and steps of {state_step_s} s, settings say {pane_s} s and {step_s} s"
    )]
    Lengths {
        /// Pane length of the state, s.
        state_pane_s: u32,
        /// Step length of the state, s.
        state_step_s: u32,
        /// Pane length of the settings, s.
        pane_s: u32,
        /// Step length of the settings, s.
        step_s: u32,
    },
}

/// What became of a pane that was merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeOutcome {
    /// It will enter the evidence of its step.
    Accepted,
    /// Its step was judged already; nothing of it was taken, and the state counts it.
    Closed,
    /// Its start is not a multiple of the pane length; nothing of it was taken, and the state counts it.
    Misaligned,
}

/// Sums over all panes ever accepted for a pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Partial panes merged.
    pub panes: u64,
    /// Records in them.
    pub records: u64,
    /// Their counters.
    pub counters: Counters,
    /// Flow records with a round-trip time.
    pub rtt_n: u64,
    /// Start of the earliest pane, epoch s.
    pub first_pane_s: Option<i64>,
    /// Start of the latest pane, epoch s.
    pub last_pane_s: Option<i64>,
}

impl Totals {
    pub(crate) fn add(&mut self, pane_start_s: i64, cell: &PaneCell) {
        self.panes = self.panes.saturating_add(1);
        self.records = self.records.saturating_add(cell.quality.records);
        self.counters.add(&cell.counters);
        self.rtt_n = self.rtt_n.saturating_add(cell.rtt.n());
        self.first_pane_s = Some(self.first_pane_s.map_or(pane_start_s, |x| x.min(pane_start_s)));
        self.last_pane_s = Some(self.last_pane_s.map_or(pane_start_s, |x| x.max(pane_start_s)));
    }
}

/// Panes of one start time by pair.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenPane {
    #[serde(with = "map")]
    pub(crate) cells: BTreeMap<Pair, PaneCell>,
}

/// What a lane remembers of one feed kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FeedState {
    /// Start of the next step to be judged; unknown before the first close.
    pub(crate) next_step_s: Option<i64>,
    pub(crate) open: BTreeMap<i64, OpenPane>,
    #[serde(with = "map")]
    pub(crate) pairs: BTreeMap<Pair, PairState>,
    /// Pairs that are told about also without traffic: those that lean, and those that spoke in the sliding window.
    pub(crate) active: BTreeSet<Pair>,
    pub(crate) ended: bool,
    /// The slot that is being filled and whose baselines are in use.
    pub(crate) slot: Option<i64>,
    /// The finished slots that have a page.
    pub(crate) index: PageIndex,
    /// Pairs that were given a number so far; pages know pairs by number.
    pub(crate) numbered: u32,
    /// Partial panes refused because their step was judged already.
    pub refused_closed: u64,
    /// Partial panes refused because their start was not a multiple of the pane length.
    pub refused_misaligned: u64,
}

/// What a lane remembers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneState {
    pub(crate) pane_s: u32,
    pub(crate) step_s: u32,
    pub(crate) feeds: BTreeMap<FeedKind, FeedState>,
}

impl LaneState {
    /// The state of one feed kind, if anything was ever heard of it.
    pub fn feed(&self, kind: FeedKind) -> Option<&FeedState> {
        self.feeds.get(&kind)
    }

    /// Sums over all panes ever accepted, by feed kind and pair.
    pub fn totals(&self) -> impl Iterator<Item = (FeedKind, &Pair, &Totals)> + '_ {
        self.feeds.iter().flat_map(|(&kind, feed)| feed.pairs.iter().map(move |(pair, s)| (kind, pair, &s.totals)))
    }
}

impl FeedState {
    /// End of the last judged step, epoch s; `None` before the first.
    pub fn judged_until_s(&self) -> Option<i64> {
        self.next_step_s
    }

    /// Number of pairs ever heard of.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }
}
