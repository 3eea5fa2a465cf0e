//! Reports in time order, and their form as the agent's report.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};

use flowshift_proto::agent_report::{AgentFlow, AgentReport, Distribution, FlowStats};

use super::Region;
use super::flows::Slice;
use super::pair::Weather;
use super::random::{Purpose, stream};

/// Round-trip times of one row, microseconds; all zero when there was no sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimRtt {
    /// Samples.
    pub count: u64,
    /// Smallest.
    pub min_us: u64,
    /// Largest.
    pub max_us: u64,
    /// Sum.
    pub sum_us: u64,
}

/// One row of a report, local to remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimFlow {
    /// Address on the reporting host.
    pub local: IpAddr,
    /// Address of the peer.
    pub remote: IpAddr,
    /// Service port when the host is the server, else 0.
    pub local_port: u16,
    /// Service port when the host is the client, else 0.
    pub remote_port: u16,
    /// Bytes sent and acknowledged.
    pub bytes: u64,
    /// Data segments sent, retransmits included.
    pub segments: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Data segments received.
    pub segments_received: u64,
    /// Retransmitted segments of established connections.
    pub retransmits: u64,
    /// Retransmission timeouts of established connections.
    pub timeouts: u64,
    /// Connection attempts.
    pub connects: u64,
    /// Attempts that were refused.
    pub connect_failures: u64,
    /// Round-trip times.
    pub rtt: SimRtt,
}

impl Default for SimFlow {
    fn default() -> Self {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            local: nowhere,
            remote: nowhere,
            local_port: 0,
            remote_port: 0,
            bytes: 0,
            segments: 0,
            bytes_received: 0,
            segments_received: 0,
            retransmits: 0,
            timeouts: 0,
            connects: 0,
            connect_failures: 0,
            rtt: SimRtt::default(),
        }
    }
}

/// One report of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimReport {
    /// The agent.
    pub instance_id: String,
    /// When it was published = the end of its interval, milliseconds since 1970.
    pub time_ms: i64,
    /// Length of its interval, 25,000 to 35,000 ms: the time since the agent's report before.
    pub interval_ms: i64,
    /// 1 in the first report of an agent process; simulated agents run for ever, so 0.
    pub restarts: u64,
    /// The rows.
    pub flows: Vec<SimFlow>,
}

impl SimReport {
    /// The report as the agent sends it. A time before 1970 becomes 1970.
    pub fn into_agent_report(self) -> AgentReport {
        AgentReport {
            instance_id: self.instance_id,
            instance_type: "m7g.xlarge".to_owned(),
            agent_version: "0.2.0".to_owned(),
            time_unix_nano: u64::try_from(self.time_ms).unwrap_or_default().saturating_mul(1_000_000),
            restarts: self.restarts,
            flows: self.flows.into_iter().map(agent_flow).collect(),
            ..AgentReport::default()
        }
    }
}

fn agent_flow(flow: SimFlow) -> AgentFlow {
    const TCP: u8 = 6;
    let SimRtt { count, min_us, max_us, sum_us } = flow.rtt;
    let mean = sum_us.checked_div(count).unwrap_or_default();
    let connected = flow.connects.saturating_sub(flow.connect_failures);
    let mut stats = FlowStats::zero();
    stats.sockets_established = Some(u64::from(flow.segments > 0));
    stats.severed_connect = Some(flow.connect_failures);
    stats.connect_attempts = Some(flow.connects);
    stats.bytes_received = Some(flow.bytes_received);
    stats.bytes_delivered = Some(flow.bytes);
    stats.segments_received = Some(flow.segments_received);
    stats.segments_delivered = Some(flow.segments);
    stats.retrans_est = Some(flow.retransmits);
    stats.rtos_est = Some(flow.timeouts);
    stats.connect_us = Some(Distribution {
        count: connected,
        min: min_us * connected.min(1),
        max: min_us * connected.min(1),
        sum: min_us.saturating_mul(connected),
    });
    stats.rtt_us = Some(Distribution { count, min: min_us, max: max_us, sum: sum_us });
    stats.rtt_smoothed_us = Some(Distribution { count, min: mean, max: mean, sum: mean.saturating_mul(count) });
    AgentFlow {
        local: flow.local,
        remote: flow.remote,
        local_port: flow.local_port,
        remote_port: flow.remote_port,
        protocol: TCP,
        stats,
    }
}

impl Region {
    /// The reports published in `[from_s, to_s)` seconds after the region's start, in time order (ties by agent).
    /// Negative offsets are history before the start: nothing is planted there.
    pub fn reports(&self, from_s: i64, to_s: i64) -> impl Iterator<Item = SimReport> + '_ {
        let from_ms = from_s.saturating_mul(1000);
        let mut due = BinaryHeap::new();
        for agent in &self.agents {
            let k = agent.first_at(self.seed, from_ms);
            due.push(Reverse((agent.published_ms(self.seed, k), agent.number, k)));
        }
        let weather = vec![Weather::default(); self.pairs.len()];
        Reports { region: self, due, to_ms: to_s.saturating_mul(1000), weather }
    }
}

struct Reports<'a> {
    region: &'a Region,
    /// (time, agent, number) of each agent's next report.
    due: BinaryHeap<Reverse<(i64, usize, i64)>>,
    to_ms: i64,
    weather: Vec<Weather>,
}

impl Iterator for Reports<'_> {
    type Item = SimReport;

    fn next(&mut self) -> Option<SimReport> {
        let Reverse((end_ms, number, k)) = self.due.pop()?;
        if end_ms >= self.to_ms {
            return None;
        }
        let region = self.region;
        let agent = region.agents.get(number)?;
        self.due.push(Reverse((agent.published_ms(region.seed, k + 1), number, k + 1)));
        let start_ms = agent.published_ms(region.seed, k - 1);
        let mut rng = stream(region.seed, Purpose::Flows, number as u64, k);
        let middle_ms = start_ms + (end_ms - start_ms) / 2;
        let agents = region.agents_in.get(agent.subnet).copied().unwrap_or(1).max(1);
        let mut flows = Vec::with_capacity(512);
        for pair_number in region.pairs_of.get(agent.subnet).into_iter().flatten().copied() {
            let (Some(pair), Some(weather)) = (region.pairs.get(pair_number), self.weather.get_mut(pair_number)) else {
                continue;
            };
            let (minute, shares) = weather.at(pair, region.seed, pair_number, middle_ms);
            let slice = Slice {
                region,
                pair,
                agent: agent.within,
                minute,
                shares,
                effect: region.effect(pair_number, start_ms, end_ms),
                minutes: (end_ms - start_ms) as f64 / 60_000.0,
                part: 1.0 / agents as f64,
                day: middle_ms.div_euclid(86_400_000),
            };
            slice.rows(&mut rng, &mut flows);
        }
        Some(SimReport {
            instance_id: agent.instance_id.clone(),
            time_ms: region.start_s.saturating_mul(1000).saturating_add(end_ms),
            interval_ms: end_ms - start_ms,
            restarts: 0,
            flows,
        })
    }
}
