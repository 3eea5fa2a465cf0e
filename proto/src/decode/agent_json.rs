//! A Network Flow Monitor agent's report as JSON: the agent's log line, or the bare report.
//!
//! The log line wraps the report (`{"message":"Publishing report","report":{..},"timestamp":<ms>}`). The report itself
//! carries no time: a bare one takes the time the caller gives. Flows are read one by one, so that a bad one is
//! counted and does not stop its neighbours.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::agent_otlp::set_identity;
use super::error::{DecodeError, ValueError};
use super::value::{address_text, port, protocol_text};
use crate::agent_report::{AgentFlow, AgentReport, Distribution, FlowStats};
use crate::flow::MAX_COUNT;

#[derive(serde::Deserialize)]
struct Report<'a> {
    #[serde(borrow, default)]
    network_stats: Flows<'a>,
    #[serde(default)]
    process_stats: ProcessStats,
    #[serde(borrow, default)]
    env_metadata: Vec<(Cow<'a, str>, &'a RawValue)>,
    #[serde(borrow, default)]
    service_metadata: Option<Service<'a>>,
    #[serde(default)]
    failed_reports: u64,
}

#[derive(serde::Deserialize)]
struct Service<'a> {
    #[serde(borrow, default)]
    version: Option<&'a RawValue>,
}

#[derive(Default, serde::Deserialize)]
struct ProcessStats {
    #[serde(default)]
    counters: ProcessCounters,
}

#[derive(Default, serde::Deserialize)]
struct ProcessCounters {
    #[serde(default)]
    event_related: EventCounters,
    #[serde(default)]
    process_related: OwnCounters,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct EventCounters {
    map_insertion_errors: u64,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct OwnCounters {
    restarts: u64,
    socket_deltas_above_limit: u64,
    socket_agg_above_limit: u64,
}

#[derive(serde::Deserialize)]
struct Text<'a> {
    #[serde(borrow, rename = "String")]
    text: Cow<'a, str>,
}

#[derive(serde::Deserialize)]
struct FlowEntry<'a> {
    #[serde(borrow)]
    flow: FlowKey<'a>,
    stats: Stats,
}

#[derive(serde::Deserialize)]
struct FlowKey<'a> {
    #[serde(borrow)]
    protocol: Cow<'a, str>,
    #[serde(borrow)]
    local_address: Cow<'a, str>,
    #[serde(borrow)]
    remote_address: Cow<'a, str>,
    local_port: i64,
    remote_port: i64,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Stats {
    sockets_connecting: Option<u64>,
    sockets_established: Option<u64>,
    sockets_closing: Option<u64>,
    sockets_closed: Option<u64>,
    sockets_completed: Option<u64>,
    severed_connect: Option<u64>,
    severed_establish: Option<u64>,
    connect_attempts: Option<u64>,
    bytes_received: Option<u64>,
    bytes_delivered: Option<u64>,
    segments_received: Option<u64>,
    segments_delivered: Option<u64>,
    retrans_syn: Option<u64>,
    retrans_est: Option<u64>,
    retrans_close: Option<u64>,
    rtos_syn: Option<u64>,
    rtos_est: Option<u64>,
    rtos_close: Option<u64>,
    connect_us: Option<Summary>,
    rtt_us: Option<Summary>,
    rtt_smoothed_us: Option<Summary>,
}

#[derive(serde::Deserialize)]
struct Summary {
    count: u64,
    min: u64,
    max: u64,
    sum: u64,
}

impl From<Summary> for Distribution {
    fn from(Summary { count, min, max, sum }: Summary) -> Self {
        Distribution { count, min, max, sum }
    }
}

impl From<Stats> for FlowStats {
    fn from(s: Stats) -> Self {
        FlowStats {
            sockets_connecting: s.sockets_connecting,
            sockets_established: s.sockets_established,
            sockets_closing: s.sockets_closing,
            sockets_closed: s.sockets_closed,
            sockets_completed: s.sockets_completed,
            severed_connect: s.severed_connect,
            severed_establish: s.severed_establish,
            connect_attempts: s.connect_attempts,
            bytes_received: s.bytes_received,
            bytes_delivered: s.bytes_delivered,
            segments_received: s.segments_received,
            segments_delivered: s.segments_delivered,
            retrans_syn: s.retrans_syn,
            retrans_est: s.retrans_est,
            retrans_close: s.retrans_close,
            rtos_syn: s.rtos_syn,
            rtos_est: s.rtos_est,
            rtos_close: s.rtos_close,
            connect_us: s.connect_us.map(Into::into),
            rtt_us: s.rtt_us.map(Into::into),
            rtt_smoothed_us: s.rtt_smoothed_us.map(Into::into),
        }
    }
}

