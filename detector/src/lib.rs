//! The statistics of flowshift: panes in, evidence and incidents out.
//!
//! Pure: no clock, no I/O, no async, no chance, no logging. Values in, values out, the same for the same input; all
//! state round-trips through serde exactly.
//!
//! Reading order: [`pane`] (the mergeable unit), [`settings`], [`topology`], [`season`] (what is usual at this time of
//! day), [`lane`] (all pairs of one lane: windows, baselines, tests), [`evidence`] (what a lane says about a step),
//! [`correlate`] (one owner: incidents and verdicts), [`event`] (what the outside hears). [`window`] is the sliding sum,
//! [`feed`] names the kinds of input. Apart from these: [`series`].
//!
//! Limits: a pair without any record is not judged, also when it is its traffic that stopped; a lane never retires a pair.
//! A pair takes 5 to 6 KB of a lane's state, and about 100 bytes of every page.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod correlate;
pub mod event;
pub mod evidence;
pub mod feed;
pub mod lane;
mod map;
pub mod pane;
mod score;
pub mod season;
pub mod series;
pub mod settings;
mod sorted;
pub mod topology;
pub mod window;

pub use correlate::{Applied, Correlator, CorrelatorState, Order, Outcome, Place, Scope, Skips, Together, Word, Words};
pub use event::{AnomalyEvent, EventType, IncidentId, Reason, Severity, Verdict};
pub use evidence::{Signal, Stage, StepEvidence};
pub use feed::FeedKind;
pub use lane::{LaneDetector, LaneState, LaneStateV2, MergeOutcome, StateError, Totals};
pub use pane::PaneCell;
pub use season::{PageError, PageKey};
pub use settings::{FalseAlarmBudget, MEASURED_SLACK, Settings, SettingsError};
pub use topology::{Element, ElementKind, Pair, PathClass, Subnet};
pub use window::WindowView;
