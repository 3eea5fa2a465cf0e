//! The partial panes of one batch, and the account of its records.
//!
//! Ends of pairs are small numbers while a batch is mapped (subnets of the topology, then edges); names are written once
//! per lane. Additive counters are apportioned over the panes an interval touches; what cannot be split goes whole to
//! the pane of its last millisecond.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use flowshift_consumer::exchange::{LaneId, Lanes};
use flowshift_consumer::stage::{Mapped, StageError};
use flowshift_detector::pane::{self, Counters, PeerCounts};
use flowshift_detector::{Pair, PaneCell, Subnet};
use flowshift_proto::exchange::{Accounting, Builder, Subnet as WireSubnet};
use flowshift_proto::flow::{FeedKind, FlowRecord, Rtt};
use flowshift_proto::reason::Reason;
use xxhash_rust::xxh3::xxh3_64;

use crate::convert::pane as convert;
use crate::stage::rules::Rules;
use crate::topology::Place;

/// Largest payload of a lane's part: an exchange record is at most 1 MiB with its envelope.
const PART_BYTES: usize = 900_000;

/// The place of one additive counter.
type Field = fn(&mut Counters) -> &mut u64;
/// An end of a pair while a batch is mapped: a subnet's index, or an edge's number after all subnets.
type End = u32;
/// (lane, source, destination, pane start in epoch seconds).
type Key = (LaneId, End, End, i64);

/// Panes and account of one batch.
pub(in crate::stage) struct BatchPanes<'a> {
    lanes: Lanes,
    rules: &'a Rules,
    /// Edges met in this batch, in the order of their first flow.
    edges: Vec<String>,
    cells: BTreeMap<Key, PaneCell>,
    account: Accounting,
}

impl<'a> BatchPanes<'a> {
    pub(in crate::stage) fn new(lanes: Lanes, rules: &'a Rules) -> Self {
        Self { lanes, rules, edges: Vec::new(), cells: BTreeMap::new(), account: Accounting::default() }
    }

    /// Counts records that are in no pane.
    pub(super) fn refuse(&mut self, reason: Reason, records: u64) {
        self.account.records_in = self.account.records_in.saturating_add(records);
        self.account.reasons.add(reason, records);
    }

    /// Adds a flow record that is in time. `agent`: hash of the reporting agent and whether its report was cut.
    pub(in crate::stage) fn flow(&mut self, flow: &FlowRecord, agent: Option<(u64, bool)>) {
        let vpc = flow.vpc.as_deref();
        let (Some(src), Some(dst)) = (self.end(flow.src, vpc), self.end(flow.dst, vpc)) else {
            return self.refuse(Reason::Unmapped, 1);
        };
        let subnets = u32::try_from(self.rules.topology.subnets().len()).unwrap_or(u32::MAX);
        if src >= subnets && dst >= subnets {
            return self.refuse(Reason::Unmapped, 1);
        }
        self.account.records_in += 1;
        self.account.accounted += 1;
        let lane = self.lane(src, dst);
        self.apportion(flow, lane, src, dst);
        self.whole(flow, lane, src, dst, agent);
    }

    fn end(&mut self, ip: IpAddr, vpc: Option<&str>) -> Option<End> {
        match self.rules.topology.lookup(ip, vpc) {
            Place::Subnet(index) => u32::try_from(index.get()).ok(),
            Place::Edge(name) => {
                let known = self.edges.iter().position(|edge| edge == name);
                let number = known.unwrap_or_else(|| {
                    self.edges.push(name.to_owned());
                    self.edges.len() - 1
                });
                u32::try_from(self.rules.topology.subnets().len() + number).ok()
            }
            Place::Unmapped => None,
        }
    }

    fn id(&self, end: End) -> &str {
        let (end, subnets) = (end as usize, self.rules.topology.subnets());
        match subnets.get(end) {
            Some(subnet) => &subnet.id,
            None => self.edges.get(end - subnets.len()).map(String::as_str).unwrap_or_default(),
        }
    }

    fn lane(&self, src: End, dst: End) -> LaneId {
        lane_of(self.lanes, self.id(src), self.id(dst))
    }

    /// Splits what adds up over the panes of the interval.
    fn apportion(&mut self, flow: &FlowRecord, lane: LaneId, src: End, dst: End) {
        let pane_s = self.rules.pane_s;
        let c = &flow.counters;
        let (retransmits, timeouts) = (c.retransmits.split(), c.timeouts.split());
        let values: [(u64, Field); 12] = [
            (c.segments.unwrap_or(0), |c| &mut c.segments),
            (c.bytes.unwrap_or(0), |c| &mut c.bytes),
            (retransmits.0, |c| &mut c.retransmits.syn),
            (retransmits.1, |c| &mut c.retransmits.est),
            (retransmits.2, |c| &mut c.retransmits.close),
            (timeouts.0, |c| &mut c.timeouts.syn),
            (timeouts.1, |c| &mut c.timeouts.est),
            (timeouts.2, |c| &mut c.timeouts.close),
            (c.connects.unwrap_or(0), |c| &mut c.connects),
            (c.connect_failures.unwrap_or(0), |c| &mut c.connect_failures),
            (c.resets.unwrap_or(0), |c| &mut c.resets),
            (c.rejects.unwrap_or(0), |c| &mut c.rejects),
        ];
        for (value, field) in values.into_iter().filter(|(value, _)| *value > 0) {
            for (start, share) in pane::apportion(flow.start_ms, flow.end_ms, pane_s, value) {
                if share > 0 {
                    let cell = self.cells.entry((lane, src, dst, start)).or_default();
                    let sum = field(&mut cell.counters);
                    *sum = sum.saturating_add(share);
                }
            }
        }
    }

