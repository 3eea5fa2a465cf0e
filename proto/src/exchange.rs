//! What AGGREGATE sends to DETECT: partial panes of one lane, in parts of bounded size.
//!
//! The envelope (source, number, part) is the engine's. Invariant: the bytes depend only on what was added, not on the
//! order of adding: subnets and panes are sorted, each part carries its own string table, and accounting travels in
//! the first part. What a histogram bin means is the detector's business.

use std::collections::BTreeMap;

use prost::Message;
use prost::encoding::encoded_len_varint;

use crate::flow::FeedKind;
use crate::reason::{Reason, ReasonCounts};
use crate::wire::flowshift::exchange::v1 as wire;
pub use crate::wire::flowshift::exchange::v1::{Counters, PeerRow, Quality, RttHistogram, Subnet};

/// The version written.
pub const VERSION: u32 = 1;
/// Largest payload that is decoded, bytes.
pub const MAX_DECODE_BYTES: usize = 4 << 20;

/// A batch cannot be built or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The protobuf encoding is broken.
    #[error("exchange batch is broken: {0}")]
    Broken(String),
    /// It was written by a program that knows another version.
    #[error("exchange batch has version {0}, known is 1")]
    UnknownVersion(u32),
    /// It is larger than what is decoded.
    #[error("exchange batch has {0} bytes, above {MAX_DECODE_BYTES}")]
    TooLarge(usize),
    /// Its parts contradict each other.
    #[error("exchange batch is inconsistent: {0}")]
    Inconsistent(&'static str),
    /// The same pane of the same pair was added twice.
    #[error("pane {pane_start_s} of {src} to {dst} was added twice")]
    RepeatedPane {
        /// Source.
        src: String,
        /// Destination.
        dst: String,
        /// Start, epoch seconds.
        pane_start_s: i64,
    },
    /// One pane alone is larger than a part may be.
    #[error("pane {pane_start_s} of {src} to {dst} needs {bytes} bytes, a part has {max}")]
    PaneTooLarge {
        /// Source.
        src: String,
        /// Destination.
        dst: String,
        /// Start, epoch seconds.
        pane_start_s: i64,
        /// Bytes needed.
        bytes: usize,
        /// Bytes of a part.
        max: usize,
    },
}

/// What one pair did in one pane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// Sums.
    pub counters: Counters,
    /// RTT.
    pub rtt: RttHistogram,
    /// Peers; sorted by hash when encoded.
    pub peers: Vec<PeerRow>,
    /// Quality of the feed.
    pub quality: Quality,
}

/// What became of the records of a batch: `records_in` = `accounted` + the sum of `reasons`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounting {
    /// Records read.
    pub records_in: u64,
    /// Records that are in panes.
    pub accounted: u64,
    /// Records that are not.
    pub reasons: ReasonCounts,
}

impl RttHistogram {
    /// A histogram of `(bin, count)` in ascending order of bins; empty bins are left out.
    ///
    /// # Errors
    /// When the bins do not ascend.
    pub fn from_bins(bins: impl IntoIterator<Item = (u32, u64)>) -> Result<Self, ExchangeError> {
        let mut histogram = Self::default();
        let mut last = None;
        for (bin, count) in bins.into_iter().filter(|(_, count)| *count > 0) {
            let delta = match last {
                None => Some(bin),
                Some(last) => bin.checked_sub(last).filter(|delta| *delta > 0),
            };
            histogram.bin_deltas.push(delta.ok_or(ExchangeError::Inconsistent("bins do not ascend"))?);
            histogram.counts.push(count);
            last = Some(bin);
        }
        Ok(histogram)
    }

    /// `(bin, count)` in ascending order of bins. Deltas of a decoded batch never overflow.
    pub fn bins(&self) -> impl Iterator<Item = (u32, u64)> {
        let bins = self.bin_deltas.iter().scan(0u32, |bin, delta| {
            *bin = bin.saturating_add(*delta);
            Some(*bin)
        });
        bins.zip(self.counts.iter().copied())
    }

