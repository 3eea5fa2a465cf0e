//! One pair in one slot of one day.
//!
//! For: what is summed up while a slot passes, and kept in its page.
//! Not for: judging.
//! Invariant: every judged step is in the learned or in the held sums of a signal: held when the signal's own score said
//! that something is wrong. What is held counts only when it comes back day after day (see `pool`).

use serde::{Deserialize, Serialize};

use super::bins::Bins;

/// Events among trials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    pub(crate) trials: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.events = self.events.saturating_add(other.events);
        self.trials = self.trials.saturating_add(other.trials);
    }
}

/// What was learned, and what was held back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Split<T> {
    pub(crate) learned: T,
    pub(crate) held: T,
}

impl<T> Split<T> {
    pub(crate) fn side(&mut self, held: bool) -> &mut T {
        if held { &mut self.held } else { &mut self.learned }
    }
}

/// Sums over one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotCell {
    /// Steps with traffic.
    pub(crate) steps: u32,
    /// Flow records in them.
    pub(crate) flows: u64,
    /// Retransmitted segments among segments.
    pub(crate) segments: Split<Tally>,
    /// Flows with a retransmission among flows.
    pub(crate) marked: Split<Tally>,
    /// Failures among connection attempts.
    pub(crate) connects: Split<Tally>,
    /// Timeouts, over flows.
    pub(crate) timeouts: Split<Tally>,
    /// Round-trip times.
    pub(crate) rtt: Split<Bins>,
}

impl SlotCell {
    pub(crate) fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// A lasting new level: what was held of it is learned.
    pub(crate) fn release(&mut self, what: Released) {
        let move_over = |split: &mut Split<Tally>| {
            let held = std::mem::take(&mut split.held);
            split.learned.add(held);
        };
        match what {
            Released::Loss => {
                move_over(&mut self.segments);
                move_over(&mut self.marked);
            }
            Released::Connects => move_over(&mut self.connects),
            Released::Rtt => {
                let held = std::mem::take(&mut self.rtt.held);
                self.rtt.learned.add(&held);
            }
        }
    }
}

/// Which sums are released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Released {
    Loss,
    Connects,
    Rtt,
}
