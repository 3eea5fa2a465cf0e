//! A Network Flow Monitor agent's report as OTLP metrics.
//!
//! Every metric of a flow is a delta histogram without buckets: plain counters have count 1 and the value as sum (a
//! double), durations carry count, min, max and sum. The flow itself stands in the scope's attributes. Unknown
//! scopes, metrics and attributes are skipped. The bytes are walked, not materialised: memory grows with the flows
//! that can be read, never with what length fields claim.

use super::Decoded;
use super::error::{DecodeError, ValueError, excerpt};
use super::protobuf::{Fields, Value};
use super::value::{address_text, count_from_double, port, protocol_text};
use crate::agent_report::{AgentFlow, AgentReport, Distribution, FlowStats};
use crate::flow::MAX_COUNT;

const AGENT_SERVICE: &str = "network-flow-monitor";
const DELTA: u64 = 1;

/// Reads an uncompressed body that holds exactly one agent's report.
///
/// # Errors
/// When the bytes are no agent's report, or hold more than one.
pub fn agent_report(bytes: &[u8]) -> Result<AgentReport, DecodeError> {
    let mut reports = Vec::new();
    let decoded = agent_reports(bytes, &mut |report| reports.push(report))?;
    let first = reports.pop();
    match (first, decoded.first_problem) {
        (Some(report), _) if reports.is_empty() && decoded.rejected == report.rejected => Ok(report),
        (_, Some(problem)) => Err(problem.error),
        _ => Err(DecodeError::Unsupported("a body with the reports of several agents")),
    }
}

/// Reads an uncompressed body and hands the report of each agent in it to `sink`.
///
/// # Errors
/// When no report can be read; the sink then got nothing.
pub fn agent_reports(bytes: &[u8], sink: &mut dyn FnMut(AgentReport)) -> Result<Decoded, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    // The framing is checked first, so that an error further back cannot follow reports already handed on.
    for field in Fields::new("ExportMetricsServiceRequest", bytes) {
        field?;
    }
    let mut decoded = Decoded::default();
    let mut taken = 0u64;
    let mut position = 0;
    for field in Fields::new("ExportMetricsServiceRequest", bytes) {
        let (1, Value::Bytes(resource)) = field? else { continue };
        position += 1;
        match report(resource) {
            Ok(report) => {
                taken += 1;
                decoded.took_report(position, &report);
                sink(report);
            }
            Err(error) => decoded.reject(position, error),
        }
    }
    if taken == 0 {
        return Err(match decoded.first_problem {
            Some(problem) => problem.error,
            None => DecodeError::Value(ValueError::Missing("resource_metrics")),
        });
    }
    Ok(decoded)
}

fn report(bytes: &[u8]) -> Result<AgentReport, DecodeError> {
    let mut report = AgentReport::default();
    let mut is_agent = false;
    for field in Fields::new("ResourceMetrics", bytes) {
        let (number, value) = field?;
        match (number, value) {
            (1, Value::Bytes(resource)) => is_agent |= read_resource(resource, &mut report)?,
            (2, Value::Bytes(scope)) => is_agent |= read_scope(scope, &mut report)?,
            _ => {}
        }
    }
    if !is_agent {
        return Err(DecodeError::Unsupported("otlp metrics of something else than a network flow monitor agent"));
    }
    if report.time_unix_nano == 0 {
        return Err(ValueError::Missing("time_unix_nano").into());
    }
    if report.agent_id().is_none() {
        return Err(ValueError::Missing("instance-id").into());
    }
    Ok(report)
}

/// Keys are written with dashes by agents and with underscores in their test fixtures.
pub(super) fn set_identity(report: &mut AgentReport, key: &str, value: &str) {
    let field = match key {
        "instance-id" | "instance_id" => &mut report.instance_id,
        "machine-id" | "machine_id" => &mut report.machine_id,
        "instance-type" | "instance_type" => &mut report.instance_type,
        "service.version" => &mut report.agent_version,
        _ => return,
    };
    // Ids are tens of bytes; what is longer is not one and must not fill keys and logs.
    *field = value.chars().take(128).collect();
}

