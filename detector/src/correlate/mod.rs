//! One owner for all lanes: evidence in, anomaly events out.
//!
//! For: waiting for every lane, grouping pairs into incidents, verdicts, the life of incidents.
//! Not for: judging a pair; the lanes did that.
//! Invariant: (kind, step) are taken in the order of step end + the kind's allowed lateness, ties by kind, each once and
//! only when every lane has spoken for it or was skipped for it; so the events do not depend on the order in which lanes deliver.
//! Reading order: `progress` (who has spoken), `skips` (for whom nobody waits), `together` (what the pairs of an element say),
//! `view` (one step of all lanes), `cover` (which element explains it), `life` (incidents), `gather` (who is in them),
//! `verdict` (whose fault), `words` (what operators say of them), `summary` (the sentence).

mod correlator;
mod cover;
mod gather;
mod incident;
mod life;
mod progress;
mod skips;
mod summary;
mod together;
mod verdict;
mod view;
mod words;

pub use correlator::{Applied, Correlator, CorrelatorState};
pub use skips::Skips;
pub use together::Together;
pub use words::{Dismissal, Heard, LONGEST_S, Mute, Order, Outcome, Place, Scope, Word, Words};
