//! Writes reports exactly as agents do, for simulated agents and tests.
//!
//! The shape: one resource; per flow a scope `network_stats` with the flow in the scope's attributes and 21 delta
//! histograms without buckets; then `process_stats` (gauges), `host_stats` and `counters` (delta sums). Flows are
//! written directly, since a simulation writes hundreds of thousands; the rest goes through the generated types.
//! Invariant: fields are in ascending order, so that the bytes are those of the agent's own encoder.

use crate::wire::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use crate::wire::opentelemetry::proto::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ScopeMetrics, Sum, metric, number_data_point,
};
use crate::wire::opentelemetry::proto::resource::v1::Resource;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::{AgentFlow, AgentReport, Distribution, FlowStats};
use crate::decode::gzip;

const DELTA: i32 = AggregationTemporality::Delta as i32;
const GAUGES: [&str; 5] = ["cpu_util", "ebpf_allocated_mem_kb", "mem_used_kb", "mem_used_ratio", "sockets_tracked"];
const HOST: [&str; 6] = [
    "bw_in_allowance_exceeded",
    "bw_out_allowance_exceeded",
    "conntrack_allowance_available",
    "conntrack_allowance_exceeded",
    "linklocal_allowance_exceeded",
    "pps_allowance_exceeded",
];
const COUNTERS: [&str; 28] = [
    "active_connect_events",
    "active_established_events",
    "map_insertion_errors",
    "other_errors",
    "other_events",
    "passive_established_events",
    "retrans_events",
    "rto_events",
    "rtt_events",
    "rtts_invalid",
    "set_flags_errors",
    "socket_events",
    "sockets_invalid",
    "state_change_events",
    "remote_nat_reversal_errors",
    "restarts",
    "socket_agg_above_limit",
    "socket_agg_completed",
    "socket_agg_missing_props",
    "socket_deltas_above_limit",
    "socket_deltas_completed",
    "socket_deltas_missing_props",
    "socket_eviction_completed",
    "socket_eviction_failed",
    "sockets_added",
    "sockets_natd",
    "sockets_stale",
    "publish_report_failed",
];

/// The report as an agent's uncompressed body. `rejected` and `first_problem` are not part of it; metrics that are
/// `None` are left out.
pub fn encode(report: &AgentReport) -> Vec<u8> {
    let time = report.time_unix_nano;
    let mut body = Vec::with_capacity(2048 + report.flows.len() * 1536);
    message(&mut body, 1, &resource(report).encode_to_vec());
    let mut scope_bytes = Vec::with_capacity(2048);
    for flow in &report.flows {
        scope_bytes.clear();
        flow_scope(&mut scope_bytes, flow, time);
        message(&mut body, 2, &scope_bytes);
    }
    let interface = vec![text("interface_id", "eni-00000000000000000")];
    let counters = COUNTERS.iter().map(|name| sum(name, counter(report, name), time)).collect();
    for scope in [
        scope("process_stats", vec![], GAUGES.iter().map(|name| gauge(name, time)).collect()),
        scope("host_stats", interface, HOST.iter().map(|name| sum(name, 0, time)).collect()),
        scope("counters", vec![], counters),
    ] {
        message(&mut body, 2, &scope.encode_to_vec());
    }
    let mut request = Vec::with_capacity(body.len() + 8);
    message(&mut request, 1, &body);
    request
}

/// The report as an agent POSTs it.
pub fn encode_gzip(report: &AgentReport) -> Vec<u8> {
    gzip(&encode(report))
}

fn resource(report: &AgentReport) -> Resource {
    let attributes = [
        ("instance-id", report.instance_id.as_str()),
        ("instance-type", &report.instance_type),
        ("machine-id", &report.machine_id),
        ("compute_platform", "EC2_PLAIN"),
        ("service.name", "network-flow-monitor"),
        ("service.version", &report.agent_version),
        ("agent.build_ts", "2026-11-22T01:05:00+00:00"),
        ("report.version", "1.1"),
    ];
    Resource { attributes: attributes.iter().map(|(key, value)| text(key, value)).collect() }
}

