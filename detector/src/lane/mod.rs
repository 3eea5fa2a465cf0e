//! All pairs of one lane: panes in, one account per step out.
//!
//! For: the keyed state that one owner holds, stores and restores.
//! Not for: anything that needs to see two lanes; see [`crate::correlate`].
//! Invariant: a pane is accepted only while its step is unjudged, every step is judged once and in order, and each pane
//! enters the evidence exactly once.

mod detector;
mod effect;
mod older;
mod pair;
mod season;
mod state;
mod step;

pub use detector::LaneDetector;
pub use older::LaneStateV2;
pub use state::{FeedState, LaneState, MergeOutcome, StateError, Totals};
