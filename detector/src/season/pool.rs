//! Many cells of one pair make the baseline of a slot.
//!
//! For: the sums over the same time of day, its neighbours and the past days.
//! Not for: drawing them to the pair's own level and to its path class; the tests do that.
//! Method: a cell that has several times the usual events of its slot is cut (a fault nobody noticed); what was held back
//! counts once it came back on two days and on a third of all (a nightly job, not a fault).
//! Invariant: what lies before a lasting new level of a signal says nothing about it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::cell::{Split, Tally};
use super::{SLOT_S, SlotCell};
use crate::score::{Counts, Histogram};

/// Multiples of the slot's median rate, and events beyond, that a cell may have.
const USUAL: f64 = 3.0;
const USUAL_EVENTS: f64 = 20.0;

/// Stretch in which a signal went to a lasting new level, epoch s: when the change began and when it was accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Level {
    pub(crate) from_s: i64,
    pub(crate) until_s: i64,
}

/// The levels in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Levels {
    pub(crate) loss: Level,
    pub(crate) connects: Level,
    pub(crate) rtt: Level,
}

impl Level {
    fn forgets(&self, slot: i64) -> bool {
        slot.saturating_add(1).saturating_mul(SLOT_S) <= self.from_s
    }

    fn releases(&self, slot: i64) -> bool {
        self.until_s > 0 && !self.forgets(slot) && slot.saturating_mul(SLOT_S) < self.until_s
    }
}

/// What a pair usually does in the slot in use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlotBaseline {
    /// Days with traffic at this time of day.
    pub(crate) days: u8,
    pub(crate) segments: Counts,
    pub(crate) marked: Counts,
    pub(crate) connects: Counts,
    pub(crate) timeouts: Counts,
    /// Flow records over steps with traffic.
    pub(crate) traffic: Counts,
    pub(crate) rtt: Histogram,
}

/// One cell of the past: its slot, how many days ago, which of the three neighbours.
pub(crate) struct Past<'a> {
    pub(crate) slot: i64,
    pub(crate) day: i64,
    pub(crate) neighbour: usize,
    pub(crate) cell: &'a SlotCell,
}

impl SlotBaseline {
    /// `None` without any cell.
    pub(crate) fn pool(past: &[Past<'_>], levels: &Levels) -> Option<Self> {
        let days: BTreeSet<i64> = past.iter().map(|p| p.day).collect();
        if days.is_empty() {
            return None;
        }
        let mut made = Self {
            days: u8::try_from(days.len()).unwrap_or(u8::MAX),
            segments: pool(past, &levels.loss, |cell| &cell.segments),
            marked: pool(past, &levels.loss, |cell| &cell.marked),
            connects: pool(past, &levels.connects, |cell| &cell.connects),
            timeouts: pool(past, &levels.loss, |cell| &cell.timeouts),
            ..Self::default()
        };
        let recurs = recurs(past, |cell| (!cell.rtt.learned.is_empty(), !cell.rtt.held.is_empty()));
        for p in past {
            made.traffic.events += p.cell.flows as f64;
            made.traffic.trials += f64::from(p.cell.steps);
            if levels.rtt.forgets(p.slot) {
                continue;
            }
            made.rtt.put_all(p.cell.rtt.learned.iter());
            if recurs || levels.rtt.releases(p.slot) {
                made.rtt.put_all(p.cell.rtt.held.iter());
            }
        }
        Some(made)
    }
}

fn pool(past: &[Past<'_>], level: &Level, of: fn(&SlotCell) -> &Split<Tally>) -> Counts {
    let recurs = recurs(past, |cell| (of(cell).learned.trials > 0, of(cell).held.trials > 0));
    let mut sums: Vec<(usize, Tally)> = Vec::with_capacity(past.len());
    for p in past.iter().filter(|p| !level.forgets(p.slot)) {
        let mut sum = of(p.cell).learned;
        if recurs || level.releases(p.slot) {
            sum.add(of(p.cell).held);
        }
        if sum.trials > 0 {
            sums.push((p.neighbour, sum));
        }
    }
    let mut pooled = Counts::default();
    for neighbour in 0..3 {
        let cells: Vec<Tally> = sums.iter().filter(|(n, _)| *n == neighbour).map(|(_, sum)| *sum).collect();
        let usual = median_rate(&cells);
        for cell in &cells {
            let trials = cell.trials as f64;
            pooled.events += (cell.events as f64).min(usual.map_or(f64::MAX, |r| USUAL * r * trials + USUAL_EVENTS));
            pooled.trials += trials;
        }
    }
    pooled
}

/// The median over days; unknown with fewer than three, when nobody can tell which one is unusual.
fn median_rate(cells: &[Tally]) -> Option<f64> {
    let mut rates: Vec<f64> = cells.iter().map(|c| c.events as f64 / c.trials as f64).collect();
    rates.sort_by(f64::total_cmp);
    (rates.len() >= 3).then(|| rates[rates.len() / 2])
}

/// Whether what was held back comes back day after day.
fn recurs(past: &[Past<'_>], has: impl Fn(&SlotCell) -> (bool, bool)) -> bool {
    let (mut all, mut held) = (BTreeSet::new(), BTreeSet::new());
    for p in past {
        let (learned, kept_back) = has(p.cell);
        if learned || kept_back {
            all.insert(p.day);
        }
        if kept_back {
            held.insert(p.day);
        }
    }
    held.len() >= 2 && held.len() * 3 >= all.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(events: u64, held: u64) -> SlotCell {
        let side = |events, trials| Tally { events, trials };
        let segments = Split { learned: side(events, 10_000), held: side(held, if held > 0 { 5_000 } else { 0 }) };
        SlotCell { steps: 15, flows: 300, segments, ..SlotCell::default() }
    }

    fn pooled(cells: &[SlotCell], levels: &Levels) -> SlotBaseline {
        let past: Vec<Past<'_>> =
            (1..).zip(cells).map(|(day, cell)| Past { slot: 10_000 - day * 96, day, neighbour: 1, cell }).collect();
        SlotBaseline::pool(&past, levels).unwrap()
    }

    #[test]
    fn a_day_that_was_far_from_the_others_does_not_become_the_baseline() {
        let made = pooled(&[cell(10, 0), cell(12, 0), cell(900, 0), cell(9, 0)], &Levels::default());
        assert!(made.segments.events < 90.0, "{made:?}");
        assert_eq!((made.days, made.segments.trials), (4, 40_000.0));
    }

    #[test]
    fn a_fault_of_one_day_is_not_learned_and_a_job_that_comes_every_night_is() {
        let fault = pooled(&[cell(10, 0), cell(10, 500), cell(10, 0)], &Levels::default());
        assert_eq!(fault.segments, Counts { events: 30.0, trials: 30_000.0 });
        let job = pooled(&[cell(10, 200), cell(10, 200), cell(10, 200)], &Levels::default());
        assert_eq!(job.segments, Counts { events: 630.0, trials: 45_000.0 });
    }

    #[test]
    fn days_before_a_lasting_new_level_are_forgotten_and_what_was_held_since_counts() {
        let loss = Level { from_s: (10_000 - 2 * 96) * SLOT_S, until_s: (10_000 - 96) * SLOT_S };
        let made = pooled(&[cell(10, 0), cell(0, 80), cell(500, 0)], &Levels { loss, ..Levels::default() });
        assert_eq!(made.segments, Counts { events: 90.0, trials: 25_000.0 });
    }
}
