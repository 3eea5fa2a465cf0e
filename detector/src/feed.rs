//! The kinds of feeds, which have their own clocks and never mix in a judgement.
//!
//! For: naming whose panes and whose steps are meant.
//! Not for: single sources; those are the engine's.
//! Invariant: the order of the variants is the order in which equal times are taken.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Kind of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedKind {
    /// Agent reports and own producers: retransmissions, round-trip times, connection attempts.
    Reports,
    /// Flow logs: volume, rejected and unanswered connections; no round-trip times, no retransmissions.
    FlowLogs,
}

impl fmt::Display for FeedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reports => "reports",
            Self::FlowLogs => "flow_logs",
        })
    }
}
