//! The sliding window of one pair: its newest panes.
//!
//! For: display, quantiles and effect sizes.
//! Not for: evidence. Windows overlap from step to step and would count every pane several times.
//! Invariant: a pane leaves when the window's end has moved past it; sums are made when somebody asks, so what has left
//! was never in them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::pane::{Counters, PaneCell, RttCell};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    panes: VecDeque<(i64, PaneCell)>,
    pane_s: u32,
}

/// As version 2 of the lane state had it: with two of its sums.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct WindowV2 {
    panes: VecDeque<(i64, PaneCell)>,
    #[serde(rename = "counters")]
    _counters: Counters,
    #[serde(rename = "rtt")]
    _rtt: RttCell,
    pane_s: u32,
}

impl From<WindowV2> for Window {
    fn from(old: WindowV2) -> Self {
        Self { panes: old.panes, pane_s: old.pane_s }
    }
}

impl Window {
    /// Adds a pane that is younger than all others.
    pub(crate) fn push(&mut self, start_s: i64, cell: &PaneCell, pane_s: u32) {
        self.pane_s = pane_s;
        debug_assert!(self.panes.back().is_none_or(|(last, _)| *last < start_s));
        self.panes.push_back((start_s, cell.clone()));
    }

    /// Length of its panes, s; 0 before the first.
    pub(crate) fn pane_s(&self) -> u32 {
        self.pane_s
    }

    /// Drops the panes that start before `oldest_s`.
    pub(crate) fn expire(&mut self, oldest_s: i64) {
        while self.panes.front().is_some_and(|(start, _)| *start < oldest_s) {
            self.panes.pop_front();
        }
    }

    /// Start of its newest pane, epoch s.
    pub(crate) fn newest_s(&self) -> Option<i64> {
        self.panes.back().map(|(start, _)| *start)
    }

    /// Flow records in the panes that start at or after `oldest_s`.
    pub(crate) fn flows(&self, oldest_s: i64) -> u64 {
        let inside = self.panes.iter().filter(|(start, _)| *start >= oldest_s);
        inside.fold(0, |sum, (_, cell)| sum.saturating_add(cell.counters.flows))
    }

    /// Sum of the panes that start at or after `from_s`; of all when there is none. Also their number.
    pub(crate) fn since(&self, from_s: i64) -> (PaneCell, u32) {
        let from_s = if self.panes.back().is_some_and(|(last, _)| *last >= from_s) { from_s } else { i64::MIN };
        let mut sum = PaneCell::default();
        let mut panes = 0;
        for (_, cell) in self.panes.iter().filter(|(start, _)| *start >= from_s) {
            sum.merge(cell);
            panes += 1;
        }
        (sum, panes)
    }

    /// What is in the window that ends where the panes from `oldest_s` on end. A pair without traffic is not touched by
    /// the steps, so older panes may still be here.
    pub(crate) fn view(&self, oldest_s: i64) -> Option<WindowView> {
        let inside = || self.panes.iter().filter(|(start, _)| *start >= oldest_s);
        let (oldest_pane_s, newest_pane_s) = (inside().next()?.0, self.panes.back()?.0);
        let mut cell = PaneCell::default();
        inside().for_each(|(_, pane)| cell.merge(pane));
        Some(WindowView { oldest_pane_s, newest_pane_s, cell })
    }
}

/// The sum of the panes in a pair's sliding window.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowView {
    /// Start of the oldest pane with traffic, epoch s.
    pub oldest_pane_s: i64,
    /// Start of the newest pane with traffic, epoch s.
    pub newest_pane_s: i64,
    /// Everything in them, summed.
    pub cell: PaneCell,
}

impl WindowView {
    /// Round-trip time quantile in µs (`q` 0..=1); `None` when nothing was measured.
    pub fn rtt_quantile_us(&self, q: f64) -> Option<u64> {
        self.cell.rtt.quantile(q)
    }

    /// Share of segments that were retransmitted, 0..=1; `None` without segments.
    pub fn retransmit_ratio(&self) -> Option<f64> {
        let counters = &self.cell.counters;
        (counters.segments > 0).then(|| counters.data_retransmits() as f64 / counters.segments as f64)
    }
}
