//! KPL aggregates: many records of a producer inside one Kinesis record.
//!
//! The format is the Kinesis Producer Library's: magic, a protobuf message, the MD5 of that message. Here: [`split`],
//! which turns one Kinesis record into the records it stands for, as a pure function of its bytes, the shard's hash
//! range and [`Kpl`], so that a batch recomputed later sees the same records. Not here: reading (`run::fetch`
//! calls it where records enter).
//!
//! Invariant: whatever is not exactly an aggregate comes out unchanged as one plain record, with the reason.
//! Sub-records are slices of the aggregate's buffer; nothing is copied, and memory stays below 20 times the aggregate's
//! size.

mod join;
mod split;
mod wire;

pub use join::{Joined, join};
pub use split::{Reason, Split, hash_key, split};

/// What happens to a sub-record whose hash key lies outside its shard's range.
///
/// A producer with an outdated shard map re-sends aggregates that landed on the wrong shard of a reshard, so keeping
/// them can count twice; a producer that is not the KPL may simply not care where its aggregates land.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfRange {
    /// It is dropped and counted. KCL drops the whole aggregate as soon as one of its records is outside, which also
    /// loses those that only this shard can deliver; here exactly those outside are dropped.
    #[default]
    Drop,
    /// It is kept and counted.
    Keep,
}

/// How aggregates are taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kpl {
    /// Whether an aggregate's MD5 must be right; without it anything that decodes is taken as an aggregate.
    pub verify_md5: bool,
    /// Sub-records outside their shard's range.
    pub out_of_range: OutOfRange,
}

impl Default for Kpl {
    fn default() -> Self {
        Self { verify_md5: true, out_of_range: OutOfRange::Drop }
    }
}

const ON: u32 = 1;
const UNVERIFIED: u32 = 2;
const KEEP: u32 = 4;

impl Kpl {
    /// The stored form, which a cut carries so that its batch is recomputed alike: 0 means off.
    pub(crate) fn code(kpl: Option<Self>) -> u32 {
        let Some(kpl) = kpl else { return 0 };
        let unverified = if kpl.verify_md5 { 0 } else { UNVERIFIED };
        let keep = if kpl.out_of_range == OutOfRange::Keep { KEEP } else { 0 };
        ON | unverified | keep
    }

    /// Reads [`Kpl::code`]; an error is the code of a version we do not know.
    pub(crate) fn from_code(code: u32) -> Result<Option<Self>, u32> {
        if code == 0 {
            return Ok(None);
        }
        if code & ON == 0 || code & !(ON | UNVERIFIED | KEEP) != 0 {
            return Err(code);
        }
        let out_of_range = if code & KEEP == 0 { OutOfRange::Drop } else { OutOfRange::Keep };
        Ok(Some(Self { verify_md5: code & UNVERIFIED == 0, out_of_range }))
    }
}

#[cfg(test)]
mod tests;
