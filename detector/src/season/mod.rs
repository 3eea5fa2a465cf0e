//! What a pair usually does at this time of day.
//!
//! For: baselines that know the season: 96 slots of a quarter of an hour, each pooled with its two neighbours over the
//! last 14 days.
//! Not for: the level of the last hours; the tests keep that themselves.
//! Invariant: a page holds one finished slot of one day for all pairs of a lane and never changes; only what was pooled
//! for the slot in use, and the slot being filled, are in a lane's state.
//! Reading order: `bins` (a compact histogram), `cell` (one pair in one slot), `page`, `shelf` (which pages exist and
//! which are at hand), `pool` (many cells make a baseline).

mod bins;
mod cell;
mod page;
mod pool;
mod shelf;

pub use page::{PageError, PageKey};

pub(crate) use bins::Bins;
pub(crate) use cell::{Released, SlotCell, Tally};
pub(crate) use page::SlotPage;
pub(crate) use pool::{Level, Levels, Past, SlotBaseline};
pub(crate) use shelf::{PageIndex, Shelf};

/// Length of a slot, s.
pub const SLOT_S: i64 = 900;
/// Slots in a day.
pub(crate) const SLOTS: i64 = 96;
/// Days that are pooled.
pub(crate) const DAYS: i64 = 14;

/// Number of the slot that holds a time (epoch s), counted from the epoch.
pub(crate) fn slot_of(time_s: i64) -> i64 {
    time_s.div_euclid(SLOT_S)
}

/// The past slots that make the baseline of a slot, by day (yesterday first): the same time of day and its neighbours.
pub(crate) fn pooled_slots(slot: i64) -> impl Iterator<Item = [i64; 3]> {
    (1..=DAYS).map(move |day| {
        let same = slot.saturating_sub(day * SLOTS);
        [same - 1, same, same + 1]
    })
}
