//! What a lane remembers of its sources: marks, status and watermarks. Committed with the stage's own state.
//!
//! Invariants: a part is applied once; n grows without gaps per source and epoch; the lane's watermark never moves back
//! and never passes a source that counts; nothing closes before the first source set; a source leaves the set only by
//! its END. There is no clock in here: idleness is decided by the leader and arrives as a control record.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use super::envelope::{BatchPart, Control};
use super::source::{FeedKinds, SourceId, Status, Watermarks};

#[cfg(test)]
mod tests;
mod wire;

/// What became of a batch part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Seen before, or from a source's past epoch: drop it.
    Repeat,
    /// New: apply its payload.
    New,
}

/// Why a part cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A number is missing. n + 1 is put only after n was acknowledged, so this is proof of loss.
    #[error("batch {got} of {source_id} epoch {epoch} after batch {applied}: the batches between are lost")]
    Gap {
        /// The source.
        source_id: Box<SourceId>,
        /// Its epoch.
        epoch: u64,
        /// The last number applied.
        applied: u64,
        /// The number that came.
        got: u64,
    },
    /// Two emissions of one batch differ in their number of parts.
    #[error("batch {n} of {source_id} came in {got} parts after {expected}")]
    Parts {
        /// The source.
        source_id: Box<SourceId>,
        /// The batch.
        n: u64,
        /// Parts by the first emission.
        expected: u32,
        /// Parts by this one.
        got: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Entry {
    epoch: u64,
    applied: u64,
    /// Parts seen of batch `applied + 1`, and how many there are; 0 when none was seen.
    open_parts: u32,
    seen: Vec<u32>,
    watermarks: Watermarks,
    status: Vec<Status>,
    in_set: bool,
    ended: bool,
}

/// The marks of one lane.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneState {
    kinds: FeedKinds,
    control: u64,
    sources: BTreeMap<SourceId, Entry>,
    reached: Watermarks,
    gaps: u64,
    /// Accept gaps: set when reading resumed at the trim horizon or state was discarded by policy.
    pub accept_gaps: bool,
}

impl LaneState {
    /// A lane that has seen nothing.
    pub fn new(kinds: FeedKinds) -> Self {
        Self { kinds, control: 0, sources: BTreeMap::new(), reached: Watermarks::NONE, gaps: 0, accept_gaps: false }
    }

    /// The lane's watermarks: every pane and step that ends at or before them may be closed.
    pub fn watermarks(&self) -> Watermarks {
        self.reached
    }

    /// Accepted gaps so far: the lane's windows are incomplete when this is not 0.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// The number of the last control record applied.
    pub fn control(&self) -> u64 {
        self.control
    }

    /// Whether every source of the set has ended.
    pub fn ended(&self) -> bool {
        let mut set = self.sources.values().filter(|s| s.in_set).peekable();
        self.control > 0 && set.peek().is_some() && set.all(|s| s.ended)
    }

    /// Marks a part. On [`Applied::New`] the caller applies the payload before the next call.
    ///
    /// # Errors
    /// [`ApplyError::Gap`] unless gaps are accepted; [`ApplyError::Parts`]. Nothing is changed then.
    pub fn apply_part(&mut self, part: &BatchPart) -> Result<Applied, ApplyError> {
        let kinds = self.kinds;
        let entry = self.sources.entry(part.source.clone()).or_insert_with(|| Entry::new(kinds));
        if part.epoch < entry.epoch {
            return Ok(Applied::Repeat);
        }
        let (applied, open_parts) = if part.epoch > entry.epoch { (0, 0) } else { (entry.applied, entry.open_parts) };
        if part.n <= applied {
            return Ok(Applied::Repeat);
        }
        let gap = part.n > applied + 1;
        if gap && !self.accept_gaps {
            let source_id = Box::new(part.source.clone());
            return Err(ApplyError::Gap { source_id, epoch: part.epoch, applied, got: part.n });
        }
        if !gap && open_parts != 0 && open_parts != part.parts {
            let source_id = Box::new(part.source.clone());
            return Err(ApplyError::Parts { source_id, n: part.n, expected: open_parts, got: part.parts });
        }
        if gap || part.epoch > entry.epoch {
            entry.seen.clear();
        }
        self.gaps += u64::from(gap);
        entry.epoch = part.epoch;
        entry.applied = part.n - 1;
        entry.open_parts = part.parts;
        if entry.seen.contains(&part.part) {
            return Ok(Applied::Repeat);
        }
        entry.seen.push(part.part);
        if entry.seen.len() == part.parts as usize {
            self.complete(part);
        }
        Ok(Applied::New)
    }

