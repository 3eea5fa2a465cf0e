//! What a lease row names: the parts of the committed state, in the row itself or in a directory beside it.
//!
//! The manifest stands in the row, next to the checkpoint it belongs to: one conditional write moves both, so state and
//! checkpoint cannot part. Rows are paid for by the kilobyte at every renewal, so a manifest of more than
//! [`Manifest::INLINE_BYTES`] names a directory part instead of the parts.
//! Invariant: field numbers are the stored format and never get a second meaning; version 1 stays readable.
//! Read next: [`super::part`], how a part is stored.

use bytes::Bytes;
use prost::Message;

/// The fence of an owner's writes: (epoch, lease counter at acquisition), ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence {
    /// Epoch of source or lanes; outlives lease rows.
    pub epoch: u64,
    /// Lease counter at acquisition; grows over the owners of one row.
    pub counter: i64,
}

/// One of the two places of a part's base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Slot {
    /// Version 1: `A` for odd generations, `B` for even ones.
    Parity = 0,
    /// The first.
    A = 1,
    /// The second.
    B = 2,
}

/// One keyed part of the state: a base and the deltas on it.
#[derive(Clone, PartialEq, Message)]
pub struct Part {
    /// Key of the part within the stream: a lane or a shard.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Generation of the state, from 1; it grows with every put of the part.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// Chunks the base was cut into.
    #[prost(uint32, tag = "3")]
    pub chunks: u32,
    /// CRC-32 of the state's plain bytes.
    #[prost(uint32, tag = "4")]
    pub crc: u32,
    /// Length of the state's plain bytes.
    #[prost(uint64, tag = "5")]
    pub length: u64,
    /// Epoch of the fence that base and deltas were written under.
    #[prost(uint64, tag = "6")]
    pub epoch: u64,
    /// Counter of that fence.
    #[prost(sint64, tag = "7")]
    pub counter: i64,
    /// Place of the base.
    #[prost(enumeration = "Slot", tag = "8")]
    pub slot: i32,
    /// Generation of the base; 0: there are no deltas, the base is of `generation`.
    #[prost(uint64, tag = "9")]
    pub base: u64,
    /// Number of deltas on the base, in the delta slots 0, 1, 2, …
    #[prost(uint32, tag = "10")]
    pub deltas: u32,
}

impl Part {
    /// The fence it was written under.
    pub fn fence(&self) -> Fence {
        Fence { epoch: self.epoch, counter: self.counter }
    }

    /// Generation of the base.
    pub fn base_generation(&self) -> u64 {
        if self.deltas == 0 { self.generation } else { self.base }
    }

    /// Place of the base: [`Slot::A`] or [`Slot::B`].
    pub fn base_slot(&self) -> Slot {
        match self.slot() {
            Slot::Parity if self.generation % 2 == 1 => Slot::A,
            Slot::Parity => Slot::B,
            named => named,
        }
    }
}

impl Slot {
    /// The place that is not this one.
    #[must_use]
    pub fn other(self) -> Self {
        if self == Self::A { Self::B } else { Self::A }
    }

    /// Its letter in a chunk's key.
    pub fn letter(self) -> char {
        if self == Self::B { 'B' } else { 'A' }
    }
}

/// The committed state of a shard, as its lease row names it.
#[derive(Clone, PartialEq, Message)]
pub struct Manifest {
    /// Version of this format.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The checkpoint the state belongs to, in the row's text form.
    #[prost(string, tag = "2")]
    pub checkpoint: String,
    /// The parts in key order, when there is no directory.
    #[prost(message, repeated, tag = "3")]
    pub parts: Vec<Part>,
    /// The part that lists the parts.
    #[prost(message, optional, tag = "4")]
    pub directory: Option<Part>,
}

/// What a directory part holds.
#[derive(Clone, PartialEq, Message)]
pub struct Directory {
    /// The parts in key order.
    #[prost(message, repeated, tag = "1")]
    pub parts: Vec<Part>,
}

impl Manifest {
    /// Version written. Version 1 knew neither deltas nor directories; a program of that version refuses this one.
    pub const VERSION: u32 = 2;
    /// Parts stand in the row up to this many bytes, so that a row stays within 1 KB, one write unit per renewal.
    pub const INLINE_BYTES: usize = 400;

    /// A manifest that names `parts` itself.
    pub fn new(checkpoint: String, mut parts: Vec<Part>) -> Self {
        parts.sort_by(|a, b| a.key.cmp(&b.key));
        Self { version: Self::VERSION, checkpoint, parts, directory: None }
    }

    /// A manifest that names the directory of the parts.
    pub fn with_directory(checkpoint: String, directory: Part) -> Self {
        Self { version: Self::VERSION, checkpoint, parts: Vec::new(), directory: Some(directory) }
    }

    /// The stored bytes.
    pub fn encode_bytes(&self) -> Bytes {
        Bytes::from(self.encode_to_vec())
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// Not a manifest, or of a version this program does not know.
    pub fn decode(bytes: &Bytes) -> Result<Self, prost::DecodeError> {
        let manifest: Self = Message::decode(bytes.clone())?;
        if (1..=Self::VERSION).contains(&manifest.version) {
            return Ok(manifest);
        }
        #[allow(deprecated, reason = "prost has no other way to make a decode error")]
        Err(prost::DecodeError::new(format!("manifest version {} is unknown", manifest.version)))
    }
}
