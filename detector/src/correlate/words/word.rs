//! What an operator can say.
//!
//! For: the words and their ids.
//! Not for: their effect; see [`super::hear`].
//! Invariant: the id of a word is a hash of what it says, not of when: said again it has the same id.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::IncidentId;
use crate::evidence::Signal;
use crate::topology::Pair;

use super::super::incident::fnv1a;

/// Longest time a mute or a dismissal may last from when it was said, s: 30 days and the minute of a slow clock.
pub const LONGEST_S: i64 = 30 * 86_400 + 60;

/// One thing said by one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// When it was said, by the clock of whoever took it, epoch s. Told in events; nothing is decided by it.
    pub said_s: i64,
    /// By whom.
    pub by: String,
    /// Why, in their words; may be empty.
    pub note: String,
    /// What is to be done.
    pub order: Order,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Somebody takes care of an open incident.
    Acknowledge(IncidentId),
    /// Incidents within a scope open and are recorded, but marked, in every step that ends before `until_s` (event
    /// time, epoch s).
    Mute {
        /// Of what.
        scope: Scope,
        /// Event time of its end, epoch s.
        until_s: i64,
    },
    /// Ends a mute, or a dismissal by its incident's id.
    Unmute(String),
    /// An open incident is none: it is resolved, and its pattern is not raised again before `until_s`.
    NotAnIssue {
        /// Which.
        incident: IncidentId,
        /// Event time of the end of its dismissal, epoch s.
        until_s: i64,
    },
}

impl Order {
    /// Its name in metrics and answers.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Acknowledge(_) => "acknowledge",
            Self::Mute { .. } => "mute",
            Self::Unmute(_) => "unmute",
            Self::NotAnIssue { .. } => "not_an_issue",
        }
    }
}

/// What a mute is about: a place, a signal, or a signal at a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scope {
    /// Where; `None` is everywhere.
    pub place: Option<Place>,
    /// Which signal; `None` is every one.
    pub signal: Option<Signal>,
}

/// Where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// One directed pair, by the ids of its ends.
    Pair {
        /// Source.
        src: String,
        /// Destination.
        dst: String,
    },
    /// Every pair with this subnet or edge at one end.
    Subnet(String),
    /// Every pair with an end in this zone.
    Az(String),
}

impl Scope {
    /// Whether a signal of a pair is within it.
    pub(in crate::correlate) fn covers(&self, pair: &Pair, signal: Signal) -> bool {
        if self.signal.is_some_and(|of| of != signal) {
            return false;
        }
        let ends = [&pair.src, &pair.dst];
        match &self.place {
            None => self.signal.is_some(),
            Some(Place::Pair { src, dst }) => *pair.src.id == **src && *pair.dst.id == **dst,
            Some(Place::Subnet(id)) => ends.iter().any(|end| *end.id == **id),
            Some(Place::Az(az)) => ends.iter().any(|end| end.az.as_deref() == Some(az)),
        }
    }

    /// Id of a mute of this scope: there is one at a time.
    pub fn mute_id(&self) -> String {
        format!("mute-{:016x}", fnv1a(self.to_string().as_bytes()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            None => f.write_str("everywhere")?,
            Some(Place::Pair { src, dst }) => write!(f, "pair {src}>{dst}")?,
            Some(Place::Subnet(id)) => write!(f, "subnet {id}")?,
            Some(Place::Az(az)) => write!(f, "az {az}")?,
        }
        match self.signal {
            None => Ok(()),
            Some(signal) => write!(f, ", {}", signal.as_str()),
        }
    }
}

impl Word {
    /// Its id: a hash of who says what, without the time.
    pub fn id(&self) -> String {
        let what = match &self.order {
            Order::Acknowledge(incident) => format!("{incident}"),
            Order::Mute { scope, until_s } => format!("{scope}\0{until_s}"),
            Order::Unmute(id) => id.clone(),
            Order::NotAnIssue { incident, until_s } => format!("{incident}\0{until_s}"),
        };
        let text = format!("{}\0{what}\0{}\0{}", self.order.as_str(), self.by, self.note);
        format!("word-{:016x}", fnv1a(text.as_bytes()))
    }
}