fn read_resource(bytes: &[u8], report: &mut AgentReport) -> Result<bool, DecodeError> {
    let mut is_agent = false;
    for field in Fields::new("Resource", bytes) {
        let (1, Value::Bytes(attribute)) = field? else { continue };
        let (key, value) = read_attribute(attribute)?;
        if let Attribute::Text(value) = value {
            is_agent |= key == "service.name" && value == AGENT_SERVICE;
            set_identity(report, key, value);
        }
    }
    Ok(is_agent)
}

enum Attribute<'a> {
    Text(&'a str),
    Integer(i64),
    Other,
}

fn read_attribute(bytes: &[u8]) -> Result<(&str, Attribute<'_>), DecodeError> {
    let (mut key, mut value) = ("", Attribute::Other);
    for field in Fields::new("KeyValue", bytes) {
        match field? {
            (1, text) => key = text.text().unwrap_or(""),
            (2, Value::Bytes(any)) => {
                for field in Fields::new("AnyValue", any) {
                    value = match field? {
                        (1, text) => text.text().map_or(Attribute::Other, Attribute::Text),
                        (3, Value::Varint(number)) => Attribute::Integer(number as i64),
                        _ => Attribute::Other,
                    };
                }
            }
            _ => {}
        }
    }
    Ok((key, value))
}

/// Reads one scope into the report; says whether only an agent has such a scope.
fn read_scope(bytes: &[u8], report: &mut AgentReport) -> Result<bool, DecodeError> {
    let mut scope: &[u8] = &[];
    let mut name = "";
    for field in Fields::new("ScopeMetrics", bytes) {
        if let (1, Value::Bytes(inner)) = field? {
            scope = inner;
        }
    }
    for field in Fields::new("InstrumentationScope", scope) {
        if let (1, text) = field? {
            name = text.text().unwrap_or("");
        }
    }
    match name {
        "network_stats" => {
            match read_flow(scope, bytes, &mut report.time_unix_nano) {
                Ok(flow) => report.flows.push(flow),
                Err(error) => {
                    report.rejected.add(error.reason(), 1);
                    report.first_problem.get_or_insert(error);
                }
            }
            return Ok(true);
        }
        "counters" => for_each_metric(bytes, &mut |metric| {
            report.time_unix_nano = report.time_unix_nano.max(metric.point.time);
            let target = match metric.name {
                "restarts" => &mut report.restarts,
                "publish_report_failed" => &mut report.failed_reports,
                "map_insertion_errors" => &mut report.sampling.map_insertion_errors,
                "socket_agg_above_limit" => &mut report.sampling.socket_agg_above_limit,
                "socket_deltas_above_limit" => &mut report.sampling.socket_deltas_above_limit,
                _ => return Ok(()),
            };
            *target = metric.number()?;
            Ok(())
        })?,
        _ => {}
    }
    Ok(false)
}

fn read_flow(scope: &[u8], bytes: &[u8], time: &mut u64) -> Result<AgentFlow, DecodeError> {
    let (mut local, mut remote) = (None, None);
    let (mut local_port, mut remote_port, mut protocol) = (None, None, None);
    for field in Fields::new("InstrumentationScope", scope) {
        let (3, Value::Bytes(attribute)) = field? else { continue };
        match read_attribute(attribute)? {
            ("local_address", Attribute::Text(text)) => local = Some(address_text("local_address", text)?),
            ("remote_address", Attribute::Text(text)) => remote = Some(address_text("remote_address", text)?),
            ("local_port", Attribute::Integer(number)) => local_port = Some(port("local_port", number)?),
            ("remote_port", Attribute::Integer(number)) => remote_port = Some(port("remote_port", number)?),
            ("protocol", Attribute::Text(text)) => protocol = Some(protocol_text(text)?),
            _ => {}
        }
    }
    let mut stats = FlowStats::default();
    let mut flow_time = 0;
    for_each_metric(bytes, &mut |metric| {
        flow_time = flow_time.max(metric.point.time);
        if let Some(counter) = stats.counter_mut(metric.name) {
            *counter = Some(metric.counter()?);
        } else if let Some(distribution) = stats.distribution_mut(metric.name) {
            *distribution = Some(metric.distribution()?);
        }
        Ok(())
    })?;
    let flow = AgentFlow {
        local: local.ok_or(ValueError::Missing("local_address"))?,
        remote: remote.ok_or(ValueError::Missing("remote_address"))?,
        local_port: local_port.ok_or(ValueError::Missing("local_port"))?,
        remote_port: remote_port.ok_or(ValueError::Missing("remote_port"))?,
        protocol: protocol.ok_or(ValueError::Missing("protocol"))?,
        stats,
    };
    flow.record(0, 0).check()?;
    *time = flow_time.max(*time);
    Ok(flow)
}