    /// Adds what cannot be split.
    fn whole(&mut self, flow: &FlowRecord, lane: LaneId, src: End, dst: End, agent: Option<(u64, bool)>) {
        let start = pane::pane_of_last_ms(flow.last_ms().saturating_add(1), self.rules.pane_s);
        let cell = self.cells.entry((lane, src, dst, start)).or_default();
        let (syn, established, close) = flow.counters.retransmits.split();
        let data_retransmits = established.saturating_add(close);
        cell.counters.flows += 1;
        cell.counters.retransmit_flows += u64::from(data_retransmits > 0);
        cell.max_retransmits = cell.max_retransmits.max(data_retransmits);
        match &flow.rtt {
            Rtt::Samples(samples) => samples.iter().for_each(|us| cell.rtt.record(u64::from(*us))),
            Rtt::Buckets(buckets) => buckets.iter().for_each(|b| cell.rtt.record_values(b.le_us, b.count)),
            Rtt::Summary(s) => {
                cell.rtt.record_summary(s.count, s.min_us, s.max_us, s.sum_us);
            }
            Rtt::Unknown => {}
        }
        let (host, peer) = flow.reporter_and_peer();
        let mean = flow.rtt.summary().filter(|s| s.count > 0).map(|s| s.sum_us / s.count);
        let counts = PeerCounts {
            flows: 1,
            retransmits: data_retransmits.saturating_add(syn),
            rtt_n: u64::from(mean.is_some()),
            rtt_sum_us: mean.unwrap_or(0),
        };
        cell.peers.record(address_hash(peer), &counts);
        cell.quality.records += 1;
        let (agent, truncated) = agent.unwrap_or_else(|| (address_hash(host), false));
        cell.quality.agents.record(agent);
        if truncated {
            cell.quality.truncated.record(agent);
        }
    }

    /// What became of the records so far.
    pub(in crate::stage) fn account(&self) -> &Accounting {
        &self.account
    }

    /// Takes the panes out as they are, for an owner of lanes in this process: lane, pair, start of the pane in epoch
    /// seconds, cell; sorted by lane and pane.
    pub(in crate::stage) fn take(&mut self) -> Vec<(LaneId, Pair, i64, PaneCell)> {
        let ends: Vec<Subnet> = self.ends().collect();
        let named = |((lane, src, dst, start), cell): (Key, PaneCell)| {
            let (src, dst) = (ends.get(src as usize)?.clone(), ends.get(dst as usize)?.clone());
            Some((lane, Pair { src, dst }, start, cell))
        };
        let mut panes: Vec<_> = std::mem::take(&mut self.cells).into_iter().filter_map(named).collect();
        panes.sort_by(|a, b| (a.0, a.2, &a.1).cmp(&(b.0, b.2, &b.1)));
        panes
    }

    /// Encodes the batch; the account of its records travels with `account_lane`.
    pub(super) fn finish(self, account_lane: LaneId) -> Result<Mapped, StageError> {
        let failed = |e: flowshift_proto::exchange::ExchangeError| StageError::with("exchange batch", e);
        let mut kinds = [false; 4];
        kinds[0] = self.account.records_in > 0;
        let mut builders: BTreeMap<LaneId, Builder> = BTreeMap::new();
        let builder = |builders: &mut BTreeMap<LaneId, Builder>, lane| {
            builders.entry(lane).or_insert_with(|| Builder::new(&self.rules.topology_hash));
        };
        if self.account.records_in > 0 {
            builder(&mut builders, account_lane);
        }
        let ends = self.wire_ends();
        for ((lane, src, dst, start), cell) in &self.cells {
            let cell = convert::to_exchange(cell).map_err(|e| StageError::with("pane", e))?;
            builder(&mut builders, *lane);
            if let (Some(builder), Some(src), Some(dst)) =
                (builders.get_mut(lane), ends.get(*src as usize), ends.get(*dst as usize))
            {
                builder.pane(src, dst, FeedKind::Reports, *start, cell);
            }
        }
        let mut parts = BTreeMap::new();
        for (lane, mut builder) in builders {
            if lane == account_lane && self.account.records_in > 0 {
                builder.accounting(self.account);
            }
            let encoded = builder.finish(PART_BYTES).map_err(failed)?;
            parts.insert(lane, encoded.into_iter().map(Bytes::from).collect());
        }
        Ok(Mapped { parts, kinds })
    }

    /// Every end by its number.
    fn ends(&self) -> impl Iterator<Item = Subnet> + '_ {
        let subnets = self.rules.topology.subnets().iter().map(|s| {
            let az = Some(s.az.as_str()).filter(|az| !az.is_empty());
            Subnet::new(&s.id, az)
        });
        subnets.chain(self.edges.iter().map(|name| Subnet::edge(name)))
    }

    /// The wire form of every end by its number.
    fn wire_ends(&self) -> Vec<WireSubnet> {
        let vpcs = self.rules.topology.subnets().iter().map(|s| s.vpc.as_str()).chain(std::iter::repeat(""));
        self.ends().zip(vpcs).map(|(end, vpc)| convert::subnet_to_wire(&end, vpc)).collect()
    }
}

/// The lane of a pair by the ids of its ends; both directions share one.
pub(in crate::stage) fn lane_of(lanes: Lanes, a: &str, b: &str) -> LaneId {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let mut key = Vec::with_capacity(low.len() + high.len() + 1);
    key.extend_from_slice(low.as_bytes());
    key.push(0);
    key.extend_from_slice(high.as_bytes());
    lanes.of(&key)
}

fn address_hash(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(v4) => xxh3_64(&v4.octets()),
        IpAddr::V6(v6) => xxh3_64(&v6.octets()),
    }
}
