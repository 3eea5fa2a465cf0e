//! The correlator's surface: apply evidence, advance, store.
//!
//! For: the one type the owner of the evidence stream talks to.
//! Not for: the rules of incidents.
//! Invariant: see [`super`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{AnomalyEvent, IncidentId};
use crate::evidence::{Signal, StepEvidence};
use crate::feed::FeedKind;
use crate::lane::StateError;
use crate::settings::Settings;

use super::incident::Incident;
use super::life;
use super::progress::{Finished, Progress};
use super::skips::Skips;
use super::together::Together;
use super::view::View;
use super::words::{Outcome, Word, Words};

/// What became of a piece of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was taken.
    Taken,
    /// This lane has spoken for these steps already: dropped and counted.
    Repeated,
    /// The lane was skipped for these steps: its evidence comes too late, is dropped and counted.
    Skipped,
    /// The lane number, the feed kind or the step length is not of this job: dropped and counted.
    Foreign,
}

/// What the correlator remembers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CorrelatorState {
    pub(crate) step_s: u32,
    pub(crate) lanes: u16,
    pub(crate) feeds: BTreeMap<FeedKind, Progress>,
    /// Open incidents and those resolved a short while ago, in the order of their first opening.
    pub(crate) incidents: Vec<Incident>,
    /// Evidence dropped because its lane had spoken for the step already.
    pub repeated: u64,
    /// Evidence dropped because it is not of this job.
    pub foreign: u64,
}

impl CorrelatorState {
    /// Ids of the incidents that are open now, in the order of their first opening.
    pub fn open_incidents(&self) -> impl Iterator<Item = &IncidentId> + '_ {
        self.incidents.iter().filter(|incident| incident.resolved_s.is_none()).map(|incident| &incident.id)
    }
}

/// Single owner of incidents.
#[derive(Debug, Clone)]
pub struct Correlator {
    settings: Settings,
    state: CorrelatorState,
    skips: Skips,
    words: Words,
    together: Together,
}

impl Correlator {
    /// A correlator of `lanes` lanes that has heard nothing.
    pub fn new(settings: Settings, lanes: u16) -> Self {
        let state = CorrelatorState { step_s: settings.step_s(), lanes, ..CorrelatorState::default() };
        Self { settings, state, skips: Skips::default(), words: Words::default(), together: Together::default() }
    }

    /// Takes stored state up again.
    ///
    /// # Errors
    /// [`StateError::Lengths`] when the state was made with another step length.
    pub fn from_state(settings: Settings, state: CorrelatorState) -> Result<Self, StateError> {
        if state.step_s != settings.step_s() {
            return Err(StateError::Lengths {
                state_pane_s: settings.pane_s(),
                state_step_s: state.step_s,
                pane_s: settings.pane_s(),
                step_s: settings.step_s(),
            });
        }
        Ok(Self { settings, state, skips: Skips::default(), words: Words::default(), together: Together::default() })
    }

    /// Takes stored skips up again.
    #[must_use]
    pub fn with_skips(mut self, skips: Skips) -> Self {
        self.skips = skips;
        self
    }

    /// Takes stored words up again.
    #[must_use]
    pub fn with_words(mut self, words: Words) -> Self {
        self.words = words;
        self
    }

    /// Takes up again what was stored of the elements.
    #[must_use]
    pub fn with_together(mut self, together: Together) -> Self {
        self.together = together;
        self
    }

    /// What must be stored.
    pub fn state(&self) -> &CorrelatorState {
        &self.state
    }

    /// What must be stored beside it.
    pub fn skips(&self) -> &Skips {
        &self.skips
    }

