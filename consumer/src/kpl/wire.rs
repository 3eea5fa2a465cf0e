//! The protobuf message inside an aggregate, and nothing of what it means.
//!
//! Two steps, so that no lying length makes us reserve memory: the outer message keeps sub-records as slices, and
//! each is decoded when it is reached. The fields that the format requires are optional here, because this decoder
//! would otherwise take a missing one for zero.

use bytes::Bytes;
use prost::Message;

/// `AggregatedRecord`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AggregatedRecord {
    /// Partition keys, each once.
    #[prost(string, repeated, tag = "1")]
    pub(super) partition_keys: Vec<String>,
    /// Explicit hash keys, decimal, each once.
    #[prost(string, repeated, tag = "2")]
    pub(super) hash_keys: Vec<String>,
    /// Encoded [`SubRecord`]s.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(super) records: Vec<Bytes>,
}

/// `Record`; its tags (field 4) are passed over.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SubRecord {
    /// Index into the partition keys; required.
    #[prost(uint64, optional, tag = "1")]
    pub(super) partition_key: Option<u64>,
    /// Index into the explicit hash keys.
    #[prost(uint64, optional, tag = "2")]
    pub(super) hash_key: Option<u64>,
    /// The payload; required.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(super) data: Option<Bytes>,
}
