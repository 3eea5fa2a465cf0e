//! The list of state parts that a lease row names.
//!
//! It stands in the row itself, beside the checkpoint it belongs to: one conditional write moves both, so state and
//! checkpoint cannot part. Invariant: a part that a live manifest names is never overwritten by the next generation.

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

/// One keyed part of the state.
#[derive(Clone, PartialEq, Message)]
pub struct Part {
    /// Key of the part within the stream: a lane or a shard.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Generation, from 1; its parity is the slot.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// Chunks it was cut into.
    #[prost(uint32, tag = "3")]
    pub chunks: u32,
    /// CRC-32 of the state's plain bytes.
    #[prost(uint32, tag = "4")]
    pub crc: u32,
    /// Length of the state's plain bytes.
    #[prost(uint64, tag = "5")]
    pub length: u64,
    /// Epoch of the fence it was written under.
    #[prost(uint64, tag = "6")]
    pub epoch: u64,
    /// Counter of the fence it was written under.
    #[prost(sint64, tag = "7")]
    pub counter: i64,
}

/// The committed state of a shard.
#[derive(Clone, PartialEq, Message)]
pub struct Manifest {
    /// Version of this format.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The checkpoint the state belongs to, in the row's text form.
    #[prost(string, tag = "2")]
    pub checkpoint: String,
    /// The parts, in key order.
    #[prost(message, repeated, tag = "3")]
    pub parts: Vec<Part>,
}

impl Manifest {
    /// Version written.
    pub const VERSION: u32 = 1;

    /// A manifest of `parts` at `checkpoint`.
    pub fn new(checkpoint: String, mut parts: Vec<Part>) -> Self {
        parts.sort_by(|a, b| a.key.cmp(&b.key));
        Self { version: Self::VERSION, checkpoint, parts }
    }

    /// The part with this key.
    pub fn part(&self, key: &str) -> Option<&Part> {
        self.parts.iter().find(|p| p.key == key)
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
        if manifest.version == Self::VERSION {
            return Ok(manifest);
        }
        #[allow(deprecated, reason = "prost has no other way to make a decode error")]
        Err(prost::DecodeError::new(format!("manifest version {} is unknown", manifest.version)))
    }
}
