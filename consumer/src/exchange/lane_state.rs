//! What a lane remembers of its sources: marks, status and watermarks. Committed with the stage's own state.
//!
//! Invariants: a part is applied once; n grows without gaps per source and epoch; the lane's watermark never moves back
//! and never passes a source that counts; nothing closes before the first source set; a source is over by its END, or
//! with the first set that no longer names it. There is no clock in here: idleness is decided by the leader and arrives
//! as a control record.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use super::envelope::{BatchPart, Control};
use super::loss::Loss;
use super::source::{FeedKinds, SourceId, Status, Watermarks};
use entry::{Entry, FIRST, Verdict};
use lows::Lows;

mod entry;
mod lows;
#[cfg(test)]
mod tests;
mod wire;

/// What became of a batch part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Seen before, from a source's past epoch, or of an emission that a later one replaced: drop it.
    Repeat,
    /// New: apply its payload.
    New,
    /// New, behind a loss that is accepted: say that the lane is incomplete, then apply its payload.
    NewAfter(Loss),
    /// Its batch is closed without it, because parts of an earlier emission are applied and the rest is lost: drop its
    /// payload, which would count again what those parts held, and say that the lane is incomplete.
    Closed(Loss),
}

/// Why a part cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A number is missing. n + 1 is put only after n was acknowledged, so this is proof of loss.
    #[error(
        "batch {got} of {source_id} epoch {epoch} after batch {applied}: the batches between are lost; \
         `leases resolve` goes on without them"
    )]
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
    /// Two emissions of one batch, of the same records, differ in their number of parts.
    #[error("batch {n} of {source_id} came in {got} parts after {expected}; `leases resolve` goes on without the rest")]
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

/// The marks of one lane.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneState {
    kinds: FeedKinds,
    control: u64,
    sources: BTreeMap<SourceId, Entry>,
    /// What `sources` come to.
    lows: Lows,
    reached: Watermarks,
    gaps: u64,
    /// Accept that a source seen for the first time does not begin at its first batch.
    forgive_unknown: bool,
    /// Accept every gap in records that arrived up to then, epoch milliseconds: an operator's decision.
    accept_until_ms: i64,
    /// Records of the lane are lost, control records perhaps among them: nothing closes before one that catches up.
    blind: bool,
}

impl LaneState {
    /// A lane that has seen nothing.
    pub fn new(kinds: FeedKinds) -> Self {
        Self {
            kinds,
            control: 0,
            sources: BTreeMap::new(),
            lows: Lows::default(),
            reached: Watermarks::NONE,
            gaps: 0,
            forgive_unknown: false,
            accept_until_ms: i64::MIN,
            blind: false,
        }
    }

    /// The lane's watermarks: every pane and step that ends at or before them may be closed.
    pub fn watermarks(&self) -> Watermarks {
        self.reached
    }

    /// Losses accepted so far.
    #[cfg(test)]
    fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Whether every source of the set has ended.
    pub fn ended(&self) -> bool {
        self.control > 0 && !self.blind && self.lows.ended()
    }

    /// Records of the lane are lost, or its state was discarded: the next gap of every source is accepted, and the lane
    /// closes nothing before a control record that catches up.
    pub fn forgive(&mut self) {
        self.blind = true;
        self.forgive_unknown = true;
        self.sources.values_mut().filter(|s| !s.ended || s.gone).for_each(|s| s.forgive = true);
    }

    /// Accepts every gap in records that arrived up to a moment, epoch milliseconds by the stream's clock. Closes
    /// nothing before a control record that catches up.
    pub fn accept_until(&mut self, ms: i64) {
        self.blind = true;
        self.accept_until_ms = self.accept_until_ms.max(ms);
    }

    /// Marks a part that arrived in the exchange stream at `arrived_ms`. On [`Applied::New`] and [`Applied::NewAfter`]
    /// the caller applies the payload before the next call.
    ///
    /// # Errors
    /// [`ApplyError::Gap`] and [`ApplyError::Parts`] unless the loss is accepted. Nothing is changed then.
    pub fn apply_part(&mut self, part: &BatchPart, arrived_ms: i64) -> Result<Applied, ApplyError> {
        let resolved = arrived_ms <= self.accept_until_ms;
        let known = self.sources.get_mut(&part.source);
        // A copy that lands late. An epoch that is among what was lost is not known to be a new one.
        let over = |s: &Entry| s.gone && (part.epoch <= s.epoch || s.epoch == 0 && self.forgive_unknown);
        if known.as_deref().is_some_and(over) {
            return Ok(Applied::Repeat);
        }
        let verdict = Entry::judge(known.as_deref(), part, resolved, self.forgive_unknown)?;
        if verdict == Verdict::Repeat {
            return Ok(Applied::Repeat);
        }
        let kinds = self.kinds;
        let entry = match known {
            Some(entry) => entry,
            None => self.sources.entry(part.source.clone()).or_insert_with(|| Entry::new(kinds)),
        };
        if part.epoch > entry.epoch {
            // It was taken for ended, or is read once more: its row was taken away and made again.
            self.lows.take(kinds, entry);
            (entry.ended, entry.gone) = (false, false);
            self.lows.give(kinds, entry);
            entry.restart(part.epoch, 0);
        }
        let mut loss = None;
        if verdict == Verdict::Close {
            self.gaps += 1;
            self.complete(part, arrived_ms);
            return Ok(Applied::Closed(Loss::again(part)));
        }
        if verdict == Verdict::Skip {
            let applied = entry.applied;
            loss = Some(Loss::Gap { source: part.source.clone(), epoch: part.epoch, applied, next: part.n });
            self.gaps += 1;
            entry.restart(part.epoch, part.n - 1);
        }
        if entry.open_parts == 0 && part.emission() != FIRST {
            loss.get_or_insert(Loss::again(part));
        }
        if entry.open_parts == 0 && part.trimmed {
            loss.get_or_insert(Loss::Trimmed { source: part.source.clone(), n: part.n });
        }
        entry.open_parts = part.parts;
        entry.open_emission = part.emission();
        entry.seen.push(part.part);
        if entry.seen.len() == part.parts as usize {
            self.complete(part, arrived_ms);
        }
        Ok(loss.map_or(Applied::New, Applied::NewAfter))
    }

