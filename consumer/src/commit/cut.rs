//! The cut: what an owner promises to emit before it emits anything.
//!
//! It stands on the lease row, is the only authority for n, and lets any later owner recompute the same batch and
//! prove by the CRC that it is the same.

use bytes::Bytes;
use prost::Message;

/// A committed cut. Field numbers are the stored format.
#[derive(Clone, PartialEq, Message)]
pub struct Cut {
    /// The source's epoch.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// The batch's number.
    #[prost(uint64, tag = "2")]
    pub n: u64,
    /// Sequence number of the first record; empty for a batch without records.
    #[prost(string, tag = "3")]
    pub first: String,
    /// Sequence number of the last record; empty for a batch without records.
    #[prost(string, tag = "4")]
    pub last: String,
    /// Number of records.
    #[prost(uint64, tag = "5")]
    pub records: u64,
    /// Hash of the snapshot the batch was computed with.
    #[prost(string, tag = "6")]
    pub snapshot: String,
    /// Version of the stage's meaning; another version must not recompute the batch.
    #[prost(uint32, tag = "7")]
    pub semantics: u32,
    /// CRC-32 over all envelopes of the batch, in lane and part order.
    #[prost(uint32, tag = "8")]
    pub crc: u32,
    /// How far the source's records reach after the batch, per kind; an END does not change it.
    #[prost(sint64, repeated, tag = "9")]
    pub watermarks: Vec<i64>,
    /// Whether the source ends with this batch.
    #[prost(bool, tag = "10")]
    pub end: bool,
    /// The shards that go on after an end by resharding.
    #[prost(string, repeated, tag = "11")]
    pub children: Vec<String>,
    /// Number of lanes the batch was made for.
    #[prost(uint32, tag = "12")]
    pub lanes: u32,
    /// How the batch took KPL aggregates apart; 0: not at all.
    #[prost(uint32, tag = "15")]
    pub kpl: u32,
    /// The first record's place inside its aggregate; those before it belong to an earlier batch.
    #[prost(uint64, tag = "16")]
    pub first_sub: u64,
    /// The last record's place inside its aggregate; none in cuts of older versions and without records.
    #[prost(uint64, optional, tag = "17")]
    pub last_sub: Option<u64>,
    /// Whether records before the batch may have expired unread.
    #[prost(bool, tag = "18")]
    pub trimmed: bool,
}

impl Cut {
    /// The stored bytes.
    pub fn encode_bytes(&self) -> Bytes {
        Bytes::from(self.encode_to_vec())
    }
}
