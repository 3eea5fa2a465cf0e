//! The rows of one report: what one agent saw of one pair in one interval.
//!
//! A row stands for the sockets of one (local address, remote address, service, role). Known peers keep their address
//! and distance; two in a hundred rows come from short-lived ones. Invariant: no two rows of a report have the same
//! identity, and retransmits never exceed segments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::Rng;
use rand::rngs::SmallRng;

use super::pair::{Minute, Pair, Role};
use super::planted::Effect;
use super::random::{binomial, normal, poisson};
use super::region::{Place, Region};
use super::report::{SimFlow, SimRtt};

/// Share of rows from peers seen only today.
const CHURN: f64 = 0.02;
/// Share of a client's rows that open a connection in the interval.
const OPENS: f64 = 0.7;
/// Bursts of retransmits in a single flow, per pair and minute.
const BURSTS_PER_MINUTE: f64 = 3e-4;
/// Local addresses one agent speaks for (its pods).
const LOCALS: usize = 250;
/// New clients of a deploy, and how much farther away they are.
const NEWCOMERS: usize = 48;
const NEWCOMER_DISTANCE: f64 = 2.5;
/// Where in a subnet the kinds of peers start.
const KNOWN_AT: usize = 16;
const NEWCOMERS_AT: usize = 150;
const CHURN_AT: usize = 256;
const LOCALS_AT: usize = 1024;

/// One pair in one interval of one agent.
pub(super) struct Slice<'a> {
    pub(super) region: &'a Region,
    pub(super) pair: &'a Pair,
    /// Position of the agent within its subnet.
    pub(super) agent: usize,
    pub(super) minute: Minute,
    /// Cumulative shares of the known peers.
    pub(super) shares: &'a [f64],
    pub(super) effect: Effect,
    /// Length of the interval, minutes.
    pub(super) minutes: f64,
    /// Share of the pair's rows this agent sees.
    pub(super) part: f64,
    /// Number of the day, for short-lived peers.
    pub(super) day: i64,
}

/// Who is at the other end of a row.
struct Peer {
    host: usize,
    distance: f64,
}

