//! One flow of an agent's report and its mapping to a flow record.

use std::net::IpAddr;

use crate::flow::{Counters, FlowRecord, Rtt, RttSummary, StateCounts};

/// All sockets of one (local address, remote address, service port, role) of one host.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentFlow {
    /// Address of the reporting host, un-mapped from `::ffff:`.
    pub local: IpAddr,
    /// Address of its peer, un-mapped from `::ffff:`.
    pub remote: IpAddr,
    /// Service port when the host is the server, else 0.
    pub local_port: u16,
    /// Service port when the host is the client, else 0.
    pub remote_port: u16,
    /// IANA protocol number; agents see TCP only.
    pub protocol: u8,
    /// Counters of the interval.
    pub stats: FlowStats,
}

/// (count, min, max, sum) of a duration, microseconds; all zero when there was no sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Samples. For RTT: one per active socket and 500 ms.
    pub count: u64,
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
    /// Sum.
    pub sum: u64,
}

/// The agent's own counters, under its own names; `None` when the report does not carry one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Sockets connecting (level).
    pub sockets_connecting: Option<u64>,
    /// Sockets established (level).
    pub sockets_established: Option<u64>,
    /// Sockets closing (level).
    pub sockets_closing: Option<u64>,
    /// Sockets closed (level).
    pub sockets_closed: Option<u64>,
    /// Sockets evicted in the interval; 8 bits wide in newer agents, not to be trusted.
    pub sockets_completed: Option<u64>,
    /// Sockets closed before they were established: failed connects.
    pub severed_connect: Option<u64>,
    /// Sockets that went from established to closed directly: resets.
    pub severed_establish: Option<u64>,
    /// Connects and SYN retransmits of the client.
    pub connect_attempts: Option<u64>,
    /// Bytes received.
    pub bytes_received: Option<u64>,
    /// Bytes sent and acknowledged.
    pub bytes_delivered: Option<u64>,
    /// Data segments received.
    pub segments_received: Option<u64>,
    /// Data segments sent, retransmits included.
    pub segments_delivered: Option<u64>,
    /// Retransmitted segments before the connection was established.
    pub retrans_syn: Option<u64>,
    /// Retransmitted segments while established.
    pub retrans_est: Option<u64>,
    /// Retransmitted segments while closing.
    pub retrans_close: Option<u64>,
    /// Retransmission timeouts before the connection was established.
    pub rtos_syn: Option<u64>,
    /// Retransmission timeouts while established.
    pub rtos_est: Option<u64>,
    /// Retransmission timeouts while closing.
    pub rtos_close: Option<u64>,
    /// First SYN to established.
    pub connect_us: Option<Distribution>,
    /// Latest RTT of each active socket every 500 ms.
    pub rtt_us: Option<Distribution>,
    /// The same of the smoothed RTT.
    pub rtt_smoothed_us: Option<Distribution>,
}

impl FlowStats {
    /// Names of the plain counters in the order agents send them.
    pub const COUNTERS: [&'static str; 18] = [
        "bytes_delivered",
        "bytes_received",
        "connect_attempts",
        "retrans_close",
        "retrans_est",
        "retrans_syn",
        "rtos_close",
        "rtos_est",
        "rtos_syn",
        "segments_delivered",
        "segments_received",
        "severed_connect",
        "severed_establish",
        "sockets_closed",
        "sockets_closing",
        "sockets_completed",
        "sockets_connecting",
        "sockets_established",
    ];
    /// Names of the distributions in the order agents send them.
    pub const DISTRIBUTIONS: [&'static str; 3] = ["connect_us", "rtt_us", "rtt_smoothed_us"];

    /// Every counter known and zero: the base for reports that are made here.
    pub fn zero() -> Self {
        let mut stats = Self::default();
        for name in Self::COUNTERS {
            if let Some(counter) = stats.counter_mut(name) {
                *counter = Some(0);
            }
        }
        for name in Self::DISTRIBUTIONS {
            if let Some(distribution) = stats.distribution_mut(name) {
                *distribution = Some(Distribution::default());
            }
        }
        stats
    }

    /// The plain counter with this name.
    pub fn counter_mut(&mut self, name: &str) -> Option<&mut Option<u64>> {
        Some(match name {
            "bytes_delivered" => &mut self.bytes_delivered,
            "bytes_received" => &mut self.bytes_received,
            "connect_attempts" => &mut self.connect_attempts,
            "retrans_close" => &mut self.retrans_close,
            "retrans_est" => &mut self.retrans_est,
            "retrans_syn" => &mut self.retrans_syn,
            "rtos_close" => &mut self.rtos_close,
            "rtos_est" => &mut self.rtos_est,
            "rtos_syn" => &mut self.rtos_syn,
            "segments_delivered" => &mut self.segments_delivered,
            "segments_received" => &mut self.segments_received,
            "severed_connect" => &mut self.severed_connect,
            "severed_establish" => &mut self.severed_establish,
            "sockets_closed" => &mut self.sockets_closed,
            "sockets_closing" => &mut self.sockets_closing,
            "sockets_completed" => &mut self.sockets_completed,
            "sockets_connecting" => &mut self.sockets_connecting,
            "sockets_established" => &mut self.sockets_established,
            _ => return None,
        })
    }

    /// The distribution with this name.
    pub fn distribution_mut(&mut self, name: &str) -> Option<&mut Option<Distribution>> {
        Some(match name {
            "connect_us" => &mut self.connect_us,
            "rtt_us" => &mut self.rtt_us,
            "rtt_smoothed_us" => &mut self.rtt_smoothed_us,
            _ => return None,
        })
    }

    /// The counters of a flow record, local to remote. Connects are the attempts without SYN retransmits, not below
    /// zero: a SYN may be retransmitted in the interval after its attempt.
    pub fn counters(&self) -> Counters {
        let connects = self.connect_attempts.map(|attempts| attempts.saturating_sub(self.retrans_syn.unwrap_or(0)));
        Counters {
            bytes: self.bytes_delivered,
            segments: self.segments_delivered,
            retransmits: by_state(self.retrans_syn, self.retrans_est, self.retrans_close),
            timeouts: by_state(self.rtos_syn, self.rtos_est, self.rtos_close),
            connects,
            connect_failures: self.severed_connect,
            connect_attempts_total: self.connect_attempts,
            resets: self.severed_establish,
            rejects: None,
        }
    }
}

/// Known as soon as one state is: the others were not worth a metric to the sender.
fn by_state(syn: Option<u64>, established: Option<u64>, close: Option<u64>) -> StateCounts {
    if syn.or(established).or(close).is_none() {
        return StateCounts::Unknown;
    }
    StateCounts::ByState { syn: syn.unwrap_or(0), established: established.unwrap_or(0), close: close.unwrap_or(0) }
}

impl AgentFlow {
    /// The flow as a record of `[start_ms, end_ms)`.
    pub fn record(&self, start_ms: i64, end_ms: i64) -> FlowRecord {
        let mut record = FlowRecord::new(start_ms, end_ms, self.local, self.remote);
        record.src_port = self.local_port;
        record.dst_port = self.remote_port;
        record.protocol = self.protocol;
        record.counters = self.stats.counters();
        if let Some(Distribution { count: count @ 1.., min, max, sum }) = self.stats.rtt_us {
            record.rtt = Rtt::Summary(RttSummary { count, min_us: min, max_us: max, sum_us: sum });
        }
        record
    }
}
