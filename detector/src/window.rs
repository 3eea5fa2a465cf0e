//! The sliding window of one pair: the sum of its newest panes.
//!
//! For: display, quantiles and effect sizes.
//! Not for: evidence. Windows overlap from step to step and would count every pane several times.
//! Invariant: the kept sum equals the sum of the kept panes; a pane leaves when the window's end has moved past it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::pane::{Counters, PaneCell, RttCell};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    panes: VecDeque<(i64, PaneCell)>,
    counters: Counters,
    rtt: RttCell,
}

impl Window {
    /// Adds a pane that is younger than all others.
    pub(crate) fn push(&mut self, start_s: i64, cell: &PaneCell) {
        debug_assert!(self.panes.back().is_none_or(|(last, _)| *last < start_s));
        self.counters.add(&cell.counters);
        self.rtt.merge(&cell.rtt);
        self.panes.push_back((start_s, cell.clone()));
    }

    /// Drops the panes that start before `oldest_s`.
    pub(crate) fn expire(&mut self, oldest_s: i64) {
        while self.panes.front().is_some_and(|(start, _)| *start < oldest_s) {
            if let Some((_, cell)) = self.panes.pop_front() {
                self.counters.subtract(&cell.counters);
                self.rtt.subtract(&cell.rtt);
            }
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn rtt(&self) -> &RttCell {
        &self.rtt
    }

    pub(crate) fn max_retransmits(&self) -> u64 {
        self.panes.iter().map(|(_, cell)| cell.max_retransmits).max().unwrap_or(0)
    }

    pub(crate) fn view(&self) -> Option<WindowView> {
        let start_s = self.panes.front()?.0;
        let mut cell = PaneCell { counters: self.counters, rtt: self.rtt.clone(), ..PaneCell::default() };
        let (mut low, mut high) = (None, None);
        for (_, pane) in &self.panes {
            cell.max_retransmits = cell.max_retransmits.max(pane.max_retransmits);
            cell.peers.merge(&pane.peers);
            cell.quality.merge(&pane.quality);
            low = fold(low, pane.rtt.min_us(), u64::min);
            high = fold(high, pane.rtt.max_us(), u64::max);
        }
        cell.rtt.set_extremes(low, high);
        Some(WindowView { oldest_pane_s: start_s, newest_pane_s: self.panes.back()?.0, cell })
    }
}

fn fold(kept: Option<u64>, new: Option<u64>, pick: fn(u64, u64) -> u64) -> Option<u64> {
    match (kept, new) {
        (Some(a), Some(b)) => Some(pick(a, b)),
        (a, b) => a.or(b),
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
