//! The protobuf messages of an envelope; field numbers are the format.
//!
//! A number is never given a second meaning. A batch part is always written plain, because its bytes must come out the
//! same again; a control record of many sources is packed: its sources differ in little but their shard's number, and
//! it must fit one item of the state table (400 KB) and one record (1 MB) whatever the size of the fleet.

use bytes::Bytes;
use prost::Message as _;

use super::{BatchPart, EnvelopeError};
use crate::exchange::source::{SourceId, Status, Watermarks};
use crate::log::StreamId;
use crate::shard::ShardId;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Envelope {
    #[prost(message, optional, tag = "1")]
    pub(super) batch: Option<Batch>,
    #[prost(message, optional, tag = "2")]
    pub(super) control: Option<Control>,
    #[prost(message, optional, tag = "3")]
    pub(super) packed: Option<Packed>,
}

/// A long control record: a zstd frame of `Control`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Packed {
    /// Bytes of the frame's content.
    #[prost(uint64, tag = "1")]
    pub(super) length: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) frame: Bytes,
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
    #[prost(bool, tag = "11")]
    pub(super) diverged: bool,
    #[prost(bool, tag = "12")]
    pub(super) trimmed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Control {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(message, repeated, tag = "2")]
    pub(super) sources: Vec<Source>,
    #[prost(bool, tag = "3")]
    pub(super) catch_up: bool,
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
            diverged: part.diverged,
            trimmed: part.trimmed,
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
            diverged: self.diverged,
            trimmed: self.trimmed,
        })
    }
}

impl Control {
    pub(super) fn from_control(control: &super::Control) -> Self {
        let sources = control
            .sources
            .iter()
            .map(|(id, status)| Source::from_id(id, status.iter().map(|s| u32::from(s.code())).collect()));
        Self { number: control.number, sources: sources.collect(), catch_up: control.catch_up }
    }

    pub(super) fn into_control(self) -> Result<super::Control, EnvelopeError> {
        if self.number == 0 {
            return Err(EnvelopeError::Malformed("control record number 0".into()));
        }
        let sources = self.sources.into_iter().map(|source| {
            let status = source.status.iter().map(|code| Status::from_code(i64::from(*code))).collect();
            (source.into_id(), status)
        });
        Ok(super::Control { number: self.number, sources: sources.collect(), catch_up: self.catch_up })
    }
}

/// A control record longer than this is packed.
const PLAIN_BYTES: usize = 1024;
/// No source set is longer: some 900,000 sources.
const MOST_BYTES: u64 = 64 << 20;
/// As for state: the sources' ids are as good as the same to it at any level.
const LEVEL: i32 = 3;

impl Envelope {
    /// The control record, packed where that makes it smaller.
    pub(super) fn from_control(control: &super::Control) -> Self {
        let control = Control::from_control(control);
        let plain = control.encode_to_vec();
        // Packing fails for want of memory only: the plain record is right as well.
        let frame = (plain.len() > PLAIN_BYTES).then(|| zstd::bulk::compress(&plain, LEVEL).ok()).flatten();
        match frame.filter(|frame| frame.len() < plain.len()) {
            Some(frame) => {
                let packed = Packed { length: plain.len() as u64, frame: frame.into() };
                Self { packed: Some(packed), ..Self::default() }
            }
            None => Self { control: Some(control), ..Self::default() },
        }
    }
}

impl Packed {
    pub(super) fn unpack(&self) -> Result<Control, EnvelopeError> {
        let malformed = |what: String| EnvelopeError::Malformed(format!("packed control record: {what}"));
        let capacity = usize::try_from(self.length.min(MOST_BYTES)).map_err(|e| malformed(e.to_string()))?;
        let plain = zstd::bulk::decompress(&self.frame, capacity).map_err(|e| malformed(e.to_string()))?;
        if plain.len() as u64 != self.length {
            return Err(malformed(format!("{} bytes instead of {}", plain.len(), self.length)));
        }
        Control::decode(plain.as_slice()).map_err(|e| malformed(e.to_string()))
    }
}
