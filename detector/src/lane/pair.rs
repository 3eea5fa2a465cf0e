//! One pair of a lane: its window, its tests, and what they make of a step.
//!
//! For: everything that needs only this pair.
//! Not for: the order of steps; see [`super::step`].
//! Invariant: a biased step changes the window and the totals, never a test.

use serde::{Deserialize, Serialize};

use crate::evidence::{Effect, POOLED, POOLED_SIGNALS, PairRow, Signal, SignalRow, Stage};
use crate::feed::FeedKind;
use crate::pane::PaneCell;
use crate::score::{ConnectTest, Judged, LatencyTest, RetransmitTest, SilenceTest, Split, StepInput};
use crate::season::{Level, Levels, Released, SlotBaseline, SlotCell};
use crate::settings::Settings;
use crate::topology::Pair;
use crate::window::Window;

use super::Totals;
use super::effect;

/// Nats above which a signal is told about.
const TOLD: f64 = 1.0;
/// Steps for which it is told about after its alarm ended.
const QUIET_STEPS: u8 = 5;
/// An alarm that nothing has renewed or contradicted for this long is dropped, s.
const FORGET_S: u32 = 900;
/// Time after which what a step said for the elements has faded to a third, s.
const FADE_S: f64 = 270.0;
const HOUR_S: u64 = 3_600;
const SEASON_DAYS: u8 = 7;
const SIGNALS: [Signal; 4] = [Signal::Connect, Signal::Retransmit, Signal::Latency, Signal::Silence];

/// Everything kept for one pair of one feed kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PairState {
    pub(crate) totals: Totals,
    pub(crate) window: Window,
    /// Its number in pages; 0 until it is judged for the first time.
    pub(crate) number: u32,
    /// The slot that is being filled.
    pub(crate) slot: SlotCell,
    /// What is usual in this slot.
    pub(super) season: Option<SlotBaseline>,
    pub(crate) levels: Levels,
    pub(super) first_s: Option<i64>,
    /// Steps with traffic that could be judged.
    pub(super) steps: u64,
    pub(super) connect: ConnectTest,
    pub(super) retransmit: RetransmitTest,
    pub(super) latency: LatencyTest,
    pub(super) silence: SilenceTest,
    pub(super) told: [Told; SIGNALS.len()],
    /// Faded sums of what the steps said about loss and latency, nats.
    pub(super) said: [f64; 2],
    pub(super) last_row: Option<PairRow>,
    /// What the known peers' flows tell of a part of them.
    pub(super) split: Split,
}

/// What was last said about a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Told {
    /// Steps for which it is still told about.
    left: u8,
    /// Seconds since it last had anything to judge.
    silent_s: u32,
}

/// What a pair says about a step.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) row: Option<PairRow>,
    /// Evidence of the last minutes, faded, for one middling fault, nats.
    pub(super) loss: f64,
    pub(super) latency: f64,
    /// Evidence of this step alone, by signal and fault, nats.
    pub(super) pooled: [[f64; POOLED]; POOLED_SIGNALS.len()],
}

