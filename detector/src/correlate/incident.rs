//! One incident and the events it makes.
//!
//! For: what is remembered of an incident, and its wire form.
//! Not for: when it opens and closes; see [`super::life`].
//! Invariant: the sequence grows by one with every event, also through a re-opening.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{
    AffectedPair, AnomalyEvent, BaselineValue, EventType, EvidenceValue, IncidentId, ObservedValue, PairCounts, Reason,
    Severity, Verdict,
};
use crate::evidence::{Effect, PairRow, Signal, SignalRow, Stage};
use crate::feed::FeedKind;
use crate::map;
use crate::topology::{Element, Pair};

use super::life::CALM_STEPS;
use super::summary;
use super::view::View;

/// A pair in an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) since_s: i64,
    /// Steps in a row without alarm and with a low score.
    pub(super) calm: u8,
    pub(super) new_normal: bool,
}

/// The strongest pair, as last seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Strongest {
    pub(super) pair: Pair,
    pub(super) score_mn: i64,
    pub(super) effect: Effect,
    pub(super) stage: Stage,
    top_flow_share_ppm: u32,
    late_share_ppm: u32,
}

impl Strongest {
    pub(super) fn of(row: &PairRow, signal: &SignalRow) -> Self {
        Self {
            pair: row.pair.clone(),
            score_mn: signal.score_mn,
            effect: signal.effect,
            stage: row.stage,
            top_flow_share_ppm: row.top_flow_share_ppm,
            late_share_ppm: row.late_share_ppm,
        }
    }
}

/// An open incident, or one that was resolved a short while ago.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Incident {
    pub(super) id: IncidentId,
    pub(super) kind: FeedKind,
    pub(super) signal: Signal,
    pub(super) opened_s: i64,
    /// Set when it was resolved, with the time.
    pub(super) resolved_s: Option<i64>,
    /// Why it was resolved last; only what recovered may re-open.
    pub(super) reason: Option<Reason>,
    pub(super) sequence: u32,
    pub(super) element: Element,
    pub(super) verdict: Verdict,
    pub(super) severity: Severity,
    pub(super) started_s: i64,
    #[serde(with = "map")]
    pub(super) pairs: BTreeMap<Pair, Member>,
    pub(super) strongest: Strongest,
    pub(super) counts: PairCounts,
    pub(super) truncated: bool,
}

impl Incident {
    /// A new incident; its id is a hash of what it is about, so a replay gives the same.
    pub(super) fn open(view: &View<'_>, element: Element, verdict: Verdict, strongest: Strongest) -> Self {
        let start_s = view.at.saturating_sub(i64::from(view.step_s));
        let text = format!("{}|{:?}|{:?}|{}|{start_s}", view.kind, view.signal, element.kind, element.id);
        Self {
            id: IncidentId(format!("inc-{:016x}", fnv1a(text.as_bytes()))),
            kind: view.kind,
            signal: view.signal,
            opened_s: view.at,
            resolved_s: None,
            reason: None,
            sequence: 0,
            element,
            verdict,
            severity: Severity::S4,
            started_s: view.at,
            pairs: BTreeMap::new(),
            strongest,
            counts: PairCounts::default(),
            truncated: false,
        }
    }

    pub(super) fn join(&mut self, pair: &Pair, since_s: i64) -> bool {
        if self.pairs.contains_key(pair) {
            return false;
        }
        self.pairs.insert(pair.clone(), Member { since_s, calm: 0, new_normal: false });
        self.started_s = self.started_s.min(since_s);
        true
    }

    /// Event time until which one of its pairs was not calm, epoch s.
    pub(super) fn active_until_s(&self, view: &View<'_>) -> i64 {
        let (end_s, calm) = match self.resolved_s {
            Some(resolved_s) => (resolved_s, CALM_STEPS),
            None => (view.at, self.pairs.values().map(|member| member.calm).min().unwrap_or(0)),
        };
        end_s.saturating_sub(i64::from(calm) * i64::from(view.step_s))
    }