    /// The last part of a batch is in, or nothing of it is left to come: its number, watermark and end count now.
    fn complete(&mut self, part: &BatchPart, arrived_ms: i64) {
        let kinds = self.kinds;
        let Some(entry) = self.sources.get_mut(&part.source) else { return };
        self.lows.take(kinds, entry);
        entry.restart(part.epoch, part.n);
        entry.forgive = false;
        entry.watermarks.raise_all(&part.watermarks);
        let ends = part.end && !entry.ended;
        if ends {
            entry.ended = true;
            entry.ended_ms = arrived_ms;
        }
        self.lows.give(kinds, entry);
        if ends {
            let (last, status) = (entry.watermarks, entry.status.clone());
            for child in &part.children {
                let id = SourceId { stream: part.source.stream.clone(), shard: child.clone() };
                self.add_child(id, last, &status);
            }
        }
        self.advance();
    }

    /// A child counts from its parent's end on, at the parent's last watermark (two parents: at the smaller), also when
    /// no control record has named either: the first may be older than the end, and come after it.
    fn add_child(&mut self, id: SourceId, last: Watermarks, status: &[Status]) {
        let kinds = self.kinds;
        let child = self.sources.entry(id).or_insert_with(|| Entry::new(kinds));
        if child.applied > 0 || child.ended {
            return;
        }
        self.lows.take(kinds, child);
        let fresh = child.watermarks == Watermarks::NONE && !child.heir;
        child.watermarks = if fresh { last } else { child.watermarks.min(&last) };
        child.heir = true;
        if !child.in_set {
            child.status = status.to_vec();
            child.in_set = true;
        }
        self.lows.give(kinds, child);
    }

    /// Takes the leader's full source set, which arrived in the exchange stream at `arrived_ms`; a record seen before
    /// is dropped (`None`). What it shows to be lost is counted.
    ///
    /// Ended sources that are out of the set are forgotten `keep_ms` after their END: by then no copy of their batches
    /// can be in the stream any more.
    pub fn apply_control(&mut self, control: &Control, arrived_ms: i64, keep_ms: i64) -> Option<Vec<Loss>> {
        let catches_up = self.blind && control.catch_up && control.number >= self.control;
        if control.number <= self.control && !catches_up {
            return None;
        }
        self.control = control.number;
        let losses = self.end_the_lost(control, arrived_ms);
        self.blind &= !catches_up;
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
            entry.ended &= !std::mem::take(&mut entry.gone);
            (entry.in_set, entry.named) = (true, true);
        }
        self.bury(control, arrived_ms, keep_ms);
        self.lows = Lows::of(kinds, self.sources.values());
        self.advance();
        Some(losses)
    }

    /// A source that has left the set has ended, and all it ever put stands before this record: its END is lost, or
    /// another program read it to its end. A child that was never named may be younger than a set that still names an
    /// ended source.
    fn end_the_lost(&mut self, control: &Control, arrived_ms: i64) -> Vec<Loss> {
        let ended = |id: &SourceId| self.sources.get(id).is_some_and(|s| s.ended);
        let older = control.sources.keys().any(ended);
        let left = |id: &SourceId, s: &Entry| s.in_set && (s.named || !older) && !control.sources.contains_key(id);
        let gone = |(id, s): &(&SourceId, &mut Entry)| !s.ended && left(id, s);
        let mut losses = Vec::new();
        for (source, entry) in self.sources.iter_mut().filter(gone) {
            losses.push(Loss::End { source: source.clone(), epoch: entry.epoch, applied: entry.applied });
            (entry.ended, entry.ended_ms, entry.gone) = (true, arrived_ms, true);
        }
        self.gaps += losses.len() as u64;
        losses
    }

    fn bury(&mut self, control: &Control, arrived_ms: i64, keep_ms: i64) {
        // States of older versions did not note when.
        let dead = self.sources.values_mut().filter(|s| s.ended && s.ended_ms == 0);
        dead.for_each(|s| s.ended_ms = arrived_ms);
        self.sources.retain(|id, s| {
            !s.ended || control.sources.contains_key(id) || arrived_ms.saturating_sub(s.ended_ms) < keep_ms
        });
    }

    /// Moves the lane's watermarks to the minimum over the sources that count. When none does, to the furthest of those that
    /// are out: where each comes back that asks to, so what was put before all fell silent is closed, too.
    fn advance(&mut self) {
        if self.control == 0 || self.blind {
            return;
        }
        let ended = self.ended();
        for kind in 0..self.kinds.count() {
            match self.lows.low(kind) {
                Some(low) => self.reached.raise(kind, low),
                None if ended => self.reached.raise(kind, i64::MAX),
                None => {
                    let out = self.sources.values().filter(|entry| entry.in_set && !entry.ended);
                    if let Some(furthest) = out.map(|entry| entry.watermarks.get(kind)).max() {
                        self.reached.raise(kind, furthest);
                    }
                }
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
