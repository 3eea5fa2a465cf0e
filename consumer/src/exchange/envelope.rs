//! The envelope of every record in the exchange stream, specified here.
//!
//! ```text
//! "FSX1" | CRC-32 of the rest, big endian | protobuf `Envelope`
//! ```
//! The payload inside a batch part is the stage's business. Envelopes are deterministic: the same message has the same
//! bytes, which is what lets a new owner prove (by the CRC in the cut) that it re-emits what was emitted.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

use super::source::{SourceId, SourceSet, Status, Watermarks};
use crate::log::StreamId;
use crate::shard::ShardId;

const MAGIC: &[u8; 4] = b"FSX1";
const HEADER: usize = 8;

/// Why bytes are not an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Too short, or another format altogether.
    #[error("not an exchange envelope ({0} bytes)")]
    Foreign(usize),
    /// Damaged on the way.
    #[error("envelope checksum differs")]
    Checksum,
    /// Right checksum, wrong content.
    #[error("envelope cannot be decoded: {0}")]
    Malformed(String),
}

/// One lane's part of a numbered batch. A part with an empty payload is the lane's heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPart {
    /// Who made the batch.
    pub source: SourceId,
    /// The source's epoch; a higher one starts at n = 1 again.
    pub epoch: u64,
    /// The batch's number within source and epoch, from 1 without gaps.
    pub n: u64,
    /// This part's index, from 0.
    pub part: u32,
    /// How many parts the lane gets of this batch, at least 1.
    pub parts: u32,
    /// The source's watermarks after the batch.
    pub watermarks: Watermarks,
    /// Whether the source ends with this batch.
    pub end: bool,
    /// At an end by resharding: the shards that go on.
    pub children: Vec<ShardId>,
    /// Records that the batch's cut counted and the input stream no longer had when this was made; 0 in a first
    /// emission. Tells two emissions of one batch apart: the same number means the same bytes.
    pub expired: u64,
    /// The stage's bytes.
    pub payload: Bytes,
}

/// A numbered record of the leader: the full source set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The control record's number, one line for the job, from 1.
    pub number: u64,
    /// Every source and its status per feed kind.
    pub sources: SourceSet,
}

/// What an envelope holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Data, or a heartbeat.
    Batch(BatchPart),
    /// The leader speaks.
    Control(Control),
}

/// Encodes and decodes envelopes.
#[derive(Debug, Clone, Copy)]
pub struct Envelope;

impl Envelope {
    /// The record's bytes.
    pub fn encode(message: &Message) -> Bytes {
        let wire = match message {
            Message::Batch(part) => {
                wire::Envelope { batch: Some(wire::Batch::from_part(part)), ..wire::Envelope::default() }
            }
            Message::Control(control) => {
                wire::Envelope { control: Some(wire::Control::from_control(control)), ..wire::Envelope::default() }
            }
        };
        let body = wire.encode_to_vec();
        let mut out = BytesMut::with_capacity(HEADER + body.len());
        out.put_slice(MAGIC);
        out.put_u32(crc32fast::hash(&body));
        out.put_slice(&body);
        out.freeze()
    }

    /// The message in a record's bytes.
    pub fn decode(data: &Bytes) -> Result<Message, EnvelopeError> {
        if data.len() < HEADER || &data[..4] != MAGIC {
            return Err(EnvelopeError::Foreign(data.len()));
        }
        let body = data.slice(HEADER..);
        if crc32fast::hash(&body).to_be_bytes() != data[4..HEADER] {
            return Err(EnvelopeError::Checksum);
        }
        let wire = wire::Envelope::decode(body).map_err(|e| EnvelopeError::Malformed(e.to_string()))?;
        match (wire.batch, wire.control) {
            (Some(batch), None) => Ok(Message::Batch(batch.into_part()?)),
            (None, Some(control)) => Ok(Message::Control(control.into_control()?)),
            _ => Err(EnvelopeError::Malformed("neither batch nor control".into())),
        }
    }
}