    /// Takes up what the step says about its pairs: the strongest of them, the counts and the severity. Pairs that are
    /// calm again say nothing; when all are, the last word stands.
    pub(super) fn refresh(&mut self, view: &View<'_>, counts: PairCounts) {
        let mut flows = 0u64;
        let mut strongest: Option<Strongest> = None;
        for (pair, _) in self.pairs.iter().filter(|(_, member)| member.calm == 0) {
            let Some((row, signal)) = view.row(pair) else { continue };
            flows = flows.saturating_add(view.flows_per_minute(row));
            self.truncated |= row.truncated;
            if row.flows > 0 && strongest.as_ref().is_none_or(|s| signal.score_mn > s.score_mn) {
                strongest = Some(Strongest::of(row, signal));
            }
        }
        if let Some(strongest) = strongest {
            self.severity = severity(self.signal, &strongest.effect, flows);
            (self.strongest, self.counts) = (strongest, counts);
        }
    }

    pub(super) fn event(&mut self, event_type: EventType, at: i64) -> AnomalyEvent {
        self.sequence = self.sequence.saturating_add(1);
        let effect = &self.strongest.effect;
        let unit = if self.signal == Signal::Latency { 1.0 } else { 1e-6 };
        let value = |x: i64| if unit == 1.0 { x as f64 } else { x as f64 / 1e6 };
        AnomalyEvent {
            event_type,
            incident: self.id.clone(),
            sequence: self.sequence,
            at,
            started_at: self.started_s,
            signal: self.signal,
            severity: self.severity,
            verdict: self.verdict,
            element: self.element.clone(),
            pairs: self.pairs.iter().map(|(p, m)| AffectedPair::new(&p.src, &p.dst, m.since_s)).collect(),
            baseline: BaselineValue {
                value: value(effect.baseline),
                n: effect.baseline_n,
                age_s: effect.baseline_age_s,
                stage: self.strongest.stage,
            },
            observed: ObservedValue {
                value: value(effect.observed),
                n: effect.observed_n,
                low: value(effect.low),
                high: value(effect.high),
                change: (effect.baseline > 0)
                    .then(|| (effect.observed as f64 / effect.baseline as f64 * 1_000.0).round() / 1_000.0),
            },
            evidence: EvidenceValue {
                nats: self.strongest.score_mn as f64 / 1_000.0,
                of: self.counts,
                top_flow_share: f64::from(self.strongest.top_flow_share_ppm) / 1e6,
                late_share: f64::from(self.strongest.late_share_ppm) / 1e6,
                truncated: self.truncated,
            },
            reason: None,
            into: None,
            acknowledged: None,
            muted: None,
            dismissed: None,
            summary: summary::sentence(self),
        }
    }

    /// The resolving event; the last known pairs and numbers are told once more.
    pub(super) fn resolve(&mut self, at: i64, reason: Reason, into: Option<IncidentId>) -> AnomalyEvent {
        (self.resolved_s, self.reason) = (Some(at), Some(reason));
        let mut event = self.event(EventType::Resolved, at);
        event.summary = summary::ending(self, reason, at);
        (event.reason, event.into) = (Some(reason), into);
        event
    }
}

/// How bad an effect is on pairs of this many flow records a minute.
pub(super) fn severity(signal: Signal, effect: &Effect, flows_per_minute: u64) -> Severity {
    let (large, middle, small) = (1_000_000, 500_000, 200_000);
    let (size, steps) = match signal {
        Signal::Latency => {
            let base = i128::from(effect.baseline.max(1));
            let more = (i128::from(effect.observed) - base) * 1_000_000 / base;
            (more, [large, middle, small])
        }
        Signal::Silence => (i128::from(effect.baseline) - i128::from(effect.observed), [900_000, 500_000, 200_000]),
        _ => (i128::from(effect.observed) - i128::from(effect.baseline), [50_000, 10_000, 2_000]),
    };
    match size {
        s if s >= steps[0] && flows_per_minute >= 100 => Severity::S1,
        s if s >= steps[1] => Severity::S2,
        s if s >= steps[2] => Severity::S3,
        _ => Severity::S4,
    }
}

/// FNV-1a, 64 bits: ids need to be stable and spread, not secret.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