impl Slice<'_> {
    /// Appends the rows.
    pub(super) fn rows(&self, rng: &mut SmallRng, out: &mut Vec<SimFlow>) {
        let usual = self.minute.rows * self.minutes * self.part;
        let known = poisson(rng, usual * (1.0 + self.effect.more));
        let newcomers = poisson(rng, usual * self.effect.newcomers);
        let first = out.len();
        for _ in 0..known {
            let peer = self.known_peer(rng);
            self.row(rng, &peer, out);
        }
        for _ in 0..newcomers {
            let host = NEWCOMERS_AT + rng.random_range(0..NEWCOMERS);
            self.row(rng, &Peer { host, distance: NEWCOMER_DISTANCE.ln() }, out);
        }
        let burst = BURSTS_PER_MINUTE * self.minutes * self.part;
        if rng.random::<f64>() < burst && out.len() > first {
            let index = rng.random_range(first..out.len());
            if let Some(flow) = out.get_mut(index).filter(|flow| flow.segments > 1) {
                let resent = poisson(rng, 25.0);
                flow.retransmits += resent;
                flow.segments += resent;
            }
        }
    }

    fn known_peer(&self, rng: &mut SmallRng) -> Peer {
        if rng.random::<f64>() < CHURN {
            let day = usize::try_from(self.day.rem_euclid(8)).unwrap_or_default();
            let host = CHURN_AT + day * 90 + rng.random_range(0..90);
            return Peer { host, distance: 0.6 * self.pair.sigma * normal(rng) };
        }
        let point = rng.random::<f64>() * self.shares.last().copied().unwrap_or_default();
        let rank = self.shares.partition_point(|share| *share <= point);
        let distance = self.pair.peers.get(rank).map_or(0.0, |(_, distance)| *distance);
        Peer { host: KNOWN_AT + rank, distance }
    }

    fn row(&self, rng: &mut SmallRng, peer: &Peer, out: &mut Vec<SimFlow>) {
        let mut flow = self.identity(peer.host, out.len());
        let kind = rng.random::<f64>();
        let opens = self.pair.role == Role::Client && kind < OPENS;
        flow.connects = u64::from(opens);
        let failure = self.pair.connect_failure + self.effect.refused;
        if opens && rng.random::<f64>() < failure {
            flow.connect_failures = 1;
            out.push(flow);
            return;
        }
        let sent = 1.0 + 26.7 * self.minute.size * normal(rng).exp();
        flow.segments = sent as u64;
        flow.retransmits = binomial(rng, flow.segments, self.minute.retransmit);
        if self.effect.loss > 0.0 {
            flow.retransmits += binomial(rng, flow.segments - flow.retransmits, self.effect.loss);
        }
        flow.timeouts = binomial(rng, flow.retransmits, 0.03);
        let delivered = (flow.segments - flow.retransmits) as f64;
        flow.bytes = (delivered * self.pair.segment_bytes) as u64;
        flow.segments_received = (delivered * 0.6) as u64 + 1;
        flow.bytes_received = (flow.segments_received as f64 * self.pair.segment_bytes * 0.8) as u64;
        flow.rtt = self.rtt(rng, peer.distance);
        out.push(flow);
    }

    /// One sample per active half second; a few rows have many.
    fn rtt(&self, rng: &mut SmallRng, distance: f64) -> SimRtt {
        let sigma = self.pair.sigma;
        let centre = self.pair.rtt_us.ln() + distance + self.minute.rtt_log + 0.6 * sigma * normal(rng);
        let count = 1 + poisson(rng, 2.5);
        let mut rtt = SimRtt { count, min_us: u64::MAX, max_us: 0, sum_us: 0 };
        for _ in 0..count {
            let mut log = centre + 0.5 * sigma * normal(rng);
            if rng.random::<f64>() < self.minute.tail {
                log += 0.8 + 0.6 * normal(rng).abs();
            }
            if self.effect.rtt_share > 0.0 && rng.random::<f64>() < self.effect.rtt_share {
                log += self.effect.rtt_log;
            }
            let sample = log.exp().clamp(1.0, 60e6) as u64;
            rtt.min_us = rtt.min_us.min(sample);
            rtt.max_us = rtt.max_us.max(sample);
            rtt.sum_us += sample;
        }
        rtt
    }

    /// Addresses and ports of row `position` of the report. The position picks the local address and, when those are
    /// used up, the service port, so identities are unique.
    fn identity(&self, host: usize, position: usize) -> SimFlow {
        let round = u16::try_from(position / LOCALS).unwrap_or(u16::MAX);
        let service = self.pair.service_port.saturating_add(round);
        let (local_port, remote_port) = match self.pair.role {
            Role::Client => (0, service),
            Role::Server => (service, 0),
        };
        let local = self.region.places.get(self.pair.src);
        let remote = self.pair.dst.and_then(|dst| self.region.places.get(dst));
        let own = LOCALS_AT + 256 * self.agent + position % LOCALS;
        SimFlow {
            local: local.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |place| address(place, own, self.pair.v6)),
            remote: remote.map_or_else(|| internet(host), |place| address(place, host, self.pair.v6)),
            local_port,
            remote_port,
            ..SimFlow::default()
        }
    }
}

fn address(place: &Place, host: usize, v6: bool) -> IpAddr {
    let host = u32::try_from(host).unwrap_or_default();
    if v6 {
        IpAddr::V6(Ipv6Addr::from(u128::from(place.v6) + u128::from(host)))
    } else {
        IpAddr::V4(Ipv4Addr::from(u32::from(place.v4) + (host & 0xfff)))
    }
}

/// Addresses of the benchmark range, 198.18.0.0/15: public for us, nobody's in truth.
fn internet(host: usize) -> IpAddr {
    let host = u32::try_from(host).unwrap_or_default() & 0xffff;
    IpAddr::V4(Ipv4Addr::from((198 << 24) + (18 << 16) + host))
}