/// The protobuf messages; field numbers are the format.
mod wire {
    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Envelope {
        #[prost(message, optional, tag = "1")]
        pub(super) batch: Option<Batch>,
        #[prost(message, optional, tag = "2")]
        pub(super) control: Option<Control>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Source {
        #[prost(string, tag = "1")]
        pub(super) stream: String,
        #[prost(sint64, tag = "2")]
        pub(super) created_ms: i64,
        #[prost(string, tag = "3")]
        pub(super) shard: String,
        #[prost(uint32, repeated, tag = "4")]
        pub(super) status: Vec<u32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Batch {
        #[prost(message, optional, tag = "1")]
        pub(super) source: Option<Source>,
        #[prost(uint64, tag = "2")]
        pub(super) epoch: u64,
        #[prost(uint64, tag = "3")]
        pub(super) n: u64,
        #[prost(uint32, tag = "4")]
        pub(super) part: u32,
        #[prost(uint32, tag = "5")]
        pub(super) parts: u32,
        #[prost(sint64, repeated, tag = "6")]
        pub(super) watermarks: Vec<i64>,
        #[prost(bool, tag = "7")]
        pub(super) end: bool,
        #[prost(string, repeated, tag = "8")]
        pub(super) children: Vec<String>,
        #[prost(bytes = "bytes", tag = "9")]
        pub(super) payload: Bytes,
        #[prost(uint64, tag = "10")]
        pub(super) expired: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Control {
        #[prost(uint64, tag = "1")]
        pub(super) number: u64,
        #[prost(message, repeated, tag = "2")]
        pub(super) sources: Vec<Source>,
    }

    impl Source {
        fn from_id(id: &SourceId, status: Vec<u32>) -> Self {
            Self {
                stream: id.stream.name.clone(),
                created_ms: id.stream.created_ms,
                shard: id.shard.as_str().to_owned(),
                status,
            }
        }

        fn into_id(self) -> SourceId {
            let stream = StreamId { name: self.stream, created_ms: self.created_ms };
            SourceId { stream, shard: ShardId::new(self.shard) }
        }
    }

    impl Batch {
        pub(super) fn from_part(part: &BatchPart) -> Self {
            Self {
                source: Some(Source::from_id(&part.source, Vec::new())),
                epoch: part.epoch,
                n: part.n,
                part: part.part,
                parts: part.parts,
                watermarks: part.watermarks.as_slice().to_vec(),
                end: part.end,
                children: part.children.iter().map(|c| c.as_str().to_owned()).collect(),
                payload: part.payload.clone(),
                expired: part.expired,
            }
        }

        pub(super) fn into_part(self) -> Result<BatchPart, EnvelopeError> {
            let source = self.source.ok_or_else(|| EnvelopeError::Malformed("batch without source".into()))?;
            if self.n == 0 || self.parts == 0 || self.part >= self.parts {
                let text = format!("batch {} part {} of {}", self.n, self.part, self.parts);
                return Err(EnvelopeError::Malformed(text));
            }
            Ok(BatchPart {
                source: source.into_id(),
                epoch: self.epoch,
                n: self.n,
                part: self.part,
                parts: self.parts,
                watermarks: Watermarks::from_slice(&self.watermarks),
                end: self.end,
                children: self.children.into_iter().map(ShardId::new).collect(),
                payload: self.payload,
                expired: self.expired,
            })
        }
    }

    impl Control {
        pub(super) fn from_control(control: &super::Control) -> Self {
            let sources = control
                .sources
                .iter()
                .map(|(id, status)| Source::from_id(id, status.iter().map(|s| u32::from(s.code())).collect()));
            Self { number: control.number, sources: sources.collect() }
        }

        pub(super) fn into_control(self) -> Result<super::Control, EnvelopeError> {
            if self.number == 0 {
                return Err(EnvelopeError::Malformed("control record number 0".into()));
            }
            let sources = self.sources.into_iter().map(|source| {
                let status = source.status.iter().map(|code| Status::from_code(i64::from(*code))).collect();
                (source.into_id(), status)
            });
            Ok(super::Control { number: self.number, sources: sources.collect() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> BatchPart {
        let stream = StreamId { name: "flows".into(), created_ms: 1_700_000_000_000 };
        BatchPart {
            source: SourceId { stream, shard: ShardId::new("shardId-000000000001") },
            epoch: 3,
            n: 17,
            part: 1,
            parts: 2,
            watermarks: Watermarks::from_slice(&[5, i64::MIN]),
            end: true,
            children: vec![ShardId::new("shardId-000000000002")],
            expired: 4,
            payload: Bytes::from_static(b"payload"),
        }
    }

    #[test]
    fn messages_survive_the_wire() {
        let batch = Message::Batch(part());
        assert_eq!(Envelope::decode(&Envelope::encode(&batch)), Ok(batch));
        let sources = SourceSet::from([(part().source, vec![Status::Live, Status::Return])]);
        let control = Message::Control(Control { number: 9, sources });
        assert_eq!(Envelope::decode(&Envelope::encode(&control)), Ok(control));
    }

    #[test]
    fn damaged_or_foreign_bytes_are_refused_with_the_reason() {
        let good = Envelope::encode(&Message::Batch(part()));
        for cut in 0..good.len() {
            assert!(Envelope::decode(&good.slice(..cut)).is_err(), "prefix of {cut} bytes");
        }
        let mut flipped = good.to_vec();
        flipped[20] ^= 1;
        assert_eq!(Envelope::decode(&flipped.into()), Err(EnvelopeError::Checksum));
        assert_eq!(Envelope::decode(&Bytes::from_static(b"{\"a\":1}  ")), Err(EnvelopeError::Foreign(9)));
        let zero = Message::Batch(BatchPart { n: 0, ..part() });
        assert!(matches!(Envelope::decode(&Envelope::encode(&zero)), Err(EnvelopeError::Malformed(_))));
    }
}
