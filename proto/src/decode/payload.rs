//! One payload of a stream, whatever its format.

use std::borrow::Cow;

use super::error::DecodeError;
use super::gzip::{DEFAULT_MAX_BYTES, gunzip_limited, is_gzip};
use super::sniff::{Format, sniff_plain};
use super::{agent_otlp, flow_batch, json_lines};
use crate::agent_report::AgentReport;
use crate::flow::FlowRecord;
use crate::reason::ReasonCounts;

/// What a stream is configured to carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputFormat {
    /// Look at the bytes.
    #[default]
    Auto,
    /// Agent reports, as OTLP or JSON.
    Agent,
    /// Our protobuf.
    FlowBatch,
    /// Our JSON lines.
    JsonLines,
}

impl InputFormat {
    /// The name used in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            InputFormat::Auto => "auto",
            InputFormat::Agent => "agent",
            InputFormat::FlowBatch => "flow-batch",
            InputFormat::JsonLines => "json-lines",
        }
    }

    fn accepts(self, format: Format) -> bool {
        match self {
            InputFormat::Auto => true,
            InputFormat::Agent => matches!(format, Format::Otlp | Format::JsonLines),
            InputFormat::FlowBatch => format == Format::FlowBatch,
            InputFormat::JsonLines => format == Format::JsonLines,
        }
    }
}

/// How to read a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is expected.
    pub format: InputFormat,
    /// Limit of the payload, compressed and decompressed, bytes.
    pub max_bytes: usize,
    /// When the payload arrived in the stream, milliseconds; the time of a bare agent report that carries none.
    pub arrival_ms: Option<i64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { format: InputFormat::Auto, max_bytes: DEFAULT_MAX_BYTES, arrival_ms: None }
    }
}

/// What a payload holds.
#[derive(Debug)]
pub enum Item<'a> {
    /// A flow record, lent until the sink returns.
    Flow(&'a FlowRecord),
    /// An agent's report; its records need the start of the interval, which the caller knows from the report before.
    Report(Box<AgentReport>),
}

/// The first thing that was wrong inside a payload that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Position: line, flow or report, counted from 1.
    pub position: u64,
    /// What was wrong.
    pub error: DecodeError,
}

/// What became of a payload's records: `records` went to the sink, the others are counted by reason.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Records handed to the sink; a report counts its flows.
    pub records: u64,
    /// Records refused.
    pub rejected: ReasonCounts,
    /// The first refusal, for a log line.
    pub first_problem: Option<Problem>,
}

impl Decoded {
    pub(super) fn reject(&mut self, position: u64, error: DecodeError) {
        self.rejected.add(error.reason(), 1);
        self.first_problem.get_or_insert(Problem { position, error });
    }

    pub(super) fn took_report(&mut self, position: u64, report: &AgentReport) {
        self.records += report.flows.len() as u64;
        self.rejected.merge(&report.rejected);
        if let (None, Some(error)) = (&self.first_problem, &report.first_problem) {
            self.first_problem = Some(Problem { position, error: error.clone() });
        }
    }
}

/// Decodes a payload and hands everything in it to `sink`, in the order of the bytes.
///
/// # Errors
/// When nothing of the payload can be read: the sink then got nothing, and the caller counts one record under
/// [`DecodeError::reason`].
pub fn payload(bytes: &[u8], options: &Options, sink: &mut dyn FnMut(Item<'_>)) -> Result<Decoded, DecodeError> {
    if bytes.len() > options.max_bytes {
        return Err(DecodeError::TooLarge { limit: options.max_bytes });
    }
    let plain =
        if is_gzip(bytes) { Cow::Owned(gunzip_limited(bytes, options.max_bytes)?) } else { Cow::Borrowed(bytes) };
    if plain.is_empty() {
        return Err(DecodeError::Empty);
    }
    let format = sniff_plain(&plain);
    if format != Format::Unknown && !options.format.accepts(format) {
        return Err(DecodeError::WrongFormat { found: format.as_str(), expected: options.format.as_str() });
    }
    match format {
        Format::FlowBatch => flow_batch::flow_batch(&plain, &mut |record| sink(Item::Flow(record))),
        Format::Otlp => agent_otlp::agent_reports(&plain, &mut |report| sink(Item::Report(Box::new(report)))),
        Format::JsonLines => json_lines::lines(&plain, options, sink),
        Format::LogsSubscription => Err(DecodeError::Unsupported("a logs subscription envelope")),
        Format::KplAggregate => Err(DecodeError::Unsupported("a kpl aggregate")),
        Format::Unknown => Err(DecodeError::UnknownFormat(start_of(&plain))),
    }
}

fn start_of(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(8)].iter().map(|byte| format!("{byte:02x}")).collect()
}