    fn check(&self) -> Result<(), ExchangeError> {
        if self.bin_deltas.len() != self.counts.len() {
            return Err(ExchangeError::Inconsistent("bins and counts differ in number"));
        }
        if self.bin_deltas.iter().skip(1).any(|delta| *delta == 0) || self.counts.contains(&0) {
            return Err(ExchangeError::Inconsistent("bins do not ascend or are empty"));
        }
        if self.bin_deltas.iter().map(|delta| u64::from(*delta)).sum::<u64>() > u64::from(u32::MAX) {
            return Err(ExchangeError::Inconsistent("a bin is above 2^32"));
        }
        Ok(())
    }
}

/// Collects the panes of one lane and encodes them.
#[derive(Debug)]
pub struct Builder {
    topology_hash: Vec<u8>,
    subnets: BTreeMap<String, (usize, Subnet)>,
    panes: Vec<(Key, Cell)>,
    accounting: Option<Accounting>,
}

/// Order of panes: source, destination (as ranks once sorted), feed, start.
type Key = (usize, usize, FeedKind, i64);

impl Builder {
    /// An empty batch mapped by the topology with this content hash.
    pub fn new(topology_hash: &[u8]) -> Self {
        Self { topology_hash: topology_hash.to_vec(), subnets: BTreeMap::new(), panes: Vec::new(), accounting: None }
    }

    fn intern(&mut self, subnet: &Subnet) -> usize {
        if let Some((number, _)) = self.subnets.get(&subnet.id) {
            return *number;
        }
        let number = self.subnets.len();
        self.subnets.insert(subnet.id.clone(), (number, subnet.clone()));
        number
    }

    /// Adds what one directed pair did in one pane. The first description of a subnet id stands.
    pub fn pane(&mut self, src: &Subnet, dst: &Subnet, feed: FeedKind, pane_start_s: i64, mut cell: Cell) {
        cell.peers.sort_by_key(|row| row.peer);
        cell.quality.agent_hashes.sort_unstable();
        cell.quality.agent_full_hashes.sort_unstable();
        let key = (self.intern(src), self.intern(dst), feed, pane_start_s);
        self.panes.push((key, cell));
    }

    /// Sets what became of the records.
    pub fn accounting(&mut self, accounting: Accounting) {
        self.accounting = Some(accounting);
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.panes.is_empty() && self.accounting.is_none()
    }

    /// Encodes everything into parts of at most `max_bytes` each; no part when nothing was added.
    ///
    /// # Errors
    /// When a pane was added twice, or one pane does not fit into a part.
    pub fn finish(self, max_bytes: usize) -> Result<Vec<Vec<u8>>, ExchangeError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let (table, panes) = self.sorted()?;
        let base_s = panes.iter().map(|((_, _, _, start), _)| *start).min().unwrap_or(0);
        let mut parts = Vec::new();
        let mut part = Part::new(&self.topology_hash, base_s, self.accounting);
        for ((src, dst, feed, start), cell) in panes {
            let pane = wire::PairPane {
                src: u32::try_from(src).unwrap_or(u32::MAX),
                dst: u32::try_from(dst).unwrap_or(u32::MAX),
                feed: feed as i32,
                pane_offset_s: start.abs_diff(base_s),
                counters: Some(cell.counters),
                rtt: Some(cell.rtt).filter(|rtt| *rtt != RttHistogram::default()),
                peers: cell.peers,
                quality: Some(cell.quality).filter(|quality| *quality != Quality::default()),
            };
            if part.bytes_with(&pane, &table) > max_bytes && !part.panes.is_empty() {
                let full = std::mem::replace(&mut part, Part::new(&self.topology_hash, base_s, None));
                parts.push(full.encode(&table));
            }
            let bytes = part.bytes_with(&pane, &table);
            if bytes > max_bytes {
                let (src, dst) = (table[src].id.clone(), table[dst].id.clone());
                return Err(ExchangeError::PaneTooLarge { src, dst, pane_start_s: start, bytes, max: max_bytes });
            }
            part.push(pane, &table);
        }
        parts.push(part.encode(&table));
        Ok(parts)
    }

    /// The string table in order of ids, and the panes in order with ranks in that table.
    fn sorted(&self) -> Result<(Vec<Subnet>, Vec<(Key, Cell)>), ExchangeError> {
        let mut ranks = vec![0; self.subnets.len()];
        let mut table = Vec::with_capacity(self.subnets.len());
        for (rank, (number, subnet)) in self.subnets.values().enumerate() {
            ranks[*number] = rank;
            table.push(subnet.clone());
        }
        let ranked = self.panes.iter().map(|((src, dst, feed, start), cell)| {
            let key = (ranks[*src], ranks[*dst], *feed, *start);
            (key, cell.clone())
        });
        let mut panes: Vec<_> = ranked.collect();
        panes.sort_by_key(|(key, _)| *key);
        match panes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some([((src, dst, _, start), _), _]) => Err(ExchangeError::RepeatedPane {
                src: table[*src].id.clone(),
                dst: table[*dst].id.clone(),
                pane_start_s: *start,
            }),
            _ => Ok((table, panes)),
        }
    }
}

