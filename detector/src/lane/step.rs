//! The steps of one feed kind of a lane, in order.
//!
//! For: deciding which steps are due, judging each once, and adding up the quiet pairs.
//! Not for: what a single pair says; see [`super::pair`].
//! Invariant: `next_step_s` only grows; a judged pane is gone from `open`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::evidence::{ElementSum, PairRow, PooledSum, StepEvidence};
use crate::feed::FeedKind;
use crate::pane::PaneCell;
use crate::season::Shelf;
use crate::settings::Settings;
use crate::topology::{Element, Pair};

use super::FeedState;
use super::pair::{PairState, Said, milli_nats};

/// Rows kept per step, so that its evidence stays under 64 KB (a row takes up to 300 bytes); the weakest are left out.
const MAX_ROWS: usize = 128;
/// Flow records a minute from which a quiet pair could have shown a fault.
const POWERED: f64 = 5.0;
/// Nats a quiet pair counts against a fault of its elements, reached at this many flow records a minute.
const AGAINST: f64 = 1.5;
const AGAINST_FULL: f64 = 20.0;
/// Share of its pairs that a fault of an element hits, and the most nats that one pair says for it in one step.
const HIT: f64 = 0.5;
const MOST_POOLED: f64 = 3.0;

impl FeedState {
    pub(super) fn close(
        &mut self,
        kind: FeedKind,
        watermark_ms: i64,
        settings: &Settings,
        shelf: &mut Shelf,
    ) -> Vec<StepEvidence> {
        let mut said = Vec::new();
        // Before the epoch no step is due: such a watermark says that nothing is known yet.
        if self.ended || watermark_ms < 0 {
            return said;
        }
        let step_s = i64::from(settings.step_s());
        let floor = |s: i64| s.div_euclid(step_s).saturating_mul(step_s);
        let ends = watermark_ms == i64::MAX;
        let due_s = if ends {
            self.open.keys().next_back().map(|&pane| floor(pane).saturating_add(step_s))
        } else {
            Some(floor(watermark_ms.div_euclid(1_000)))
        };
        let first_open = |feed: &Self| feed.open.keys().next().map(|&pane| floor(pane));
        if let Some(due_s) = due_s {
            // A lane that has seen nothing yet speaks for the step just over, so that nobody waits for it.
            let start = first_open(self).unwrap_or(i64::MAX).min(due_s.saturating_sub(step_s));
            let mut next = self.next_step_s.unwrap_or(start);
            while next < due_s {
                let open_s = first_open(self).unwrap_or(due_s).min(due_s);
                if open_s > next && self.active.is_empty() {
                    said.push(empty(kind, next, settings, (open_s - next) / step_s));
                    next = open_s;
                } else {
                    said.push(self.judge(kind, next, settings, shelf));
                    next = next.saturating_add(step_s);
                }
            }
            self.next_step_s = Some(next);
        }
        if ends {
            self.ended = true;
            let start = self.next_step_s.unwrap_or(0);
            said.push(StepEvidence { last: true, ..empty(kind, start, settings, 0) });
        }
        said
    }

    fn judge(&mut self, kind: FeedKind, start_s: i64, settings: &Settings, shelf: &mut Shelf) -> StepEvidence {
        let end_s = start_s.saturating_add(i64::from(settings.step_s()));
        let cells = self.take_cells(end_s, settings);
        if !cells.is_empty() {
            self.enter_slot(kind, start_s, shelf);
        }
        let window_s = i64::from(settings.window_s());
        let oldest_s = end_s.saturating_sub(window_s);
        // What of it is still in the window of the next step.
        let next_oldest_s = oldest_s.saturating_add(i64::from(settings.step_s()));
        let per_minute = |state: &PairState| state.window.flows(oldest_s) as f64 * 60.0 / window_s as f64;
        let mut rows = Vec::new();
        let mut sums = Sums::default();
        for (pair, cell) in &cells {
            let Some(state) = self.pairs.get_mut(pair) else { continue };
            if state.number == 0 {
                self.numbered = self.numbered.saturating_add(1);
                state.number = self.numbered;
            }
            let said = state.judge(pair, kind, cell, start_s, settings);
            if !state.is_active(next_oldest_s) {
                self.active.remove(pair);
            } else if !self.active.contains(pair) {
                self.active.insert(pair.clone());
            }
            if !cell.quality.is_biased() {
                sums.add(pair, per_minute(state), &said);
            }
            rows.extend(said.row);
        }
        let silent: Vec<Pair> = self.active.iter().filter(|pair| !cells.contains_key(*pair)).cloned().collect();
        for pair in silent {
            let Some(state) = self.pairs.get_mut(&pair) else { continue };
            match state.repeat(settings.step_s()) {
                Some(row) => rows.push(row),
                None => sums.add_quiet(&pair, per_minute(state)),
            }
            if !state.is_active(next_oldest_s) {
                self.active.remove(&pair);
            }
        }
        let rows_left_out = bound(&mut rows);
        let mut evidence = empty(kind, start_s, settings, 1);
        (evidence.elements, evidence.pooled) = sums.finish();
        evidence.rows = rows;
        evidence.rows_left_out = rows_left_out;
        evidence
    }