/// Flow results in the order of the report, read while the array is walked.
#[derive(Default)]
struct Flows<'a> {
    report: AgentReport,
    input: std::marker::PhantomData<&'a ()>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Flows<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FlowsVisitor).map(|report| Flows { report, input: std::marker::PhantomData })
    }
}

struct FlowsVisitor;

impl<'de> Visitor<'de> for FlowsVisitor {
    type Value = AgentReport;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of flows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<AgentReport, A::Error> {
        let mut report = AgentReport::default();
        while let Some(entry) = entries.next_element::<&RawValue>()? {
            match read_flow(entry) {
                Ok(flow) => report.flows.push(flow),
                Err(error) => {
                    report.rejected.add(error.reason(), 1);
                    report.first_problem.get_or_insert(error);
                }
            }
        }
        Ok(report)
    }
}

fn read_flow(entry: &RawValue) -> Result<AgentFlow, DecodeError> {
    let FlowEntry { flow, stats } = serde_json::from_str(entry.get()).map_err(json_error)?;
    let flow = AgentFlow {
        local: address_text("local_address", &flow.local_address)?,
        remote: address_text("remote_address", &flow.remote_address)?,
        local_port: port("local_port", flow.local_port)?,
        remote_port: port("remote_port", flow.remote_port)?,
        protocol: protocol_text(&flow.protocol)?,
        stats: stats.into(),
    };
    check_raw(&flow.stats)?;
    flow.record(0, 0).check()?;
    Ok(flow)
}

/// The counters that are in no flow record are held to the same limit, so that both forms of a report agree.
fn check_raw(stats: &FlowStats) -> Result<(), ValueError> {
    let mut stats = *stats;
    for name in FlowStats::COUNTERS {
        if let Some(Some(value @ MAX_COUNT..)) = stats.counter_mut(name).copied().filter(|v| *v != Some(MAX_COUNT)) {
            return Err(ValueError::TooLarge { field: name, value });
        }
    }
    for name in FlowStats::DISTRIBUTIONS {
        if let Some(Some(d)) = stats.distribution_mut(name).copied() {
            let value = d.count.max(d.min).max(d.max).max(d.sum);
            if value > MAX_COUNT {
                return Err(ValueError::TooLarge { field: name, value });
            }
        }
    }
    Ok(())
}

/// Reads a bare report (the `report` of a log line) published at `time_unix_nano`.
pub(super) fn report(json: &str, time_unix_nano: u64) -> Result<AgentReport, DecodeError> {
    let parsed: Report<'_> = serde_json::from_str(json).map_err(json_error)?;
    let mut report = parsed.network_stats.report;
    report.time_unix_nano = time_unix_nano;
    report.failed_reports = parsed.failed_reports;
    let ProcessCounters { event_related, process_related } = parsed.process_stats.counters;
    report.restarts = process_related.restarts;
    report.sampling.map_insertion_errors = event_related.map_insertion_errors;
    report.sampling.socket_agg_above_limit = process_related.socket_agg_above_limit;
    report.sampling.socket_deltas_above_limit = process_related.socket_deltas_above_limit;
    let version = parsed.service_metadata.and_then(|service| service.version).map(|raw| ("service.version", raw));
    let environment = parsed.env_metadata.iter().map(|(key, raw)| (key.as_ref(), *raw));
    for (key, raw) in environment.chain(version) {
        if let Ok(Text { text }) = serde_json::from_str(raw.get()) {
            set_identity(&mut report, key, &text);
        }
    }
    if report.agent_id().is_none() {
        return Err(ValueError::Missing("instance-id").into());
    }
    Ok(report)
}

pub(super) fn json_error(error: serde_json::Error) -> DecodeError {
    let mut text = error.to_string();
    if text.len() > 200 {
        text = text.chars().take(200).collect();
    }
    DecodeError::Json(text)
}
