//! What a word does.
//!
//! For: an operator's word against the incidents as they are at its place in the evidence.
//! Not for: what it means for later events; see [`super::mark`].
//! Invariant: a word is heard once, whatever became of it.

use serde::{Deserialize, Serialize};

use crate::event::{Acknowledged, AnomalyEvent, EventType, IncidentId, Reason};

use super::super::incident::Incident;
use super::book::{Dismissal, Heard, KEPT, MOST, Mute, Words};
use super::{LONGEST_S, Order, Word};

/// What became of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It changed something.
    Applied,
    /// It says what was said before: nothing changed.
    Repeated,
    /// There is no such incident or mute, or the incident is over.
    NotThere,
    /// It ends before it begins, or lasts longer than [`LONGEST_S`].
    BadEnd,
    /// There are as many mutes or dismissals as can be.
    Full,
}

impl Outcome {
    /// Its name in metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Repeated => "repeated",
            Self::NotThere => "not_there",
            Self::BadEnd => "bad_end",
            Self::Full => "full",
        }
    }
}

impl Words {
    /// Hears a word: what became of it, and the event that tells of it. `now_s` is the event time up to which steps of
    /// the incident's feed kind were taken.
    pub(in crate::correlate) fn hear(
        &mut self,
        word: &Word,
        incidents: &mut [Incident],
        now_s: impl Fn(&Incident) -> i64,
    ) -> (Outcome, Option<AnomalyEvent>) {
        let id = word.id();
        // Put into the evidence again because an answer was lost. (Said again it has another time.)
        if self.heard.iter().any(|heard| heard.id == id && heard.said_s == word.said_s) {
            return (Outcome::Repeated, None);
        }
        let by = Acknowledged { by: word.by.clone(), note: word.note.clone(), at: word.said_s };
        let open = |incident: &IncidentId, incidents: &[Incident]| {
            incidents.iter().position(|i| i.id == *incident && i.resolved_s.is_none())
        };
        let (outcome, event) = match &word.order {
            Order::Acknowledge(incident) => match open(incident, incidents) {
                None => (Outcome::NotThere, None),
                Some(index) => {
                    let incident = &mut incidents[index];
                    let at = now_s(incident);
                    self.acknowledge(incident, by, at)
                }
            },
            Order::Mute { scope, until_s } => {
                let mute = Mute { scope: scope.clone(), until_s: *until_s, by };
                (self.mute(mute), None)
            }
            Order::Unmute(id) => (self.unmute(id), None),
            Order::NotAnIssue { incident, until_s } => match open(incident, incidents) {
                None if self.dismissed.get(incident).is_some_and(|d| d.until_s == *until_s && d.by.same_as(&by)) => {
                    (Outcome::Repeated, None)
                }
                None => (Outcome::NotThere, None),
                Some(index) => {
                    let incident = &mut incidents[index];
                    let at = now_s(incident);
                    self.dismiss(incident, by, *until_s, at)
                }
            },
        };
        if self.heard.len() >= KEPT {
            self.heard.pop_front();
        }
        self.heard.push_back(Heard { id, said_s: word.said_s, outcome });
        (outcome, event)
    }

    fn acknowledge(&mut self, incident: &mut Incident, by: Acknowledged, at: i64) -> (Outcome, Option<AnomalyEvent>) {
        if self.acknowledged.get(&incident.id).is_some_and(|known| known.same_as(&by)) {
            return (Outcome::Repeated, None);
        }
        let mut event = incident.event(EventType::Updated, at);
        event.summary.push_str(&format!("; acknowledged by {}", by.by));
        self.acknowledged.insert(incident.id.clone(), by);
        self.mark(&mut event, Some(incident));
        (Outcome::Applied, Some(event))
    }

    fn mute(&mut self, mute: Mute) -> Outcome {
        let id = mute.scope.mute_id();
        match self.mutes.get(&id) {
            Some(known) if known.until_s == mute.until_s && known.by.same_as(&mute.by) => return Outcome::Repeated,
            None if self.mutes.len() >= MOST => return Outcome::Full,
            _ => {}
        }
        if !lasts(mute.by.at, mute.until_s) {
            return Outcome::BadEnd;
        }
        self.mutes.insert(id, mute);
        Outcome::Applied
    }

    fn unmute(&mut self, id: &str) -> Outcome {
        let mute = self.mutes.remove(id).is_some();
        let dismissal = self.dismissed.remove(&IncidentId(id.to_owned())).is_some();
        if mute || dismissal { Outcome::Applied } else { Outcome::NotThere }
    }

    fn dismiss(
        &mut self,
        incident: &mut Incident,
        by: Acknowledged,
        until_s: i64,
        at: i64,
    ) -> (Outcome, Option<AnomalyEvent>) {
        if !lasts(by.at, until_s) {
            return (Outcome::BadEnd, None);
        }
        if self.dismissed.len() >= MOST && !self.dismissed.contains_key(&incident.id) {
            return (Outcome::Full, None);
        }
        let dismissal = Dismissal {
            kind: incident.kind,
            signal: incident.signal,
            pairs: incident.pairs.keys().cloned().collect(),
            severity: incident.severity,
            until_s,
            by: by.clone(),
        };
        let mut event = incident.resolve(at, Reason::NotAnIssue, None);
        incident.pairs.clear();
        event.dismissed = Some(by.until(until_s));
        self.mark(&mut event, Some(incident));
        self.dismissed.insert(incident.id.clone(), dismissal);
        (Outcome::Applied, Some(event))
    }
}

fn lasts(said_s: i64, until_s: i64) -> bool {
    (1..=LONGEST_S).contains(&until_s.saturating_sub(said_s))
}
