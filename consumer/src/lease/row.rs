//! A lease row as read: KCL's items, and ours beside them.
//!
//! Reading is lenient where another program may have written (an unknown attribute is left alone, one that
//! older rows lack has its default) and strict where only we write (a broken cut or manifest is an error, never a fresh
//! start). Not here: writing, which is [`HeldLease`](super::HeldLease)'s alone.

use std::fmt;

use super::attribute;
use super::held::bytes_per_second;
use crate::commit::{Cut, Manifest};
use crate::exchange::Status;
use crate::resolve::Resolution;
use crate::shard::{HashRange, SequenceNumber, Shard, ShardId};
use crate::table::{Item, Value};
use prost::Message as _;

/// How far a shard has been consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checkpoint {
    /// Nothing yet: start at the oldest record.
    TrimHorizon,
    /// Nothing yet: start at the records that arrived since the row was made.
    Latest,
    /// Nothing yet: start at a time; the time is the row's creation.
    AtTimestamp,
    /// Everything up to and with this record.
    At(SequenceNumber),
    /// Everything; the shard is closed and its children may start.
    ShardEnd,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Self::Latest => f.write_str("LATEST"),
            Self::AtTimestamp => f.write_str("AT_TIMESTAMP"),
            Self::At(sequence) => sequence.fmt(f),
            Self::ShardEnd => f.write_str("SHARD_END"),
        }
    }
}

impl Checkpoint {
    /// From KCL's text; `None` when it is neither a sentinel nor a number.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "TRIM_HORIZON" => Self::TrimHorizon,
            "LATEST" => Self::Latest,
            "AT_TIMESTAMP" => Self::AtTimestamp,
            "SHARD_END" => Self::ShardEnd,
            number => Self::At(SequenceNumber::new(number)?),
        })
    }
}

/// A lease row cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("lease row {key}: attribute {attribute} is {what}")]
pub struct RowError {
    /// The row.
    pub key: String,
    /// The attribute.
    pub attribute: &'static str,
    /// What is wrong with it.
    pub what: String,
}

/// A typed view of a lease row.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseRow {
    /// The shard.
    pub shard: ShardId,
    /// Who owns it.
    pub owner: Option<String>,
    /// The old owner during a graceful hand-over.
    pub checkpoint_owner: Option<String>,
    /// The counter that fences writes.
    pub counter: i64,
    /// How far it has been consumed.
    pub checkpoint: Checkpoint,
    /// Place of the checkpoint's record inside its aggregate; 0 for a plain record. The engine commits whole
    /// aggregates, a KCL application may not.
    pub sub_sequence: u64,
    /// End of a batch whose emission may be incomplete.
    pub pending: Option<Checkpoint>,
    /// As `sub_sequence`, for `pending`.
    pub pending_sub_sequence: u64,
    /// Parent shards.
    pub parents: Vec<ShardId>,
    /// The shard's hash range, when known.
    pub range: HashRange,
    /// Where AT_TIMESTAMP and LATEST start: [`LeaseRow::start_ms`], 0 when that is not known.
    pub created_ms: i64,
    /// Epoch of source or lanes; none before the first owner raised it.
    pub epoch: Option<u64>,
    /// The committed state.
    pub manifest: Option<Manifest>,
    /// The last cut.
    pub cut: Option<Cut>,
    /// Whether the last cut stood at the tip.
    pub at_tip: bool,
    /// Last cut with records, by kind.
    pub data: [i64; 4],
    /// Status by kind.
    pub status: [Status; 4],
    /// The kinds for which the row itself says that the source is out; in one without a status, none.
    pub said_out: [bool; 4],
    /// Whether the status was taken over from the parents after their ends.
    pub heir: bool,
    /// Floors by kind.
    pub floor: [Option<i64>; 4],
    /// How often the source has asked to come back.
    pub asked: i64,
    /// Of an exchange shard: event time that its slowest lane has judged and said, by kind, epoch milliseconds.
    pub reached: [Option<i64>; 4],
    /// An operator's last decision about the shard; used already when its number is not above `resolved`.
    pub resolution: Option<Resolution>,
    /// Number of the last decision that a commit rests on; 0: none.
    pub resolved: i64,
    /// What its owner was given, bytes per second.
    pub bytes_per_second: u64,
    /// Owner changes since the last checkpoint.
    pub switches: i64,
    /// Where a row with AT_TIMESTAMP or LATEST starts, epoch milliseconds: as set, else its creation; none in a row
    /// that another program made and no worker of ours has had yet.
    pub start_ms: Option<i64>,
    /// The owner as this engine last wrote it.
    pub assigned: Option<String>,
    /// Child shards, as written at shard end.
    pub children: Vec<ShardId>,
    /// When the shard was last read to its tip, up to the checkpoint or before it, epoch milliseconds.
    pub seen_ms: Option<i64>,
    /// Why its owner stopped and tries again, as it said itself; none: it goes on.
    pub trouble: Option<String>,
}