/// The single point of a metric; absent numbers are zero.
#[derive(Default)]
struct Point {
    time: u64,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    as_int: Option<i64>,
    as_double: Option<f64>,
}

struct Metric<'a> {
    name: &'a str,
    point: Point,
    is_single_delta: bool,
}

impl Metric<'_> {
    fn counter(&self) -> Result<u64, DecodeError> {
        if !self.is_single_delta {
            return Err(ValueError::NotADelta(excerpt(self.name)).into());
        }
        Ok(count_from_double(self.name, self.point.sum)?)
    }

    fn distribution(&self) -> Result<Distribution, DecodeError> {
        let sum = self.counter()?;
        if self.point.count > MAX_COUNT {
            return Err(ValueError::NotACount { field: excerpt(self.name), value: self.point.count as f64 }.into());
        }
        let min = count_from_double(self.name, self.point.min)?;
        let max = count_from_double(self.name, self.point.max)?;
        Ok(Distribution { count: self.point.count, min, max, sum })
    }

    fn number(&self) -> Result<u64, DecodeError> {
        let value = match (self.point.as_int, self.point.as_double) {
            (Some(number), _) => number as f64,
            (None, Some(number)) => number,
            (None, None) => return Err(ValueError::NotADelta(excerpt(self.name)).into()),
        };
        Ok(count_from_double(self.name, value)?)
    }
}

type MetricSink<'s> = &'s mut dyn FnMut(Metric<'_>) -> Result<(), DecodeError>;

fn for_each_metric(scope_metrics: &[u8], sink: MetricSink<'_>) -> Result<(), DecodeError> {
    for field in Fields::new("ScopeMetrics", scope_metrics) {
        let (2, Value::Bytes(bytes)) = field? else { continue };
        let mut metric = Metric { name: "", point: Point::default(), is_single_delta: false };
        for field in Fields::new("Metric", bytes) {
            match field? {
                (1, text) => metric.name = text.text().unwrap_or(""),
                (kind @ (5 | 7 | 9), Value::Bytes(data)) => read_data(data, kind == 9, &mut metric)?,
                _ => {}
            }
        }
        sink(metric)?;
    }
    Ok(())
}

fn read_data(bytes: &[u8], is_histogram: bool, metric: &mut Metric<'_>) -> Result<(), DecodeError> {
    let (mut points, mut temporality) = (0u32, 0);
    for field in Fields::new("data", bytes) {
        match field? {
            (1, Value::Bytes(point)) => {
                points = points.saturating_add(1);
                metric.point = read_point(point, is_histogram)?;
            }
            (2, Value::Varint(number)) => temporality = number,
            _ => {}
        }
    }
    metric.is_single_delta = points == 1 && temporality == DELTA;
    Ok(())
}

fn read_point(bytes: &[u8], is_histogram: bool) -> Result<Point, DecodeError> {
    let mut point = Point::default();
    for field in Fields::new("DataPoint", bytes) {
        let (number, value) = field?;
        match (number, value) {
            (3, Value::Fixed64(time)) => point.time = time,
            (4, Value::Fixed64(count)) if is_histogram => point.count = count,
            (4, value) => point.as_double = value.double(),
            (5, value) => point.sum = value.double().unwrap_or(f64::NAN),
            (6, Value::Fixed64(bits)) if !is_histogram => point.as_int = Some(bits as i64),
            (11, value) => point.min = value.double().unwrap_or(f64::NAN),
            (12, value) => point.max = value.double().unwrap_or(f64::NAN),
            _ => {}
        }
    }
    Ok(point)
}
