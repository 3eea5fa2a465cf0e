//! The envelope of every record in the exchange stream, specified here.
//!
//! ```text
//! "FSX1" | CRC-32 of the rest, big endian | protobuf `Envelope`
//! ```
//! The payload inside a batch part is the stage's business. A batch's envelopes are deterministic: the same message has
//! the same bytes, which is what lets a new owner prove (by the CRC in the cut) that it re-emits what was emitted. The
//! fields are `wire`'s.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

use super::source::{SourceId, SourceSet, Watermarks};
use crate::shard::ShardId;

mod wire;

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
    /// emission.
    pub expired: u64,
    /// Whether this was computed from all the records and came out otherwise than the cut said. With `expired` it tells
    /// two emissions of one batch apart ([`BatchPart::emission`]).
    pub diverged: bool,
    /// Whether records of the source before this batch may have expired unread: in no batch, and in no number.
    pub trimmed: bool,
    /// The stage's bytes.
    pub payload: Bytes,
}

impl BatchPart {
    /// Which emission of its batch it is of; a later one is greater. The same emission has the same bytes.
    pub fn emission(&self) -> (u64, bool) {
        (self.expired, self.diverged)
    }
}

/// A numbered record of the leader: the full source set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The control record's number, one line for the job, from 1.
    pub number: u64,
    /// Every source and its status per feed kind.
    pub sources: SourceSet,
    /// Put for lanes that lost records: nothing of what the leader committed before was left out on the way to here.
    pub catch_up: bool,
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
            Message::Control(control) => wire::Envelope::from_control(control),
        };
        framed(&wire)
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
        match (wire.batch, wire.control, wire.packed) {
            (Some(batch), None, None) => Ok(Message::Batch(batch.into_part()?)),
            (None, Some(control), None) => Ok(Message::Control(control.into_control()?)),
            (None, None, Some(packed)) => Ok(Message::Control(packed.unpack()?.into_control()?)),
            _ => Err(EnvelopeError::Malformed("neither batch nor control".into())),
        }
    }
}

fn framed(wire: &wire::Envelope) -> Bytes {
    let body = wire.encode_to_vec();
    let mut out = BytesMut::with_capacity(HEADER + body.len());
    out.put_slice(MAGIC);
    out.put_u32(crc32fast::hash(&body));
    out.put_slice(&body);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::source::Status;
    use crate::log::StreamId;

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
            diverged: true,
            trimmed: true,
            payload: Bytes::from_static(b"payload"),
        }
    }

    #[test]
    fn messages_survive_the_wire() {
        let batch = Message::Batch(part());
        assert_eq!(Envelope::decode(&Envelope::encode(&batch)), Ok(batch));
        let sources = SourceSet::from([(part().source, vec![Status::Live, Status::Return])]);
        let control = Message::Control(Control { number: 9, sources, catch_up: true });
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

    fn control(sources: u32) -> Control {
        let id = |n| SourceId { stream: part().source.stream, shard: ShardId::new(format!("shardId-{n:012}")) };
        let status = |n| vec![if n % 3 == 0 { Status::Idle } else { Status::Live }, Status::Live];
        let sources = (0..sources).map(|n| (id(n), status(n))).collect();
        Control { number: 7, sources, catch_up: true }
    }

    /// Above some 5,700 sources the item passed 400 KB, and no source set was ever committed again.
    #[test]
    fn a_control_record_of_ten_thousand_sources_fits_an_item() {
        let control = control(10_000);
        let data = Envelope::encode(&Message::Control(control.clone()));
        println!("{} bytes", data.len());
        assert!(data.len() < 100_000, "{} bytes", data.len());
        assert_eq!(Envelope::decode(&data), Ok(Message::Control(control)));
    }

    #[test]
    fn a_long_control_record_of_an_older_version_stays_readable() {
        let control = control(100);
        let old = wire::Envelope { control: Some(wire::Control::from_control(&control)), ..wire::Envelope::default() };
        assert_eq!(Envelope::decode(&framed(&old)), Ok(Message::Control(control)));
    }

    #[test]
    fn a_packed_record_that_says_a_wrong_length_is_refused() {
        let good = wire::Envelope::from_control(&control(100));
        let length = good.packed.as_ref().unwrap().length;
        for said in [0, length - 1, length + 1, u64::MAX] {
            let packed = good.packed.clone().map(|packed| wire::Packed { length: said, ..packed });
            let data = framed(&wire::Envelope { packed, ..wire::Envelope::default() });
            assert!(matches!(Envelope::decode(&data), Err(EnvelopeError::Malformed(_))), "{said} bytes");
        }
    }
}
