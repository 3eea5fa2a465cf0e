//! What travels between the stages: lanes, sources, numbered batches, marks and control records.
//!
//! Invariant: a batch (source, epoch, n) is applied to a lane once, whole and in order of n, whoever sent it and
//! however often; a lane's watermark never moves back and never passes a live source.

mod envelope;
mod lane;
mod lane_state;
mod loss;
mod source;
mod width;

pub use envelope::{BatchPart, Control, Envelope, EnvelopeError, Message};
pub use lane::{LaneId, Lanes, LanesError};
pub use lane_state::{Applied, ApplyError, LaneState};
pub use loss::Loss;
pub use source::{FeedKinds, SourceId, SourceSet, Status, Watermarks};
pub use width::ShardCounts;
