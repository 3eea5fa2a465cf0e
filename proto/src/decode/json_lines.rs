//! JSON lines: flow records, or agent reports as the agent logs them, one object a line.
//!
//! A bad line is counted and does not stop its neighbours. Unknown fields are ignored; a known field that is absent
//! or null is unknown, not zero. The form of a flow record:
//! `{"ts_ms","interval_ms","src","dst","src_port","dst_port","protocol","bytes","packets","retransmits","timeouts",
//! "connects","connect_failures","rtt":{"count","min_us","max_us","sum_us"}}` with optional `reporter` (`src` or
//! `dst`), `vpc`, `resets`, `rejects`, `rtt_samples_us` (list of microseconds) and `rtt_buckets` (list of
//! `[upper bound us, count]`, ascending). `retransmits` and `timeouts` are a number or `{"syn","established","close"}`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::agent_json::{self, json_error};
use super::error::{DecodeError, ValueError, excerpt};
use super::payload::{Decoded, Item, Options};
use super::value::{address_text, protocol_text};
use crate::flow::{Counters, FlowRecord, PROTOCOL_TCP, Reporter, Rtt, RttBucket, RttSummary, StateCounts};

#[derive(Deserialize)]
struct Line<'a> {
    ts_ms: Option<i64>,
    interval_ms: Option<i64>,
    #[serde(borrow)]
    src: Option<Cow<'a, str>>,
    #[serde(borrow)]
    dst: Option<Cow<'a, str>>,
    #[serde(default)]
    src_port: Option<u16>,
    #[serde(default)]
    dst_port: Option<u16>,
    #[serde(borrow)]
    protocol: Option<&'a RawValue>,
    #[serde(borrow)]
    vpc: Option<Cow<'a, str>>,
    bytes: Option<u64>,
    packets: Option<u64>,
    retransmits: Option<CountOrStates>,
    timeouts: Option<CountOrStates>,
    connects: Option<u64>,
    connect_failures: Option<u64>,
    resets: Option<u64>,
    rejects: Option<u64>,
    rtt: Option<RttLine>,
    rtt_samples_us: Option<Vec<u32>>,
    rtt_buckets: Option<Vec<(u64, u64)>>,
    #[serde(borrow)]
    reporter: Option<Cow<'a, str>>,
    // The fields that tell an agent's report.
    #[serde(borrow)]
    network_stats: Option<&'a RawValue>,
    #[serde(borrow)]
    report: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
}

enum CountOrStates {
    Count(u64),
    States(StatesLine),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatesLine {
    syn: u64,
    established: u64,
    close: u64,
}

impl<'de> Deserialize<'de> for CountOrStates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountOrStatesVisitor)
    }
}

struct CountOrStatesVisitor;

impl<'de> Visitor<'de> for CountOrStatesVisitor {
    type Value = CountOrStates;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a count or counts by state")
    }

    fn visit_u64<E>(self, count: u64) -> Result<CountOrStates, E> {
        Ok(CountOrStates::Count(count))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CountOrStates, A::Error> {
        StatesLine::deserialize(MapAccessDeserializer::new(map)).map(CountOrStates::States)
    }
}

#[derive(Deserialize)]
struct RttLine {
    count: u64,
    #[serde(default)]
    min_us: u64,
    #[serde(default)]
    max_us: u64,
    #[serde(default)]
    sum_us: u64,
}

/// Reads flow records, one a line, and hands them to `sink`. A line with an agent's report is counted unsupported:
/// [`super::payload`] reads both.
///
/// # Errors
/// [`DecodeError::Empty`] when there is no line.
pub fn json_lines(bytes: &[u8], sink: &mut dyn FnMut(&FlowRecord)) -> Result<Decoded, DecodeError> {
    each_line(bytes, &mut |line, scratch| match parse(line, scratch)? {
        Parsed::Flow => {
            sink(scratch);
            Ok(Taken::Flow)
        }
        Parsed::Report(_) => Err(DecodeError::Unsupported("an agent report among flow records")),
    })
}

/// Reads flow records and agent reports, one a line.
pub(super) fn lines(bytes: &[u8], options: &Options, sink: &mut dyn FnMut(Item<'_>)) -> Result<Decoded, DecodeError> {
    each_line(bytes, &mut |line, scratch| match parse(line, scratch)? {
        Parsed::Flow => {
            sink(Item::Flow(scratch));
            Ok(Taken::Flow)
        }
        Parsed::Report(found) => {
            let report = agent_json::report(found.json, found.time(options.arrival_ms)?)?;
            let mut counts = Decoded::default();
            counts.took_report(0, &report);
            sink(Item::Report(Box::new(report)));
            Ok(Taken::Report(Box::new(counts)))
        }
    })
}

enum Taken {
    Flow,
    Report(Box<Decoded>),
}

type LineReader<'s> = &'s mut dyn FnMut(&[u8], &mut FlowRecord) -> Result<Taken, DecodeError>;

fn each_line(bytes: &[u8], read: LineReader<'_>) -> Result<Decoded, DecodeError> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let unspecified = std::net::Ipv4Addr::UNSPECIFIED.into();
    let mut scratch = FlowRecord::new(0, 0, unspecified, unspecified);
    let mut decoded = Decoded::default();
    let mut found = false;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        found = true;
        match read(line, &mut scratch) {
            Ok(Taken::Flow) => decoded.records += 1,
            Ok(Taken::Report(counts)) => {
                decoded.records += counts.records;
                decoded.rejected.merge(&counts.rejected);
                if let (None, Some(mut problem)) = (&decoded.first_problem, counts.first_problem) {
                    problem.position = number;
                    decoded.first_problem = Some(problem);
                }
            }
            Err(error) => decoded.reject(number, error),
        }
    }
    if found { Ok(decoded) } else { Err(DecodeError::Empty) }
}