    /// Takes the panes that start before `end_s`, passes them through the windows, and sums them per pair.
    fn take_cells(&mut self, end_s: i64, settings: &Settings) -> BTreeMap<Pair, PaneCell> {
        let mut cells: BTreeMap<Pair, PaneCell> = BTreeMap::new();
        let oldest_s = end_s.saturating_sub(i64::from(settings.window_s()));
        while let Some(entry) = self.open.first_entry() {
            if *entry.key() >= end_s {
                break;
            }
            let (pane_s, pane) = entry.remove_entry();
            for (pair, cell) in &pane.cells {
                let state = match self.pairs.get_mut(pair) {
                    Some(state) => state,
                    None => self.pairs.entry(pair.clone()).or_default(),
                };
                state.window.push(pane_s, cell, settings.pane_s());
                state.window.expire(oldest_s);
            }
            if cells.is_empty() {
                cells = pane.cells;
                continue;
            }
            for (pair, cell) in pane.cells {
                match cells.entry(pair) {
                    Entry::Occupied(mut sum) => sum.get_mut().merge(&cell),
                    Entry::Vacant(first) => _ = first.insert(cell),
                }
            }
        }
        cells
    }
}

fn empty(kind: FeedKind, step_start_s: i64, settings: &Settings, steps: i64) -> StepEvidence {
    StepEvidence {
        kind,
        step_start_s,
        step_s: settings.step_s(),
        steps: steps.unsigned_abs(),
        last: false,
        elements: Vec::new(),
        pooled: Vec::new(),
        rows: Vec::new(),
        rows_left_out: 0,
    }
}

/// Sorts the rows by pair and leaves out the weakest beyond the bound; says how many.
fn bound(rows: &mut Vec<PairRow>) -> u32 {
    let left_out = rows.len().saturating_sub(MAX_ROWS);
    if left_out > 0 {
        let strength = |row: &PairRow| row.signals.iter().map(|s| (s.alarmed, s.score_mn)).max();
        rows.sort_by(|a, b| strength(b).cmp(&strength(a)).then_with(|| a.pair.cmp(&b.pair)));
        rows.truncate(MAX_ROWS);
    }
    rows.sort_by(|a, b| a.pair.cmp(&b.pair));
    u32::try_from(left_out).unwrap_or(u32::MAX)
}

#[derive(Debug, Default)]
struct Sums(BTreeMap<Element, (ElementSum, PooledSum)>);

impl Sums {
    fn add(&mut self, pair: &Pair, per_minute: f64, said: &Said) {
        if said.row.is_none() {
            self.add_quiet(pair, per_minute);
        }
        let clipped = |nats: f64| milli_nats(nats.clamp(-4.0, 4.0));
        let pooled = said.pooled.map(|faults| {
            faults.map(|nats| milli_nats(((1.0 - HIT) + HIT * nats.min(50.0).exp()).ln().min(MOST_POOLED)))
        });
        for element in pair.elements() {
            let (sum, together) = self.0.entry(element).or_insert_with_key(nothing_about);
            sum.loss_mn += clipped(said.loss);
            sum.latency_mn += clipped(said.latency);
            together.add(&pooled, &pooled);
        }
    }

    /// Counts a quiet pair of so many flow records a minute against a fault of its elements.
    fn add_quiet(&mut self, pair: &Pair, per_minute: f64) {
        for element in pair.elements() {
            let (sum, _) = self.0.entry(element).or_insert_with_key(nothing_about);
            sum.pairs += 1;
            sum.powered += u32::from(per_minute >= POWERED);
            sum.against_mn += milli_nats(AGAINST * (per_minute / AGAINST_FULL).min(1.0));
        }
    }

    fn finish(self) -> (Vec<ElementSum>, Vec<PooledSum>) {
        let (elements, mut pooled): (Vec<_>, Vec<_>) = self.0.into_values().unzip();
        pooled.retain(|sum| !sum.is_zero());
        (elements, pooled)
    }
}

fn nothing_about(element: &Element) -> (ElementSum, PooledSum) {
    let sum = ElementSum { element: element.clone(), pairs: 0, powered: 0, against_mn: 0, loss_mn: 0, latency_mn: 0 };
    (sum, PooledSum::nothing(element.clone()))
}
