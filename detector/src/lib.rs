//! The statistics of flowshift: panes in, evidence and incidents out.
//!
//! Pure: no clock, no I/O, no async, no chance, no logging. Values in, values out, the same for the same input; all
//! state round-trips through serde exactly.
//!
//! Reading order: [`pane`] (the mergeable unit), [`settings`], [`topology`], [`lane`] (all pairs of one lane: windows,
//! baselines, tests), [`evidence`] (what a lane says about a step), [`correlate`] (one owner: incidents and verdicts),
//! [`event`] (what the outside hears). [`window`] is the sliding sum, [`feed`] names the kinds of input.
//!
//! Limits of this width: a pair's baseline has no seasons yet. It follows the time of day with half-lives of one hour
//! (rates) and two hours (round-trip times), so a job that multiplies the retransmission rate at the same minute every
//! night is told about every night. Traffic that stops (`Signal::Silence`) is not judged. A lane keeps about 5 KB per
//! pair and never retires a pair.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod correlate;
pub mod event;
pub mod evidence;
pub mod feed;
pub mod lane;
mod map;
pub mod pane;
mod score;
pub mod settings;
pub mod topology;
pub mod window;

pub use correlate::{Applied, Correlator, CorrelatorState};
pub use event::{AnomalyEvent, EventType, IncidentId, Reason, Severity, Verdict};
pub use evidence::{Signal, Stage, StepEvidence};
pub use feed::FeedKind;
pub use lane::{LaneDetector, LaneState, MergeOutcome, StateError, Totals};
pub use pane::PaneCell;
pub use settings::{FalseAlarmBudget, Settings, SettingsError};
pub use topology::{Element, ElementKind, Pair, PathClass, Subnet};
pub use window::WindowView;