impl PairState {
    /// Judges a step that starts at `start_s`; its panes are in the window already.
    pub(super) fn judge(&mut self, pair: &Pair, kind: FeedKind, cell: &PaneCell, start_s: i64, s: &Settings) -> Said {
        if cell.quality.is_biased() {
            let row = self.repeat(s.step_s()).map(|row| PairRow { truncated: true, ..row });
            return Said { row, ..Said::default() };
        }
        let stage = self.stage(s.step_s());
        let (class, season) = (pair.class(), self.season.take());
        let threshold = s.pair_threshold();
        let input = StepInput { cell, start_s, step_s: s.step_s(), threshold, class, stage, season: season.as_ref() };
        self.first_s.get_or_insert(start_s);
        self.steps = self.steps.saturating_add(1);
        self.slot.steps = self.slot.steps.saturating_add(1);
        self.slot.flows = self.slot.flows.saturating_add(cell.counters.flows);
        let slot = &mut self.slot;
        let connect = self.connect.judge(&StepInput { threshold: s.connect_threshold(), ..input }, slot);
        let (mut retransmit, mut latency, mut silence) = <(Judged, Judged, Judged)>::default();
        if kind == FeedKind::Reports {
            retransmit = self.retransmit.judge(&input, slot);
            latency = self.latency.judge(&input, slot, &mut self.split);
            silence = self.silence.judge(&input, slot);
        }
        let judged = [connect, retransmit, latency, silence];
        let mut signals = Vec::new();
        for (index, (signal, judged)) in SIGNALS.into_iter().zip(judged).enumerate() {
            self.forget(index, signal, judged.judged, s.step_s());
            if self.tell(index, signal) || judged.new_normal.is_some() {
                let threshold = if signal == Signal::Connect { s.connect_threshold() } else { threshold };
                let input = StepInput { threshold, ..input };
                signals.push(self.signal_row(signal, judged.new_normal.is_some(), &input));
            }
        }
        let row = (!signals.is_empty()).then(|| PairRow {
            pair: pair.clone(),
            flows: cell.counters.flows,
            segments: cell.counters.segments,
            top_flow_share_ppm: share_ppm(cell.max_retransmits, cell.counters.retransmits.total()),
            late_share_ppm: share_ppm(cell.quality.late, cell.quality.records),
            truncated: false,
            stage,
            signals,
        });
        self.last_row.clone_from(&row);
        let keep = (-f64::from(s.step_s()) / FADE_S).exp();
        for (sum, judged) in self.said.iter_mut().zip([retransmit, latency]) {
            *sum = *sum * keep + judged.pooled[1].clamp(-1.5, 3.0);
        }
        let pooled = [connect, retransmit, latency].map(|judged| judged.pooled);
        let said = Said { row, loss: self.said[0], latency: self.said[1], pooled };
        self.season = season;
        let until_s = start_s.saturating_add(i64::from(s.step_s()));
        for (signal, since) in SIGNALS.into_iter().zip(judged.map(|j| j.new_normal)) {
            if let Some(from_s) = since {
                self.settle(signal, Level { from_s, until_s });
            }
        }
        said
    }

    /// Takes up what is usual in a new slot.
    pub(super) fn take_up(&mut self, season: Option<SlotBaseline>) {
        self.season = season;
        if let Some(season) = &mut self.season {
            self.latency.complete(&mut season.rtt);
        }
    }

    /// A signal has gone to a lasting new level: what was usual before says nothing about it.
    fn settle(&mut self, signal: Signal, level: Level) {
        let mut nothing = SlotBaseline::default();
        let season = self.season.as_mut().unwrap_or(&mut nothing);
        match signal {
            Signal::Connect => {
                self.levels.connects = level;
                self.slot.release(Released::Connects);
                season.connects = Default::default();
            }
            Signal::Retransmit => {
                self.levels.loss = level;
                self.slot.release(Released::Loss);
                (season.segments, season.marked) = Default::default();
            }
            Signal::Latency => {
                self.levels.rtt = level;
                self.slot.release(Released::Rtt);
                season.rtt = Default::default();
            }
            Signal::Silence => {}
        }
    }

    /// A step without traffic, or one that cannot be judged: what was said stands, for a while.
    pub(super) fn repeat(&mut self, step_s: u32) -> Option<PairRow> {
        let mut row = self.last_row.take()?;
        for (index, signal) in SIGNALS.into_iter().enumerate() {
            self.forget(index, signal, false, step_s);
            let alarmed = self.alarmed(signal);
            if !self.tell(index, signal) {
                row.signals.retain(|r| r.signal != signal);
            }
            for r in row.signals.iter_mut().filter(|r| r.signal == signal) {
                r.alarmed = alarmed;
                r.new_normal = false;
            }
        }
        (row.flows, row.segments) = (0, 0);
        self.last_row = (!row.signals.is_empty()).then_some(row);
        self.last_row.clone()
    }

    /// Whether the pair must be told about also without traffic: what was told stands until it is contradicted or forgotten,
    /// and a pair that spoke in the window and is quiet is quiet also in the steps between its flows.
    pub(super) fn is_active(&self, oldest_s: i64) -> bool {
        self.last_row.is_some() || self.window.newest_s().is_some_and(|newest_s| newest_s >= oldest_s)
    }

