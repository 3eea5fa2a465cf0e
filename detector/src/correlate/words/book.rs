//! What is remembered of an operator's words.
//!
//! For: the state beside the incidents: who took them on, what is muted, what was dismissed, what was heard.
//! Not for: changing it; see [`super::hear`] and [`super::mark`].
//! Invariant: bounded. Mutes and dismissals end with their event time, the rest goes with its incident, and of the
//! words heard the last [`KEPT`] are known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::event::{Acknowledged, IncidentId, Muted, Severity};
use crate::evidence::{Effect, Signal};
use crate::feed::FeedKind;
use crate::topology::Pair;

use super::super::incident::{Incident, severity};
use super::{Outcome, Scope};

/// Words remembered, for dropping those that come twice and for telling what became of them.
pub(super) const KEPT: usize = 512;
/// Mutes and dismissals at a time.
pub(super) const MOST: usize = 1_000;

/// A mute in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mute {
    /// Of what.
    pub scope: Scope,
    /// Event time of its end, epoch s.
    pub until_s: i64,
    /// By whom, why, and when it was said (epoch s).
    pub by: Acknowledged,
}

/// A pattern that is not raised: a signal on the pairs of an incident that was none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dismissal {
    pub(super) kind: FeedKind,
    /// Which signal.
    pub signal: Signal,
    /// The pairs.
    pub pairs: BTreeSet<Pair>,
    /// What is worse than this is another pattern.
    pub severity: Severity,
    /// Event time of its end, epoch s.
    pub until_s: i64,
    /// By whom, why, and when it was said (epoch s).
    pub by: Acknowledged,
}

/// A word heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Its id.
    pub id: String,
    /// When it was said, epoch s.
    pub said_s: i64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What receivers know of an open incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// An event of this opening went out without a mark.
    pub(super) openly: bool,
    /// The mark of the events that did not, since the last that did.
    pub(super) hushed: Option<Muted>,
}

/// All of it. Stored beside the correlator's own state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    pub(super) acknowledged: BTreeMap<IncidentId, Acknowledged>,
    pub(super) told: BTreeMap<IncidentId, Told>,
    pub(super) mutes: BTreeMap<String, Mute>,
    pub(super) dismissed: BTreeMap<IncidentId, Dismissal>,
    pub(super) heard: VecDeque<Heard>,
}

impl Words {
    /// The mutes, by id.
    pub fn mutes(&self) -> impl Iterator<Item = (&str, &Mute)> {
        self.mutes.iter().map(|(id, mute)| (id.as_str(), mute))
    }

    /// The dismissals, by the id of their incident.
    pub fn dismissals(&self) -> impl Iterator<Item = (&IncidentId, &Dismissal)> {
        self.dismissed.iter()
    }

    /// The last words heard, oldest first.
    pub fn heard(&self) -> impl Iterator<Item = &Heard> {
        self.heard.iter()
    }

    /// Whether a pair that shows the signal with this effect is part of a dismissed pattern in the step that ends at
    /// `at`: then no incident is made of it.
    pub(in crate::correlate) fn dismisses(
        &self,
        (kind, signal): (FeedKind, Signal),
        pair: &Pair,
        effect: &Effect,
        flows_per_minute: u64,
        at: i64,
    ) -> bool {
        let of = |d: &&Dismissal| d.kind == kind && d.signal == signal && at < d.until_s && d.pairs.contains(pair);
        let mut dismissals = self.dismissed.values().filter(of);
        dismissals.any(|d| severity(signal, effect, flows_per_minute) >= d.severity)
    }

    /// How an incident is muted in the step that ends at `at`: every one of its pairs must be. The mark names for each
    /// pair the mute that lasts longest, and ends with the first of these.
    pub(super) fn mute_of(&self, incident: &Incident, at: i64) -> Option<Muted> {
        let mut muted = Muted { until: i64::MAX, mutes: Vec::new() };
        for pair in incident.pairs.keys() {
            let of = |(_, mute): &(&String, &Mute)| at < mute.until_s && mute.scope.covers(pair, incident.signal);
            let (id, mute) = self.mutes.iter().filter(of).max_by_key(|(id, mute)| (mute.until_s, *id))?;
            muted.until = muted.until.min(mute.until_s);
            muted.mutes.push(id.clone());
        }
        muted.mutes.sort();
        muted.mutes.dedup();
        (!muted.mutes.is_empty()).then_some(muted)
    }

    /// Forgets what has ended for every feed kind: all have taken their steps up to `taken_s`; and what is of incidents
    /// that are gone.
    pub(in crate::correlate) fn forget(&mut self, incidents: &[Incident], taken_s: Option<i64>) {
        if let Some(taken_s) = taken_s {
            self.mutes.retain(|_, mute| mute.until_s > taken_s);
            self.dismissed.retain(|_, dismissal| dismissal.until_s > taken_s);
        }
        if !self.acknowledged.is_empty() || !self.told.is_empty() {
            let open: BTreeSet<&IncidentId> =
                incidents.iter().filter(|i| i.resolved_s.is_none()).map(|i| &i.id).collect();
            self.acknowledged.retain(|id, _| open.contains(id));
            self.told.retain(|id, _| open.contains(id));
        }
    }
}
