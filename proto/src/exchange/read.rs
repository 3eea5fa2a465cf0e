//! Decodes and checks one part of an exchange batch.
//!
//! What passes here can be used without further checks: indices are in range, lists ascend, bins do not overflow.

use prost::Message;

use super::{Accounting, Cell, ExchangeError, Key, MAX_DECODE_BYTES, Subnet, VERSION};
use crate::flow::FeedKind;
use crate::wire::flowshift::exchange::v1 as wire;

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
