//! Takes one Kinesis record apart.
//!
//! Order of the checks: magic, length, MD5, message, indices. Only when all of them passed is anything taken as a
//! sub-record; an index or key that leads nowhere makes the whole a plain record, never part of one.

use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;

use super::wire::{AggregatedRecord, SubRecord};
use super::{Kpl, OutOfRange};
use crate::log::Record;
use crate::shard::HashRange;

pub(super) const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const DIGEST: usize = 16;

/// Why a record that begins like an aggregate is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing fits between magic and MD5.
    Short,
    /// The MD5 is not that of the message.
    Checksum,
    /// The message, one of its records or one of their keys cannot be read.
    Undecodable,
}

impl Reason {
    /// The word in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Checksum => "md5",
            Self::Undecodable => "undecodable",
        }
    }
}

/// What one Kinesis record turned out to be.
#[derive(Debug)]
pub enum Split {
    /// One record; `reason` when it began like an aggregate.
    Plain {
        /// The record as it was.
        record: Record,
        /// Why it is no aggregate.
        reason: Option<Reason>,
    },
    /// An aggregate.
    Aggregate {
        /// The records it holds, in order, numbered from 0 by their place in it, without those dropped.
        records: Vec<Record>,
        /// How many lie outside the shard's range, dropped or kept.
        outside: u64,
    },
}

/// The place of a partition key in the hash-key space: its MD5 as a number.
pub fn hash_key(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

/// Takes `record` of a shard with hash keys `range` apart.
pub fn split(kpl: Kpl, range: HashRange, record: Record) -> Split {
    if !record.data.starts_with(&MAGIC) {
        return Split::Plain { record, reason: None };
    }
    match sub_records(kpl, range, &record) {
        Ok((records, outside)) => Split::Aggregate { records, outside },
        Err(reason) => Split::Plain { record, reason: Some(reason) },
    }
}

/// A partition key and where it lies, found out once per aggregate.
struct Key {
    text: Arc<str>,
    hash: u128,
}

fn sub_records(kpl: Kpl, range: HashRange, record: &Record) -> Result<(Vec<Record>, u64), Reason> {
    let end = record.data.len().checked_sub(DIGEST).filter(|end| *end > MAGIC.len()).ok_or(Reason::Short)?;
    let message = record.data.slice(MAGIC.len()..end);
    if kpl.verify_md5 && Md5::digest(&message)[..] != record.data[end..] {
        return Err(Reason::Checksum);
    }
    let aggregate = AggregatedRecord::decode(message).map_err(|_| Reason::Undecodable)?;
    let keys = aggregate.partition_keys.into_iter().map(|text| Key { hash: hash_key(&text), text: text.into() });
    let keys: Vec<Key> = keys.collect();
    let hashes = aggregate.hash_keys.iter().map(|text| text.parse::<u128>().map_err(|_| Reason::Undecodable));
    let hashes: Vec<u128> = hashes.collect::<Result<_, _>>()?;
    let mut kept = Vec::new();
    let mut outside = 0;
    for (sub_sequence, bytes) in (0u64..).zip(aggregate.records) {
        let (key, hash, data) = resolve(&keys, &hashes, bytes)?;
        if !range.contains(hash) {
            outside += 1;
            if kpl.out_of_range == OutOfRange::Drop {
                continue;
            }
        }
        kept.push(Record {
            sequence: record.sequence.clone(),
            sub_sequence,
            arrived_ms: record.arrived_ms,
            partition_key: Arc::clone(key),
            data,
        });
    }
    Ok((kept, outside))
}

/// Partition key, hash key and payload of one sub-record.
fn resolve<'a>(keys: &'a [Key], hashes: &[u128], bytes: Bytes) -> Result<(&'a Arc<str>, u128, Bytes), Reason> {
    let sub = SubRecord::decode(bytes).map_err(|_| Reason::Undecodable)?;
    let place = |index: u64| usize::try_from(index).map_err(|_| Reason::Undecodable);
    let index = place(sub.partition_key.ok_or(Reason::Undecodable)?)?;
    let key = keys.get(index).ok_or(Reason::Undecodable)?;
    let hash = match sub.hash_key {
        None => key.hash,
        Some(index) => *hashes.get(place(index)?).ok_or(Reason::Undecodable)?,
    };
    Ok((&key.text, hash, sub.data.ok_or(Reason::Undecodable)?))
}