    /// What must be stored beside it, too.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// What must be stored of the elements.
    pub fn together(&self) -> &Together {
        &self.together
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes the evidence of one lane. Repeats are dropped.
    pub fn apply(&mut self, lane: u16, evidence: &StepEvidence) -> Applied {
        let foreign = lane >= self.state.lanes
            || evidence.step_s != self.settings.step_s()
            || !self.settings.feeds().contains_key(&evidence.kind);
        if foreign {
            self.state.foreign = self.state.foreign.saturating_add(1);
            return Applied::Foreign;
        }
        let feed = self.state.feeds.entry(evidence.kind).or_default();
        if self.skips.is_late(lane, evidence) {
            if evidence.last {
                feed.end(lane);
            }
            return Applied::Skipped;
        }
        if feed.apply(lane, evidence) {
            self.together.hear(evidence);
            return Applied::Taken;
        }
        self.state.repeated = self.state.repeated.saturating_add(1);
        Applied::Repeated
    }

    /// Stops waiting for a lane: in every step that ends by `until_s` (epoch s); its evidence for these steps is dropped
    /// when it comes. [`Applied::Repeated`] when it has spoken, or was skipped, for all of them.
    pub fn skip(&mut self, lane: u16, kind: FeedKind, until_s: i64) -> Applied {
        if lane >= self.state.lanes || !self.settings.feeds().contains_key(&kind) {
            self.state.foreign = self.state.foreign.saturating_add(1);
            return Applied::Foreign;
        }
        let step_s = i64::from(self.settings.step_s());
        let until_s = until_s.div_euclid(step_s).saturating_mul(step_s);
        let Some(from_s) = self.state.feeds.entry(kind).or_default().skip(lane, until_s) else {
            return Applied::Repeated;
        };
        self.skips.add(kind, lane, from_s, until_s);
        Applied::Taken
    }

    /// Hears an operator's word at this place in the evidence: what became of it, and the event that tells of it.
    pub fn hear(&mut self, word: &Word) -> (Outcome, Option<AnomalyEvent>) {
        let feeds = &self.state.feeds;
        let now_s = |incident: &Incident| {
            let taken_s = feeds.get(&incident.kind).and_then(Progress::taken_s);
            taken_s.map_or(incident.opened_s, |taken_s| taken_s.max(incident.opened_s))
        };
        self.words.hear(word, &mut self.state.incidents, now_s)
    }

    /// The open incidents as they are now, in the order of their first opening: what their next event would tell, under the
    /// sequence of their last.
    pub fn present(&self) -> Vec<AnomalyEvent> {
        let open = self.state.incidents.iter().filter(|incident| incident.resolved_s.is_none());
        let present = open.map(|incident| {
            let taken_s = self.state.feeds.get(&incident.kind).and_then(Progress::taken_s);
            self.words.present(incident, taken_s.unwrap_or(incident.opened_s))
        });
        present.collect()
    }

    /// Event time up to which every feed kind's steps were taken, epoch s; unknown before all have begun.
    pub fn taken_s(&self) -> Option<i64> {
        let taken = self.settings.feeds().keys().map(|kind| self.state.feeds.get(kind).and_then(Progress::taken_s));
        taken.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Takes every step for which all lanes have spoken or were skipped and says what changed, in order.
    pub fn advance(&mut self) -> Vec<AnomalyEvent> {
        let mut events = Vec::new();
        let threshold_mn = (self.settings.threshold() * 1_000.0) as i64;
        while let Some((kind, start_s)) = self.due() {
            let step_s = self.settings.step_s();
            let Some(pool) = self.state.feeds.get_mut(&kind).and_then(|feed| feed.take(start_s, step_s)) else { break };
            let at = start_s.saturating_add(i64::from(step_s));
            let partial = self.skips.covers(kind, start_s);
            self.together.step(kind, start_s, step_s, threshold_mn);
            let view = View {
                pool: &pool,
                together: self.together.of(kind),
                kind,
                signal: Signal::Connect,
                at,
                step_s,
                threshold_mn,
                partial,
            };
            let mut told = life::step(&mut self.state.incidents, &self.words, view);
            self.words.after_step(&mut self.state.incidents, kind, at, &mut told);
            events.extend(told);
            self.skips.forget(kind, at);
            let taken_s = self.taken_s();
            self.words.forget(&self.state.incidents, taken_s);
        }
        events
    }

    /// The (kind, step) whose turn it is; `None` while a kind has not started or when all have ended.
    fn due(&mut self) -> Option<(FeedKind, i64)> {
        let mut due: Option<(i64, FeedKind, i64)> = None;
        for (&kind, &lateness_s) in self.settings.feeds() {
            let idle = life::is_idle(&self.state.incidents, kind);
            let start_s = match self.state.feeds.entry(kind).or_default().next(self.state.lanes, idle) {
                Err(Finished) => continue,
                Ok(None) => return None,
                Ok(Some(start_s)) => start_s,
            };
            let turn = (start_s.saturating_add(i64::from(lateness_s)), kind, start_s);
            if due.is_none_or(|first| turn < first) {
                due = Some(turn);
            }
        }
        due.map(|(_, kind, start_s)| (kind, start_s))
    }
}
