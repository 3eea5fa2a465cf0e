//! One line of a recording: one pair in one window, as a pane.
//!
//! For: the fields of the exam's window format; unknown fields are passed over. Not for: which pair a number is.
//! Invariant: no number in a line can make the work grow beyond the line's length, and none can make it fail.

use flowshift_detector::PaneCell;
use flowshift_detector::pane::{PeerCounts, RTT_MAX_US, RTT_MIN_US};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

/// Width of a bin in the logarithm of the round-trip time in µs.
const BIN: f64 = 0.05;
/// Reporting hosts told apart; beyond the detector's own sample only their number counts.
const MAX_AGENTS: u64 = 4_096;

/// A line as it is written.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    /// Start of the window, epoch s.
    pub(super) t: i64,
    /// Number of the pair.
    pub(super) pair: u32,
    /// Ids of its ends, when the line says them.
    pub(super) src: Option<String>,
    pub(super) dst: Option<String>,
    flows: u64,
    #[serde(default)]
    bytes: u64,
    packets: u64,
    retransmits: u64,
    retransmit_flows: u64,
    #[serde(default)]
    max_retransmits: u64,
    #[serde(default)]
    timeouts: u64,
    #[serde(default)]
    connects: u64,
    #[serde(default)]
    connect_failures: u64,
    #[serde(default)]
    agents: u64,
    #[serde(default)]
    agents_full: u64,
    #[serde(default)]
    hist: (i64, Vec<u64>),
    /// Peer, flows, retransmits, sum of round-trip times in µs, their number.
    #[serde(default)]
    peers: Vec<(u64, u64, u64, u64, u64)>,
}

impl Line {
    /// The pane it is.
    pub(super) fn cell(&self) -> PaneCell {
        let mut cell = PaneCell::default();
        let counters = &mut cell.counters;
        (counters.flows, counters.bytes, counters.segments) = (self.flows, self.bytes, self.packets);
        (counters.retransmits.est, counters.retransmit_flows) = (self.retransmits, self.retransmit_flows);
        (counters.timeouts.est, counters.connects) = (self.timeouts, self.connects);
        counters.connect_failures = self.connect_failures;
        cell.max_retransmits = self.max_retransmits;
        cell.quality.records = self.flows;
        for agent in 0..self.agents.min(MAX_AGENTS) {
            let hash = xxh3_64(&agent.to_le_bytes());
            cell.quality.agents.record(hash);
            if agent < self.agents_full {
                cell.quality.truncated.record(hash);
            }
        }
        let (first, counts) = &self.hist;
        for (offset, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            // In floats, because the first bin may be any integer.
            let middle_us = ((*first as f64 + offset as f64 + 0.5) * BIN).exp().round();
            cell.rtt.record_values((middle_us as u64).clamp(RTT_MIN_US, RTT_MAX_US), *count);
        }
        for &(peer, flows, retransmits, rtt_sum_us, rtt_n) in self.peers.iter().filter(|row| row.0 != REST) {
            cell.peers.record(peer, &PeerCounts { flows, retransmits, rtt_sum_us, rtt_n });
        }
        cell
    }
}

/// The row that stands for all other peers.
const REST: u64 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(json: &str) -> PaneCell {
        serde_json::from_str::<Line>(json).unwrap().cell()
    }

    #[test]
    fn every_count_arrives_in_its_place() {
        let cell = cell(
            r#"{"t":60,"pair":3,"src":"a","dst":"b","flows":5,"bytes":900,"packets":40,"retransmits":4,"retransmit_flows":2,
                "max_retransmits":3,"timeouts":1,"connects":7,"connect_failures":6,"agents":4,"agents_full":1,"peers_n":3,
                "hist":[140,[1,0,2]],"peers":[[9,3,4,3000,2],[0,2,0,900,1]],"of_a_later_version":{}}"#,
        );
        let c = &cell.counters;
        assert_eq!((c.flows, c.bytes, c.segments, c.retransmits.est, c.retransmit_flows), (5, 900, 40, 4, 2));
        assert_eq!((cell.max_retransmits, c.timeouts.est, c.connects, c.connect_failures), (3, 1, 7, 6));
        assert_eq!((cell.quality.records, cell.quality.agents.count(), cell.quality.truncated.count()), (5, 4, 1));
        assert_eq!((cell.rtt.n(), cell.rtt.min_us(), cell.rtt.max_us()), (3, Some(1_124), Some(1_243)));
        let peers: Vec<_> = cell.peers.iter().map(|(id, counts)| (id, counts.flows, counts.rtt_sum_us)).collect();
        assert_eq!(peers, [(9, 3, 3_000)], "the rest is no peer");
    }

    #[test]
    fn numbers_at_the_end_of_their_range_do_no_harm() {
        const MAX: u64 = u64::MAX;
        let line = format!(
            r#"{{"t":-60,"pair":0,"flows":{MAX},"packets":{MAX},"retransmits":{MAX},"retransmit_flows":0,"agents":{MAX},
                "agents_full":{MAX},"hist":[{},[1,{MAX}]],"peers":[[{MAX},{MAX},1,{MAX},1]]}}"#,
            i64::MAX - 1
        );
        let cell = cell(&line);
        assert_eq!(cell.rtt.n(), MAX);
        assert!(cell.quality.is_biased());
        let low = self::cell(&line.replace(&(i64::MAX - 1).to_string(), &i64::MIN.to_string()));
        assert_eq!(low.rtt.min_us(), Some(1));
    }

    #[test]
    fn forty_agents_are_about_forty() {
        // Numbers 1..=40 as hashes were taken for 10^19 agents: the sample estimates from how small its hashes are.
        let line = r#"{"t":0,"pair":0,"flows":1,"packets":1,"retransmits":0,"retransmit_flows":0,"agents":40,"agents_full":0}"#;
        assert!((25..60).contains(&cell(line).quality.agents.count()));
    }
}
