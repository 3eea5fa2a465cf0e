//! Our protobuf `FlowBatch`.
//!
//! The batch is walked and its flows are decoded one at a time into the same message, so that memory stays small
//! whatever the batch claims. The framing is checked before the first record is handed on; a flow that cannot be read
//! is counted and does not stop its neighbours.

use std::sync::Arc;

use prost::Message;

use super::error::{DecodeError, ValueError};
use super::payload::Decoded;
use super::protobuf::{Fields, Value};
use super::value::{address_bytes, port};
use crate::flow::{Counters, FeedKind, FlowRecord, Reporter, Rtt, RttBucket, RttSummary, StateCounts};
use crate::flow_batch::MAGIC;
use crate::wire::flowshift::flow::v1 as wire;

/// Longest encoding of one flow; one with every list full needs less.
const MAX_FLOW_BYTES: usize = 32 * 1024;
/// Most VPC ids in a batch.
const MAX_VPCS: usize = 4096;

/// Reads an uncompressed batch and hands its records to `sink`, in the order of the batch.
///
/// # Errors
/// When the framing is broken or the magic number is missing; the sink then got nothing.
pub fn flow_batch(bytes: &[u8], sink: &mut dyn FnMut(&FlowRecord)) -> Result<Decoded, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let header = header(bytes)?;
    let unspecified = std::net::Ipv4Addr::UNSPECIFIED.into();
    let mut record = FlowRecord::new(0, 0, unspecified, unspecified);
    record.feed = header.feed;
    let mut flow = wire::Flow::default();
    let mut decoded = Decoded::default();
    let mut position = 0;
    for field in Fields::new("FlowBatch", bytes) {
        let (4, Value::Bytes(encoded)) = field? else { continue };
        position += 1;
        match read(encoded, &header, &mut flow, &mut record) {
            Ok(()) => {
                decoded.records += 1;
                sink(&record);
            }
            Err(error) => decoded.reject(position, error),
        }
    }
    Ok(decoded)
}

struct Header {
    feed: FeedKind,
    vpcs: Vec<Arc<str>>,
}

fn header(bytes: &[u8]) -> Result<Header, DecodeError> {
    let mut header = Header { feed: FeedKind::Reports, vpcs: Vec::new() };
    let mut magic = 0;
    for field in Fields::new("FlowBatch", bytes) {
        match field? {
            (1, Value::Fixed32(found)) => magic = found,
            (2, text) => {
                if header.vpcs.len() == MAX_VPCS {
                    return Err(ValueError::TooMany { field: "vpcs", len: MAX_VPCS + 1, max: MAX_VPCS }.into());
                }
                header.vpcs.push(Arc::from(text.text().ok_or(ValueError::Missing("vpcs"))?));
            }
            (3, Value::Varint(feed)) => {
                header.feed = match feed {
                    0 => FeedKind::Reports,
                    1 => FeedKind::FlowLogs,
                    other => return Err(ValueError::Choice { field: "feed", value: other.to_string() }.into()),
                }
            }
            _ => {}
        }
    }
    if magic != MAGIC {
        return Err(DecodeError::Magic { found: magic });
    }
    Ok(header)
}

fn read(bytes: &[u8], header: &Header, flow: &mut wire::Flow, record: &mut FlowRecord) -> Result<(), DecodeError> {
    if bytes.len() > MAX_FLOW_BYTES {
        return Err(DecodeError::TooLarge { limit: MAX_FLOW_BYTES });
    }
    flow.clear();
    flow.merge(bytes).map_err(|error| DecodeError::Protobuf { message: "Flow", detail: error.to_string() })?;
    fill(flow, header, record)?;
    record.check()?;
    Ok(())
}

fn fill(flow: &mut wire::Flow, header: &Header, record: &mut FlowRecord) -> Result<(), ValueError> {
    record.start_ms = flow.start_ms;
    record.end_ms = flow
        .start_ms
        .checked_add(i64::from(flow.interval_ms))
        .ok_or(ValueError::Interval { start_ms: flow.start_ms, end_ms: i64::MAX })?;
    record.src = address_bytes("src", &flow.src)?;
    record.dst = address_bytes("dst", &flow.dst)?;
    record.src_port = port("src_port", i64::from(flow.src_port))?;
    record.dst_port = port("dst_port", i64::from(flow.dst_port))?;
    record.protocol = u8::try_from(flow.protocol).map_err(|_| ValueError::Protocol(flow.protocol.to_string()))?;
    record.vpc = match usize::try_from(flow.vpc).unwrap_or(usize::MAX).checked_sub(1) {
        None => None,
        Some(index) => {
            let vpc = header.vpcs.get(index);
            Some(vpc.ok_or(ValueError::Choice { field: "vpc", value: flow.vpc.to_string() })?.clone())
        }
    };
    record.reporter = match flow.reporter {
        0 => Reporter::Src,
        1 => Reporter::Dst,
        other => return Err(ValueError::Choice { field: "reporter", value: other.to_string() }),
    };
    record.counters = Counters {
        bytes: flow.bytes,
        segments: flow.segments,
        retransmits: states(flow.retransmits_by_state, flow.retransmits),
        timeouts: states(flow.timeouts_by_state, flow.timeouts),
        connects: flow.connects,
        connect_failures: flow.connect_failures,
        connect_attempts_total: None,
        resets: flow.resets,
        rejects: flow.rejects,
    };
    record.rtt = rtt(flow)?;
    Ok(())
}

fn states(by_state: Option<wire::StateCounts>, total: Option<u64>) -> StateCounts {
    match (by_state, total) {
        (Some(wire::StateCounts { syn, established, close }), _) => StateCounts::ByState { syn, established, close },
        (None, Some(total)) => StateCounts::Total(total),
        (None, None) => StateCounts::Unknown,
    }
}

fn rtt(flow: &mut wire::Flow) -> Result<Rtt, ValueError> {
    let summary = flow.rtt.filter(|rtt| rtt.count > 0);
    let has_buckets = flow.rtt_buckets.iter().any(|bucket| bucket.count > 0);
    match (summary, flow.rtt_samples_us.is_empty(), has_buckets) {
        (None, true, false) => Ok(Rtt::Unknown),
        (Some(wire::RttSummary { count, min_us, max_us, sum_us }), true, false) => {
            Ok(Rtt::Summary(RttSummary { count, min_us, max_us, sum_us }))
        }
        (None, false, false) => Ok(Rtt::Samples(std::mem::take(&mut flow.rtt_samples_us))),
        (None, true, true) => {
            let buckets = flow.rtt_buckets.iter().map(|b| RttBucket { le_us: b.le_us, count: b.count });
            Ok(Rtt::Buckets(buckets.collect()))
        }
        _ => Err(ValueError::SeveralRtt),
    }
}
