//! What a lane remembers of one source, and how a part of it is judged.
//!
//! Invariant: judging changes nothing; of a source that is remembered, each part of a batch is next exactly once. Not
//! here: what a verdict leads to, which is the lane's (`super`); the stored form is `wire`'s.

use super::super::envelope::BatchPart;
use super::super::source::{FeedKinds, Status, Watermarks};
use super::ApplyError;

/// The emission of a batch that was never computed again.
pub(super) const FIRST: (u64, bool) = (0, false);

/// One source.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Entry {
    pub(super) epoch: u64,
    pub(super) applied: u64,
    /// Parts seen of batch `applied + 1`, and how many there are; 0 when none was seen.
    pub(super) open_parts: u32,
    pub(super) seen: Vec<u32>,
    pub(super) watermarks: Watermarks,
    pub(super) status: Vec<Status>,
    pub(super) in_set: bool,
    /// A control record has named it; without this it is in the set as the child of one that was.
    pub(super) named: bool,
    /// A parent has ended and handed its watermark on, which may be that nothing was seen.
    pub(super) heir: bool,
    /// Over because a set no longer names it, not by its END: what comes of it is dropped until one names it again.
    pub(super) gone: bool,
    pub(super) ended: bool,
    /// Which emission of the open batch is being applied.
    pub(super) open_emission: (u64, bool),
    /// The next gap is accepted: records of the shard were lost before they were read. Cleared by a whole batch.
    pub(super) forgive: bool,
    /// When the END arrived in the exchange stream, epoch milliseconds by the stream's clock.
    pub(super) ended_ms: i64,
}

/// What a part is to the marks of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    Repeat,
    /// The next part.
    Next,
    /// The next part behind a gap that is accepted.
    Skip,
    /// Of an emission with fewer records than the one whose parts are applied.
    Close,
}

impl Entry {
    /// Compares a part with what is known of its source (`None`: nothing); changes nothing.
    pub(super) fn judge(
        known: Option<&Self>,
        part: &BatchPart,
        resolved: bool,
        forgive_unknown: bool,
    ) -> Result<Verdict, ApplyError> {
        let fresh = known.is_none_or(|s| s.epoch == 0);
        let forgive = known.is_some_and(|s| s.forgive) || resolved || fresh && forgive_unknown;
        if known.is_some_and(|s| part.epoch < s.epoch) {
            return Ok(Verdict::Repeat);
        }
        // A new epoch begins at its first batch.
        let known = known.filter(|s| s.epoch == part.epoch);
        let applied = known.map_or(0, |s| s.applied);
        if part.n <= applied {
            return Ok(Verdict::Repeat);
        }
        let source_id = || Box::new(part.source.clone());
        if part.n > applied + 1 {
            let gap = || ApplyError::Gap { source_id: source_id(), epoch: part.epoch, applied, got: part.n };
            return if forgive { Ok(Verdict::Skip) } else { Err(gap()) };
        }
        let Some(open) = known.filter(|s| s.open_parts != 0) else { return Ok(Verdict::Next) };
        if part.emission() != open.open_emission {
            return Ok(if part.emission() < open.open_emission { Verdict::Repeat } else { Verdict::Close });
        }
        if part.parts != open.open_parts {
            let (expected, got) = (open.open_parts, part.parts);
            let differ = || ApplyError::Parts { source_id: source_id(), n: part.n, expected, got };
            return if resolved { Ok(Verdict::Close) } else { Err(differ()) };
        }
        Ok(if open.seen.contains(&part.part) { Verdict::Repeat } else { Verdict::Next })
    }

    pub(super) fn new(kinds: FeedKinds) -> Self {
        Self { status: (0..kinds.count()).map(Status::initial).collect(), ..Self::default() }
    }

    /// Nothing of batch `applied + 1` has been seen.
    pub(super) fn restart(&mut self, epoch: u64, applied: u64) {
        self.epoch = epoch;
        self.applied = applied;
        self.open_parts = 0;
        self.open_emission = FIRST;
        self.seen.clear();
    }
}
