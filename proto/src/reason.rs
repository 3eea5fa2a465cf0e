//! Why a record is in no pane: a closed set, and counts by it.
//!
//! A record is either accounted or counted under exactly one of these; metrics, exchange batches and `state export`
//! use the same names. Adding a reason is a change of the exchange format.

use crate::wire::flowshift::exchange::v1 as wire;

/// Why a record is in no pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It could not be decoded, or a value is out of range.
    Malformed,
    /// An address belongs to no subnet and to no edge.
    Unmapped,
    /// Its pane had closed.
    Late,
    /// Its time is too far ahead of its arrival.
    Future,
    /// It was seen before.
    Duplicate,
    /// A known format or protocol that is not read here.
    Unsupported,
    /// The stream's retention ended before it was read.
    Expired,
}

impl Reason {
    /// Every reason, in the order of the wire numbers.
    pub const ALL: [Reason; 7] = [
        Reason::Malformed,
        Reason::Unmapped,
        Reason::Late,
        Reason::Future,
        Reason::Duplicate,
        Reason::Unsupported,
        Reason::Expired,
    ];

    /// Every reason, in the order of the wire numbers.
    pub fn iter() -> impl Iterator<Item = Reason> {
        Self::ALL.into_iter()
    }

    /// The name used in metrics, answers and exports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::Unmapped => "unmapped",
            Reason::Late => "late",
            Reason::Future => "future",
            Reason::Duplicate => "duplicate",
            Reason::Unsupported => "unsupported",
            Reason::Expired => "expired",
        }
    }

    /// The number on the wire.
    pub const fn to_wire(self) -> wire::Reason {
        match self {
            Reason::Malformed => wire::Reason::Malformed,
            Reason::Unmapped => wire::Reason::Unmapped,
            Reason::Late => wire::Reason::Late,
            Reason::Future => wire::Reason::Future,
            Reason::Duplicate => wire::Reason::Duplicate,
            Reason::Unsupported => wire::Reason::Unsupported,
            Reason::Expired => wire::Reason::Expired,
        }
    }

    /// The reason with this number on the wire, if it is one.
    pub fn from_wire(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.to_wire() as i32 == number)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Records by reason. Sums saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReasonCounts([u64; Reason::ALL.len()]);

impl ReasonCounts {
    /// Counts `records` more for `reason`.
    pub fn add(&mut self, reason: Reason, records: u64) {
        let count = &mut self.0[reason as usize];
        *count = count.saturating_add(records);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &ReasonCounts) {
        for (reason, records) in other.iter() {
            self.add(reason, records);
        }
    }

    /// Records counted for `reason`.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// All records counted.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Reasons with their counts, zeros included, in the order of the wire numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire_and_has_its_own_name_and_slot() {
        let mut counts = ReasonCounts::default();
        let mut names = std::collections::BTreeSet::new();
        for (position, reason) in Reason::iter().enumerate() {
            assert_eq!(Reason::from_wire(reason.to_wire() as i32), Some(reason));
            assert_eq!(reason as usize, position);
            assert!(names.insert(reason.as_str()));
            counts.add(reason, 1 + position as u64);
        }
        assert_eq!(Reason::from_wire(0), None);
        assert_eq!(counts.total(), 28);
        assert_eq!(counts.get(Reason::Late), 3);
        counts.add(Reason::Late, u64::MAX);
        assert_eq!(counts.get(Reason::Late), u64::MAX);
    }
}
