//! The encoder of our protobuf form of flow records, for producers, simulations and re-chunking.
//!
//! The decoder is [`crate::decode::flow_batch`]. Invariant: an encoded batch starts with the magic number, so that
//! readers know it by its first five bytes, and decodes to equal records.

use std::collections::BTreeMap;
use std::net::IpAddr;

use prost::Message;

use crate::flow::{FeedKind, FlowRecord, Reporter, Rtt, StateCounts};
use crate::wire::flowshift::flow::v1 as wire;

/// The number every batch starts with: the bytes `FSB1`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"FSB1");

/// Encodes records of one feed as one batch, in their order. `connect_attempts_total` is not part of this form, and
/// the feed is the one given, whatever the records say.
pub fn encode<'a>(feed: FeedKind, records: impl IntoIterator<Item = &'a FlowRecord>) -> Vec<u8> {
    let mut vpcs = Vec::new();
    let mut numbers = BTreeMap::new();
    let mut flows = Vec::new();
    for record in records {
        let vpc = match &record.vpc {
            None => 0,
            Some(id) => *numbers.entry(id.to_string()).or_insert_with(|| {
                vpcs.push(id.to_string());
                u32::try_from(vpcs.len()).unwrap_or(0)
            }),
        };
        flows.push(flow(record, vpc));
    }
    wire::FlowBatch { magic: MAGIC, vpcs, feed: feed as i32, flows }.encode_to_vec()
}

fn flow(record: &FlowRecord, vpc: u32) -> wire::Flow {
    let counters = &record.counters;
    let (retransmits, retransmits_by_state) = states(counters.retransmits);
    let (timeouts, timeouts_by_state) = states(counters.timeouts);
    let mut flow = wire::Flow {
        start_ms: record.start_ms,
        interval_ms: u32::try_from(record.end_ms.saturating_sub(record.start_ms)).unwrap_or(0),
        src: address(record.src),
        dst: address(record.dst),
        src_port: u32::from(record.src_port),
        dst_port: u32::from(record.dst_port),
        protocol: u32::from(record.protocol),
        vpc,
        bytes: counters.bytes,
        segments: counters.segments,
        retransmits,
        retransmits_by_state,
        timeouts,
        timeouts_by_state,
        connects: counters.connects,
        connect_failures: counters.connect_failures,
        resets: counters.resets,
        rejects: counters.rejects,
        rtt: None,
        rtt_samples_us: Vec::new(),
        rtt_buckets: Vec::new(),
        reporter: match record.reporter {
            Reporter::Src => wire::Reporter::Src as i32,
            Reporter::Dst => wire::Reporter::Dst as i32,
        },
    };
    match &record.rtt {
        Rtt::Unknown => {}
        Rtt::Summary(s) => {
            flow.rtt = Some(wire::RttSummary { count: s.count, min_us: s.min_us, max_us: s.max_us, sum_us: s.sum_us });
        }
        Rtt::Samples(samples) => flow.rtt_samples_us.clone_from(samples),
        Rtt::Buckets(buckets) => {
            flow.rtt_buckets = buckets.iter().map(|b| wire::RttBucket { le_us: b.le_us, count: b.count }).collect();
        }
    }
    flow
}

fn states(counts: StateCounts) -> (Option<u64>, Option<wire::StateCounts>) {
    match counts {
        StateCounts::Unknown => (None, None),
        StateCounts::Total(total) => (Some(total), None),
        StateCounts::ByState { syn, established, close } => (None, Some(wire::StateCounts { syn, established, close })),
    }
}

fn address(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