/// A part while it is filled; sizes are upper bounds, since indices only shrink when it is encoded.
struct Part {
    batch: wire::Batch,
    panes: Vec<wire::PairPane>,
    used: BTreeMap<u32, u32>,
    bytes: usize,
}

impl Part {
    fn new(topology_hash: &[u8], base_s: i64, accounting: Option<Accounting>) -> Self {
        let batch = wire::Batch {
            version: VERSION,
            topology_hash: topology_hash.to_vec(),
            subnets: Vec::new(),
            base_s,
            panes: Vec::new(),
            accounting: accounting.map(|accounting| accounting.to_wire()),
        };
        let bytes = batch.encoded_len();
        Self { batch, panes: Vec::new(), used: BTreeMap::new(), bytes }
    }

    fn bytes_with(&self, pane: &wire::PairPane, table: &[Subnet]) -> usize {
        let mut ends = vec![pane.src, pane.dst];
        ends.dedup();
        let new = ends.into_iter().filter(|end| !self.used.contains_key(end));
        let subnets: usize = new.map(|end| field_len(table[end as usize].encoded_len())).sum();
        self.bytes + subnets + field_len(pane.encoded_len())
    }

    fn push(&mut self, pane: wire::PairPane, table: &[Subnet]) {
        self.bytes = self.bytes_with(&pane, table);
        self.used.insert(pane.src, 0);
        self.used.insert(pane.dst, 0);
        self.panes.push(pane);
    }

    fn encode(mut self, table: &[Subnet]) -> Vec<u8> {
        for (local, (global, slot)) in (0..).zip(self.used.iter_mut()) {
            *slot = local;
            self.batch.subnets.push(table[*global as usize].clone());
        }
        for pane in &mut self.panes {
            pane.src = self.used[&pane.src];
            pane.dst = self.used[&pane.dst];
        }
        self.batch.panes = self.panes;
        self.batch.encode_to_vec()
    }
}

fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

impl Accounting {
    /// Whether every record read is accounted or counted under a reason.
    pub fn balances(&self) -> bool {
        self.accounted.checked_add(self.reasons.total()) == Some(self.records_in)
    }

    fn to_wire(self) -> wire::Accounting {
        let reasons = self.reasons.iter().filter(|(_, count)| *count > 0);
        wire::Accounting {
            records_in: self.records_in,
            accounted: self.accounted,
            reasons: reasons
                .map(|(reason, count)| wire::ReasonCount { reason: reason.to_wire() as i32, count })
                .collect(),
        }
    }

    fn from_wire(accounting: &wire::Accounting) -> Result<Self, ExchangeError> {
        let mut reasons = ReasonCounts::default();
        for row in &accounting.reasons {
            let reason = Reason::from_wire(row.reason).ok_or(ExchangeError::Inconsistent("a reason is unknown"))?;
            reasons.add(reason, row.count);
        }
        Ok(Self { records_in: accounting.records_in, accounted: accounting.accounted, reasons })
    }
}

