//! What events tell of an operator's words.
//!
//! Part of [`super::AnomalyEvent`]. Not for: the words on their way to CORRELATE; see [`crate::evidence`]. Invariant: each
//! says who spoke and when; what is decided by it is decided by event time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who took an incident on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Acknowledged {
    /// Who.
    pub by: String,
    /// What they said; may be empty.
    pub note: String,
    /// When, by the clock of the server that took the word, epoch seconds.
    pub at: i64,
}

/// That an incident is muted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Muted {
    /// Event time at which the first of its mutes ends, epoch seconds.
    pub until: i64,
    /// Ids of the mutes that cover its pairs, sorted.
    pub mutes: Vec<String>,
}

/// Who said that an incident is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Dismissed {
    /// Who.
    pub by: String,
    /// What they said; may be empty.
    pub note: String,
    /// When, by the clock of the server that took the word, epoch seconds.
    pub at: i64,
    /// Event time from which the same may be raised again, epoch seconds.
    pub until: i64,
}