impl LeaseRow {
    /// Reads a row; rows of other entity types give `Ok(None)`.
    ///
    /// # Errors
    /// An attribute is missing or malformed.
    pub fn read(item: &Item) -> Result<Option<Self>, RowError> {
        if item.string(attribute::ENTITY).is_some_and(|kind| kind != "LEASE") {
            return Ok(None);
        }
        let key = item.string(attribute::KEY).unwrap_or_default().to_owned();
        let bad = |attribute, what: &str| RowError { key: key.clone(), attribute, what: what.to_owned() };
        if let Some(stream) = stream_of(item) {
            let what = format!("{stream}: the table is that of a KCL application of several streams");
            return Err(bad(attribute::STREAM_NAME, &what));
        }
        let counter = item.number(attribute::COUNTER).ok_or_else(|| bad(attribute::COUNTER, "missing"))?;
        let checkpoint = item.string(attribute::CHECKPOINT).unwrap_or("TRIM_HORIZON");
        let checkpoint = Checkpoint::parse(checkpoint).ok_or_else(|| bad(attribute::CHECKPOINT, checkpoint))?;
        let pending = match item.string(attribute::PENDING) {
            None => None,
            Some(text) => Some(Checkpoint::parse(text).ok_or_else(|| bad(attribute::PENDING, text))?),
        };
        let sub = |name| item.number(name).and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
        let hash = |name, default| match item.string(name) {
            None => Ok(default),
            Some(text) => text.parse::<u128>().map_err(|_| bad(name, text)),
        };
        let range = HashRange { start: hash(attribute::RANGE_START, 0)?, end: hash(attribute::RANGE_END, u128::MAX)? };
        let binary = |name| match (item.get(name), item.bytes(name)) {
            (Some(_), None) => Err(bad(name, "not binary")),
            (_, bytes) => Ok(bytes),
        };
        let manifest = match binary(attribute::MANIFEST)? {
            None => None,
            Some(bytes) => Some(Manifest::decode(bytes).map_err(|e| bad(attribute::MANIFEST, &e.to_string()))?),
        };
        let cut = match binary(attribute::CUT)? {
            None => None,
            Some(bytes) => Some(Cut::decode(bytes.clone()).map_err(|e| bad(attribute::CUT, &e.to_string()))?),
        };
        let start_ms = item.number(attribute::START).or_else(|| item.number(attribute::CREATED));
        Ok(Some(Self {
            shard: ShardId::new(key.clone()),
            owner: item.string(attribute::OWNER).map(str::to_owned),
            checkpoint_owner: item.string(attribute::CHECKPOINT_OWNER).map(str::to_owned),
            counter,
            checkpoint,
            sub_sequence: sub(attribute::SUB_SEQUENCE),
            pending,
            pending_sub_sequence: sub(attribute::PENDING_SUB_SEQUENCE),
            parents: item.strings(attribute::PARENTS).into_iter().map(ShardId::new).collect(),
            range,
            created_ms: start_ms.unwrap_or_default(),
            epoch: item.number(attribute::EPOCH).and_then(|e| u64::try_from(e).ok()),
            manifest,
            cut,
            at_tip: item.number(attribute::TIP) == Some(1),
            data: attribute::DATA.map(|name| item.number(name).unwrap_or_default()),
            status: std::array::from_fn(|kind| match item.number(attribute::STATUS[kind]) {
                Some(code) => Status::from_code(code),
                None => Status::initial(kind),
            }),
            said_out: attribute::STATUS.map(|name| item.number(name) == Some(i64::from(Status::Idle.code()))),
            heir: item.number(attribute::HEIR) == Some(1),
            floor: attribute::FLOOR.map(|name| item.number(name)),
            asked: item.number(attribute::ASKED).unwrap_or_default(),
            reached: attribute::REACHED.map(|name| item.number(name)),
            resolution: match item.string(attribute::RESOLVE) {
                None => None,
                Some(text) => Some(Resolution::parse(text).ok_or_else(|| bad(attribute::RESOLVE, text))?),
            },
            resolved: item.number(attribute::RESOLVED).unwrap_or_default(),
            bytes_per_second: bytes_per_second(item, attribute::THROUGHPUT).unwrap_or_default(),
            switches: item.number(attribute::SWITCHES).unwrap_or_default(),
            start_ms,
            assigned: item.string(attribute::ASSIGNED).map(str::to_owned),
            children: item.strings(attribute::CHILDREN).into_iter().map(ShardId::new).collect(),
            seen_ms: item.number(attribute::SEEN),
            trouble: item.string(attribute::TROUBLE).map(str::to_owned),
        }))
    }
}

