//! Panes: everything one directed subnet pair did in one short stretch of event time.
//!
//! For: the mergeable unit that travels from the aggregating stage to the lanes.
//! Not for: statistics; those start in [`crate::lane`].
//! Invariant: merging is exact, commutative and associative for every part of a [`PaneCell`], so any order and any
//! grouping of partial panes gives the same cell.
//! Read next: [`crate::window`] (sums of panes), [`crate::lane`] (what is done with them).

mod apportion;
mod cell;
mod counters;
mod peers;
mod quality;
mod rtt;

pub use apportion::{Shares, apportion, pane_of_last_ms};
pub use cell::PaneCell;
pub use counters::{ByState, Counters};
pub use peers::{PEER_SAMPLE_SIZE, PeerCounts, PeerSample};
pub use quality::{AGENT_SAMPLE_SIZE, AgentSample, Quality};
pub use rtt::{RTT_MAX_US, RTT_MIN_US, RttCell};
pub(crate) use rtt::{bucket_of, middle};