    fn stage(&self, step_s: u32) -> Stage {
        match self.steps.saturating_mul(u64::from(step_s)) {
            s if s < HOUR_S => Stage::ClassPrior,
            _ => match &self.season {
                None => Stage::PairRate,
                Some(season) if season.days < SEASON_DAYS => Stage::DailySeason,
                Some(_) => Stage::Settled,
            },
        }
    }

    fn forget(&mut self, index: usize, signal: Signal, judged: bool, step_s: u32) {
        let told = &mut self.told[index];
        told.silent_s = if judged { 0 } else { told.silent_s.saturating_add(step_s) };
        if told.silent_s < FORGET_S {
            return;
        }
        match signal {
            Signal::Connect => self.connect.reset(),
            Signal::Retransmit => self.retransmit.reset(),
            Signal::Latency => self.latency.reset(),
            Signal::Silence => self.silence.reset(),
        }
    }

    fn tell(&mut self, index: usize, signal: Signal) -> bool {
        let (alarmed, score) = (self.alarmed(signal), self.score(signal));
        let told = &mut self.told[index];
        let was_told = told.left > 0;
        told.left = if alarmed { QUIET_STEPS } else { told.left.saturating_sub(1) };
        alarmed || was_told || score > TOLD
    }

    fn alarmed(&self, signal: Signal) -> bool {
        match signal {
            Signal::Connect => self.connect.cusum.alarmed(),
            Signal::Retransmit => self.retransmit.cusum.alarmed(),
            Signal::Latency => self.latency.alarmed(),
            Signal::Silence => self.silence.cusum.alarmed(),
        }
    }

    fn score(&self, signal: Signal) -> f64 {
        match signal {
            Signal::Connect => self.connect.cusum.score(),
            Signal::Retransmit => self.retransmit.cusum.score(),
            Signal::Latency => self.latency.score(&self.split),
            Signal::Silence => self.silence.cusum.score(),
        }
    }

    fn signal_row(&self, signal: Signal, new_normal: bool, input: &StepInput<'_>) -> SignalRow {
        let cusum = match signal {
            Signal::Connect => &self.connect.cusum,
            Signal::Retransmit => &self.retransmit.cusum,
            Signal::Latency => &self.latency.cusum,
            Signal::Silence => &self.silence.cusum,
        };
        let since_s = cusum.since_s();
        let age = self.first_s.map_or(0, |first| input.start_s.saturating_sub(first)).max(0);
        let (cell, panes) = self.window.since(since_s);
        let effect = Effect {
            baseline_age_s: age.unsigned_abs(),
            observed_s: panes.saturating_mul(self.window.pane_s()),
            ..self.effect(signal, input, &cell, panes)
        };
        SignalRow {
            signal,
            score_mn: milli_nats(self.score(signal)),
            threshold_mn: milli_nats(input.threshold),
            alarmed: self.alarmed(signal),
            new_normal,
            since_s,
            effect,
        }
    }

    fn effect(&self, signal: Signal, input: &StepInput<'_>, cell: &PaneCell, panes: u32) -> Effect {
        let (class, season) = (input.class, input.season);
        let counters = &cell.counters;
        match signal {
            Signal::Connect => {
                let (test, failures) = (&self.connect, counters.failures());
                effect::of_rate(failures, counters.attempts(), test.baseline(class, season), test.dispersion(class))
            }
            Signal::Retransmit => {
                let (test, sent_again) = (&self.retransmit, counters.data_retransmits());
                effect::of_rate(sent_again, counters.segments, test.baseline(class, season), test.dispersion(class))
            }
            Signal::Silence => {
                let steps = f64::from(panes.saturating_mul(self.window.pane_s())) / f64::from(input.step_s);
                effect::of_traffic(counters.flows, self.silence.expected(input) * steps, self.silence.behind(input))
            }
            Signal::Latency => {
                let q = self.latency.telling_quantile();
                effect::of_latency(cell, q, self.latency.baseline(q, season))
            }
        }
    }
}

/// Nats as an integer, the form in which evidence leaves a lane.
pub(super) fn milli_nats(nats: f64) -> i64 {
    (nats * 1_000.0).round() as i64
}

fn share_ppm(part: u64, whole: u64) -> u32 {
    let share = u128::from(part) * 1_000_000 / u128::from(whole.max(1));
    u32::try_from(share.min(1_000_000)).unwrap_or(1_000_000)
}
