//! Collects the panes of one lane and encodes them in parts of bounded size.
//!
//! Sizes are upper bounds while a part is filled: indices into the string table only shrink when the part gets its own.

use std::collections::BTreeMap;

use prost::Message;

use super::{Accounting, Cell, ExchangeError, Key, Quality, RttHistogram, Subnet, VERSION};
use crate::flow::FeedKind;
use crate::wire::flowshift::exchange::v1 as wire;

/// The string table in order of ids, and the panes in order with ranks in that table.
type Sorted = (Vec<Subnet>, Vec<(Key, Cell)>);

/// Collects the panes of one lane and encodes them.
#[derive(Debug)]
pub struct Builder {
    topology_hash: Vec<u8>,
    subnets: BTreeMap<String, (usize, Subnet)>,
    panes: Vec<(Key, Cell)>,
    accounting: Option<Accounting>,
}

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
        cell.quality.truncated_hashes.sort_unstable();
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
        let base_s = self.panes.iter().map(|((_, _, _, start), _)| *start).min().unwrap_or(0);
        let topology_hash = self.topology_hash.clone();
        let mut parts = Vec::new();
        let mut part = Part::new(&topology_hash, base_s, self.accounting);
        let (table, panes) = self.sorted()?;
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
                let full = std::mem::replace(&mut part, Part::new(&topology_hash, base_s, None));
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

    fn sorted(self) -> Result<Sorted, ExchangeError> {
        let mut ranks = vec![0; self.subnets.len()];
        let mut table = Vec::with_capacity(self.subnets.len());
        for (rank, (number, subnet)) in self.subnets.into_values().enumerate() {
            ranks[number] = rank;
            table.push(subnet);
        }
        let panes = self.panes.into_iter();
        let ranked = panes.map(|((src, dst, feed, start), cell)| ((ranks[src], ranks[dst], feed, start), cell));
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
    1 + prost::length_delimiter_len(len) + len
}