    /// The last part of a batch is in: its number, watermark and end count now.
    fn complete(&mut self, part: &BatchPart) {
        let Some(entry) = self.sources.get_mut(&part.source) else { return };
        entry.applied = part.n;
        entry.open_parts = 0;
        entry.seen.clear();
        entry.watermarks.raise_all(&part.watermarks);
        if part.end && !entry.ended {
            entry.ended = true;
            let (last, status, in_set) = (entry.watermarks, entry.status.clone(), entry.in_set);
            for child in &part.children {
                let id = SourceId { stream: part.source.stream.clone(), shard: child.clone() };
                self.add_child(id, last, &status, in_set);
            }
        }
        self.advance();
    }

    /// A child counts from its parent's end on, at the parent's last watermark (two parents: at the smaller).
    fn add_child(&mut self, id: SourceId, last: Watermarks, status: &[Status], in_set: bool) {
        let kinds = self.kinds;
        let child = self.sources.entry(id).or_insert_with(|| Entry::new(kinds));
        if child.applied > 0 || child.ended {
            return;
        }
        let fresh = child.watermarks == Watermarks::NONE;
        child.watermarks = if fresh { last } else { child.watermarks.min(&last) };
        if !child.in_set {
            child.status = status.to_vec();
            child.in_set = in_set;
        }
    }

    /// Takes the leader's full source set; a record seen before is dropped (`false`).
    pub fn apply_control(&mut self, control: &Control) -> bool {
        if control.number <= self.control {
            return false;
        }
        self.control = control.number;
        let (kinds, reached) = (self.kinds, self.reached);
        for (id, status) in &control.sources {
            let entry = self.sources.entry(id.clone()).or_insert_with(|| Entry::new(kinds));
            for kind in 0..kinds.count() {
                let now = status.get(kind).copied().unwrap_or(Status::initial(kind));
                let before = entry.status.get(kind).copied().unwrap_or_default();
                // What the lane closed while the source was out is closed: its floor will be at or above this.
                if entry.in_set && before == Status::Idle && now != Status::Idle {
                    entry.watermarks.raise(kind, reached.get(kind));
                }
                if let Some(slot) = entry.status.get_mut(kind) {
                    *slot = now;
                }
            }
            entry.in_set = true;
        }
        self.advance();
        true
    }

    /// Moves the lane's watermarks to the minimum over the sources that count.
    fn advance(&mut self) {
        if self.control == 0 {
            return;
        }
        let ended = self.ended();
        for kind in 0..self.kinds.count() {
            let counts = |s: &&Entry| s.in_set && !s.ended && s.status.get(kind) != Some(&Status::Idle);
            let low = self.sources.values().filter(counts).map(|s| s.watermarks.get(kind)).min();
            match low {
                Some(low) => self.reached.raise(kind, low),
                None if ended => self.reached.raise(kind, i64::MAX),
                None => {}
            }
        }
    }

    /// The committed form.
    pub fn encode(&self) -> Vec<u8> {
        wire::Lane::from_state(self).encode_to_vec()
    }

    /// Reads the committed form.
    ///
    /// # Errors
    /// The bytes are not a lane state.
    pub fn decode(kinds: FeedKinds, bytes: &Bytes) -> Result<Self, prost::DecodeError> {
        Ok(wire::Lane::decode(bytes.clone())?.into_state(kinds))
    }
}

impl Entry {
    fn new(kinds: FeedKinds) -> Self {
        Self { status: (0..kinds.count()).map(Status::initial).collect(), ..Self::default() }
    }
}
