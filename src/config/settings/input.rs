//! `[input]`: what the flows stream holds and how it is read.
//!
//! Part of [`super`], with its rules. What becomes of the words: the decoders (format, lateness) and the engine's
//! reading (fetch, KPL aggregates).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Span, StartAt};

/// What one Kinesis record of the flows stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InputFormat {
    /// Look at each record's first bytes.
    #[default]
    Auto,
    /// Reports of the Network Flow Monitor agent (OTLP metrics, gzip or plain, or its JSON log line).
    Agent,
    /// The protobuf message `FlowBatch`.
    FlowBatch,
    /// Flow records as JSON lines.
    JsonLines,
}

impl InputFormat {
    /// The word in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Agent => "agent",
            Self::FlowBatch => "flow-batch",
            Self::JsonLines => "json-lines",
        }
    }
}

/// How the flows stream is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FetchMode {
    /// GetRecords, up to five times a second and shard, shared with every other reader that polls.
    #[default]
    Polling,
    /// Enhanced fan-out: records are pushed, with 2 MB a second and shard of our own. AWS charges for it.
    Efo,
}

/// What happens to a record inside a KPL aggregate whose hash key lies outside its shard's range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KplOutOfRange {
    /// Dropped and counted, as KCL does: after a reshard the KPL sends such records again to the right shard.
    #[default]
    Drop,
    /// Kept and counted: for producers that are not the KPL and place their aggregates anywhere.
    Keep,
}

/// `[input]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InputSettings {
    /// Format of the records: `auto`, `agent`, `flow-batch` or `json-lines`.
    pub format: InputFormat,
    /// How records come: `polling`, or `efo` for enhanced fan-out.
    pub fetch: FetchMode,
    /// Name of the registered consumer for `efo`; registered when it is missing, never deregistered. 1 to 128 letters,
    /// digits, `_`, `.` or `-`. Not set: `job.name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// Where a new job starts in the flows stream: `trim_horizon` (at the oldest record kept), `latest` (at what arrives from
    /// now on) or an RFC 3339 time, such as `2026-11-22T08:00:00Z` (at what arrived since). It decides nothing about shards
    /// that have a row in the lease table already, nor about what a reshard brings.
    pub start_at: StartAt,
    /// Records of KPL aggregates outside their shard's hash range: `drop` or `keep`.
    pub kpl_out_of_range: KplOutOfRange,
    /// Whether the MD5 of a KPL aggregate must be right; `false` takes anything that decodes for an aggregate.
    pub kpl_verify_md5: bool,
    /// Interval of an agent's report that has no predecessor to measure it from.
    pub agent_interval: Span,
    /// How long agent reports and flow batches may be late: event time waits this long behind the newest record.
    pub lateness_reports: Span,
    /// The same for flow logs, which AWS delivers minutes late.
    pub lateness_flow_logs: Span,
    /// How far a record's time may lie ahead of its arrival before it is refused with reason `future`.
    pub future_tolerance: Span,
}

impl Default for InputSettings {
    fn default() -> Self {
        Self {
            format: InputFormat::Auto,
            fetch: FetchMode::Polling,
            consumer: None,
            start_at: StartAt::TrimHorizon,
            kpl_out_of_range: KplOutOfRange::Drop,
            kpl_verify_md5: true,
            agent_interval: Span::secs(30),
            lateness_reports: Span::secs(60),
            lateness_flow_logs: Span::secs(15 * 60),
            future_tolerance: Span::secs(120),
        }
    }
}