fn counter(report: &AgentReport, name: &str) -> u64 {
    match name {
        "restarts" => report.restarts,
        "publish_report_failed" => report.failed_reports,
        "map_insertion_errors" => report.sampling.map_insertion_errors,
        "socket_agg_above_limit" => report.sampling.socket_agg_above_limit,
        "socket_deltas_above_limit" => report.sampling.socket_deltas_above_limit,
        _ => 0,
    }
}

/// Writes a `ScopeMetrics`.
fn flow_scope(out: &mut Vec<u8>, flow: &AgentFlow, time: u64) {
    let attributes = vec![
        text("local_address", &flow.local.to_string()),
        integer("local_port", flow.local_port),
        text("protocol", &protocol(flow.protocol)),
        text("remote_address", &flow.remote.to_string()),
        integer("remote_port", flow.remote_port),
    ];
    let scope = InstrumentationScope { name: "network_stats".to_owned(), version: String::new(), attributes };
    message(out, 1, &scope.encode_to_vec());
    let mut stats = flow.stats;
    for name in FlowStats::COUNTERS {
        if let Some(Some(value)) = stats.counter_mut(name).copied() {
            histogram(out, name, time, 1, value, None);
        }
    }
    for name in FlowStats::DISTRIBUTIONS {
        if let Some(Some(Distribution { count, min, max, sum })) = stats.distribution_mut(name).copied() {
            histogram(out, name, time, count, sum, Some((min, max)));
        }
    }
}

/// Writes a `Metric` with one delta point. Every length here is far below 128, so that it takes one byte.
fn histogram(out: &mut Vec<u8>, name: &str, time: u64, count: u64, sum: u64, range: Option<(u64, u64)>) {
    let mut point = [0u8; 64];
    let mut len = 0;
    let mut fixed64 = |field: u8, bits: u64| {
        point[len] = field << 3 | 1;
        point[len + 1..len + 9].copy_from_slice(&bits.to_le_bytes());
        len += 9;
    };
    fixed64(2, time);
    fixed64(3, time);
    if count != 0 {
        fixed64(4, count);
    }
    fixed64(5, (sum as f64).to_bits());
    if let Some((min, max)) = range {
        fixed64(11, (min as f64).to_bits());
        fixed64(12, (max as f64).to_bits());
    }
    let mut data = [0u8; 68];
    data[0] = 1 << 3 | 2;
    data[1] = len as u8;
    data[2..2 + len].copy_from_slice(&point[..len]);
    data[2 + len] = 2 << 3;
    data[3 + len] = DELTA as u8;
    let data = &data[..len + 4];
    out.extend([2 << 3 | 2, (2 + name.len() + 2 + data.len()) as u8]);
    message(out, 1, name.as_bytes());
    message(out, 9, data);
}

/// Writes a length-delimited field.
fn message(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn protocol(number: u8) -> String {
    if number == crate::flow::PROTOCOL_TCP { "TCP".to_owned() } else { number.to_string() }
}

fn scope(name: &str, attributes: Vec<KeyValue>, metrics: Vec<Metric>) -> ScopeMetrics {
    let scope = InstrumentationScope { name: name.to_owned(), version: String::new(), attributes };
    ScopeMetrics { scope: Some(scope), metrics }
}

fn sum(name: &str, value: u64, time: u64) -> Metric {
    let value = number_data_point::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX));
    let data = Sum { data_points: vec![point(value, time)], aggregation_temporality: DELTA, is_monotonic: true };
    Metric { name: name.to_owned(), data: Some(metric::Data::Sum(data)) }
}

fn gauge(name: &str, time: u64) -> Metric {
    let data = Gauge { data_points: vec![point(number_data_point::Value::AsDouble(0.0), time)] };
    Metric { name: name.to_owned(), data: Some(metric::Data::Gauge(data)) }
}

fn point(value: number_data_point::Value, time: u64) -> NumberDataPoint {
    NumberDataPoint { start_time_unix_nano: time, time_unix_nano: time, value: Some(value) }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn integer(key: &str, value: u16) -> KeyValue {
    attribute(key, any_value::Value::IntValue(i64::from(value)))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