impl LeaseRow {
    /// What a row that cannot be read still says of how far its source went: its shard, parents, last cut and floors,
    /// and whether it is consumed; all else as in a row that nobody has had. None when its cut or a floor cannot be read
    /// either.
    pub(crate) fn read_watermarks(item: &Item) -> Option<Self> {
        let mut kept = Item::new().with(attribute::COUNTER, Value::number(0));
        for name in [attribute::KEY, attribute::PARENTS, attribute::CUT].into_iter().chain(attribute::FLOOR) {
            if let Some(value) = item.get(name) {
                kept.set(name, value.clone());
            }
        }
        if item.string(attribute::CHECKPOINT) == Some(&Checkpoint::ShardEnd.to_string()) {
            kept.set(attribute::CHECKPOINT, Value::string(Checkpoint::ShardEnd.to_string()));
        }
        let floors = attribute::FLOOR.into_iter().all(|name| item.get(name).is_none() || item.number(name).is_some());
        Self::read(&kept).ok().flatten().filter(|_| floors)
    }

    /// Whether an engine of ours has had the row: its parents had ended by then.
    pub fn is_begun(&self) -> bool {
        self.epoch.is_some() || self.manifest.is_some()
    }

    /// The operator's decision that no commit rests on yet.
    pub fn pending_resolution(&self) -> Option<Resolution> {
        self.resolution.filter(|r| r.number > self.resolved)
    }
}

/// The stream that a row of KCL's multi-stream mode names; none in the table of one stream.
///
/// There a row's key is `account:stream:creation:shard` and the stream stands in an attribute, too. Taken for the row
/// of a shard of that name, it would be one of a shard that does not exist.
pub fn stream_of(item: &Item) -> Option<&str> {
    if item.string(attribute::ENTITY).is_some_and(|kind| kind != "LEASE") {
        return None;
    }
    let in_key = || item.string(attribute::KEY).and_then(|key| key.split(':').nth(1));
    item.string(attribute::STREAM_NAME).or_else(in_key)
}

/// A row for a shard nobody has read yet, as KCL 3.x writes it.
pub fn new_row(shard: &Shard, start: &Checkpoint, now_ms: i64) -> Item {
    let mut item = Item::new()
        .with(attribute::KEY, Value::string(shard.id.as_str()))
        .with(attribute::ENTITY, Value::string("LEASE"))
        .with(attribute::COUNTER, Value::number(0))
        .with(attribute::CHECKPOINT, Value::string(start.to_string()))
        .with(attribute::SUB_SEQUENCE, Value::number(0))
        .with(attribute::SWITCHES, Value::number(0))
        .with(attribute::RANGE_START, Value::string(shard.range.start.to_string()))
        .with(attribute::RANGE_END, Value::string(shard.range.end.to_string()))
        .with(attribute::CREATED, Value::number(now_ms));
    if !shard.parents.is_empty() {
        let parents = shard.parents.iter().map(|p| p.as_str().to_owned()).collect();
        item.set(attribute::PARENTS, Value::Ss(parents));
    }
    item
}
