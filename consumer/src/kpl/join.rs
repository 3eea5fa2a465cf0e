//! Writes an aggregate: for tests, and for producers that want fewer, larger records.
//!
//! The bytes are those that AWS's own libraries write. Whether the result fits a Kinesis record is for the caller to
//! see.

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;

use super::split::MAGIC;
use super::wire::{AggregatedRecord, SubRecord};

/// One record to put into an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Its partition key.
    pub partition_key: String,
    /// Its hash key, overriding the partition key's hash. Put the aggregate itself under the same one: a reader drops
    /// what lies outside the shard the aggregate came to.
    pub hash_key: Option<u128>,
    /// The payload.
    pub data: Bytes,
}

/// The aggregate of `records`, in order.
pub fn join(records: &[Joined]) -> Bytes {
    let mut aggregate = AggregatedRecord::default();
    for record in records {
        let partition_key = Some(place(&mut aggregate.partition_keys, record.partition_key.clone()));
        let hash_key = record.hash_key.map(|key| place(&mut aggregate.hash_keys, key.to_string()));
        let sub = SubRecord { partition_key, hash_key, data: Some(record.data.clone()) };
        aggregate.records.push(sub.encode_to_vec().into());
    }
    let message = aggregate.encode_to_vec();
    [&MAGIC, message.as_slice(), &Md5::digest(&message)[..]].concat().into()
}

/// The place of a key in its table, at the end if it is new.
fn place(table: &mut Vec<String>, key: String) -> u64 {
    let index = table.iter().position(|known| *known == key).unwrap_or_else(|| {
        table.push(key);
        table.len() - 1
    });
    index as u64
}