enum Parsed<'a> {
    Flow,
    Report(FoundReport<'a>),
}

struct FoundReport<'a> {
    json: &'a str,
    timestamp: Option<&'a str>,
}

impl FoundReport<'_> {
    /// The log line's own time, else the arrival, nanoseconds.
    fn time(&self, arrival_ms: Option<i64>) -> Result<u64, ValueError> {
        let millis = match self.timestamp {
            Some(text) => {
                Some(text.parse::<u64>().map_err(|_| ValueError::Choice { field: "timestamp", value: excerpt(text) })?)
            }
            None => arrival_ms.and_then(|ms| u64::try_from(ms).ok()),
        };
        let nanos = millis.ok_or(ValueError::Missing("timestamp"))?.checked_mul(1_000_000);
        nanos.filter(|nanos| *nanos > 0).ok_or(ValueError::Missing("timestamp"))
    }
}

fn parse<'a>(bytes: &'a [u8], record: &mut FlowRecord) -> Result<Parsed<'a>, DecodeError> {
    let line: Line<'a> = serde_json::from_slice(bytes).map_err(json_error)?;
    if line.ts_ms.is_none() {
        let timestamp = line.timestamp.map(RawValue::get);
        if let Some(report) = line.report {
            return Ok(Parsed::Report(FoundReport { json: report.get(), timestamp }));
        }
        if line.network_stats.is_some() {
            let json = std::str::from_utf8(bytes).map_err(|error| DecodeError::Json(error.to_string()))?;
            return Ok(Parsed::Report(FoundReport { json, timestamp }));
        }
    }
    fill(line, record)?;
    record.check()?;
    Ok(Parsed::Flow)
}

fn fill(line: Line<'_>, record: &mut FlowRecord) -> Result<(), ValueError> {
    record.start_ms = line.ts_ms.ok_or(ValueError::Missing("ts_ms"))?;
    let interval_ms = line.interval_ms.ok_or(ValueError::Missing("interval_ms"))?;
    record.end_ms = record
        .start_ms
        .checked_add(interval_ms)
        .ok_or(ValueError::Interval { start_ms: record.start_ms, end_ms: i64::MAX })?;
    record.src = address_text("src", &line.src.ok_or(ValueError::Missing("src"))?)?;
    record.dst = address_text("dst", &line.dst.ok_or(ValueError::Missing("dst"))?)?;
    record.src_port = line.src_port.unwrap_or(0);
    record.dst_port = line.dst_port.unwrap_or(0);
    record.protocol = line.protocol.map_or(Ok(PROTOCOL_TCP), |raw| protocol_text(raw.get().trim_matches('"')))?;
    record.reporter = match line.reporter.as_deref() {
        None | Some("src") => Reporter::Src,
        Some("dst") => Reporter::Dst,
        Some(other) => return Err(ValueError::Choice { field: "reporter", value: excerpt(other) }),
    };
    match line.vpc {
        None => record.vpc = None,
        // Neighbours mostly share a VPC: its text is then shared too.
        Some(vpc) if record.vpc.as_deref() == Some(&*vpc) => {}
        Some(vpc) => record.vpc = Some(Arc::from(&*vpc)),
    }
    record.counters = Counters {
        bytes: line.bytes,
        segments: line.packets,
        retransmits: states(line.retransmits),
        timeouts: states(line.timeouts),
        connects: line.connects,
        connect_failures: line.connect_failures,
        connect_attempts_total: None,
        resets: line.resets,
        rejects: line.rejects,
    };
    record.rtt = rtt(line.rtt, line.rtt_samples_us, line.rtt_buckets)?;
    Ok(())
}

fn states(count: Option<CountOrStates>) -> StateCounts {
    match count {
        None => StateCounts::Unknown,
        Some(CountOrStates::Count(total)) => StateCounts::Total(total),
        Some(CountOrStates::States(StatesLine { syn, established, close })) => {
            StateCounts::ByState { syn, established, close }
        }
    }
}

fn rtt(
    summary: Option<RttLine>,
    samples: Option<Vec<u32>>,
    buckets: Option<Vec<(u64, u64)>>,
) -> Result<Rtt, ValueError> {
    let summary = summary.filter(|rtt| rtt.count > 0);
    let samples = samples.filter(|samples| !samples.is_empty());
    let buckets = buckets.filter(|buckets| buckets.iter().any(|(_, count)| *count > 0));
    match (summary, samples, buckets) {
        (None, None, None) => Ok(Rtt::Unknown),
        (Some(RttLine { count, min_us, max_us, sum_us }), None, None) => {
            Ok(Rtt::Summary(RttSummary { count, min_us, max_us, sum_us }))
        }
        (None, Some(samples), None) => Ok(Rtt::Samples(samples)),
        (None, None, Some(buckets)) => {
            Ok(Rtt::Buckets(buckets.into_iter().map(|(le_us, count)| RttBucket { le_us, count }).collect()))
        }
        _ => Err(ValueError::SeveralRtt),
    }
}