/// One part of a batch, decoded and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    topology_hash: Vec<u8>,
    subnets: Vec<Subnet>,
    panes: Vec<(Key, Cell)>,
    accounting: Option<Accounting>,
}

/// One pane of a decoded part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaneRef<'a> {
    /// Source.
    pub src: &'a Subnet,
    /// Destination.
    pub dst: &'a Subnet,
    /// Kind of feed.
    pub feed: FeedKind,
    /// Start, epoch seconds.
    pub pane_start_s: i64,
    /// What the pair did.
    pub cell: &'a Cell,
}

impl Batch {
    /// Decodes and checks one part.
    ///
    /// # Errors
    /// When the bytes are no batch of version 1, or an index, histogram or order in it is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, ExchangeError> {
        if bytes.len() > MAX_DECODE_BYTES {
            return Err(ExchangeError::TooLarge(bytes.len()));
        }
        let batch = wire::Batch::decode(bytes).map_err(|error| ExchangeError::Broken(error.to_string()))?;
        if batch.version != VERSION {
            return Err(ExchangeError::UnknownVersion(batch.version));
        }
        if batch.subnets.windows(2).any(|pair| pair[0].id >= pair[1].id) {
            return Err(ExchangeError::Inconsistent("subnets do not ascend"));
        }
        let mut panes: Vec<(Key, Cell)> = Vec::with_capacity(batch.panes.len());
        for pane in batch.panes {
            let key = key_of(&pane, batch.base_s, batch.subnets.len())?;
            if panes.last().is_some_and(|(last, _)| *last >= key) {
                return Err(ExchangeError::Inconsistent("panes do not ascend"));
            }
            let rtt = pane.rtt.unwrap_or_default();
            rtt.check()?;
            if pane.peers.windows(2).any(|pair| pair[0].peer >= pair[1].peer) {
                return Err(ExchangeError::Inconsistent("peers do not ascend"));
            }
            let counters = pane.counters.unwrap_or_default();
            let quality = pane.quality.unwrap_or_default();
            panes.push((key, Cell { counters, rtt, peers: pane.peers, quality }));
        }
        let accounting = batch.accounting.as_ref().map(Accounting::from_wire).transpose()?;
        Ok(Self { topology_hash: batch.topology_hash, subnets: batch.subnets, panes, accounting })
    }

    /// Content hash of the topology that mapped the addresses.
    pub fn topology_hash(&self) -> &[u8] {
        &self.topology_hash
    }

    /// What became of the records, if this part says it.
    pub fn accounting(&self) -> Option<&Accounting> {
        self.accounting.as_ref()
    }

    /// The panes, ascending by source, destination, feed and start.
    pub fn panes(&self) -> impl Iterator<Item = PaneRef<'_>> {
        self.panes.iter().map(|((src, dst, feed, pane_start_s), cell)| PaneRef {
            src: &self.subnets[*src],
            dst: &self.subnets[*dst],
            feed: *feed,
            pane_start_s: *pane_start_s,
            cell,
        })
    }
}

fn key_of(pane: &wire::PairPane, base_s: i64, subnets: usize) -> Result<Key, ExchangeError> {
    let index = |index: u32| usize::try_from(index).ok().filter(|index| *index < subnets);
    let (Some(src), Some(dst)) = (index(pane.src), index(pane.dst)) else {
        return Err(ExchangeError::Inconsistent("a subnet index is out of range"));
    };
    let feed = match pane.feed {
        0 => FeedKind::Reports,
        1 => FeedKind::FlowLogs,
        _ => return Err(ExchangeError::Inconsistent("a feed kind is unknown")),
    };
    let start = base_s.checked_add_unsigned(pane.pane_offset_s);
    Ok((src, dst, feed, start.ok_or(ExchangeError::Inconsistent("a pane start overflows"))?))
}
