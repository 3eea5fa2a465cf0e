//! A Network Flow Monitor agent's report: what it says, and how it becomes flow records.
//!
//! The decoders are in [`crate::decode`], the encoder (for simulated agents) is [`encode`]. The mapping is directed,
//! local to remote, and counts only what the local host sent: bytes and segments received belong to the other
//! direction and would be counted twice. A report does not say how long its interval is: the caller knows the time of
//! the report before and gives the start.

mod encode;
mod flow;

pub use encode::{encode, encode_gzip};
pub use flow::{AgentFlow, Distribution, FlowStats};

use crate::decode::DecodeError;
use crate::flow::{FlowRecord, MAX_INTERVAL_MS};
use crate::reason::ReasonCounts;

/// Flows in a report at which the agent's default cut is taken to have struck (its `--top-k`).
pub const TOP_K: usize = 500;

/// One report of one agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentReport {
    /// EC2 instance id; may be empty outside EC2.
    pub instance_id: String,
    /// Machine id; may be empty.
    pub machine_id: String,
    /// EC2 instance type; may be empty.
    pub instance_type: String,
    /// Version of the agent; may be empty.
    pub agent_version: String,
    /// When the report was published = the end of its interval, nanoseconds since 1970-01-01 UTC.
    pub time_unix_nano: u64,
    /// 1 in the first report of an agent process, else 0.
    pub restarts: u64,
    /// Reports that could not be published since the last one that was: their flows are lost.
    pub failed_reports: u64,
    /// Signs that the agent saw only a sample of its sockets.
    pub sampling: SamplingHints,
    /// Flows, in the order of the report.
    pub flows: Vec<AgentFlow>,
    /// Flows that could not be read, by reason.
    pub rejected: ReasonCounts,
    /// The first of them.
    pub first_problem: Option<DecodeError>,
}

/// Signs that an agent saw only a sample of its sockets: then its counts are lower bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SamplingHints {
    /// Sockets that did not fit into the kernel's map; the agent answers by sampling.
    pub map_insertion_errors: u64,
    /// Sockets left out of the aggregation by its size limit.
    pub socket_agg_above_limit: u64,
    /// Socket changes left out by the size limit.
    pub socket_deltas_above_limit: u64,
}

impl SamplingHints {
    /// Whether any of the signs is there.
    pub fn any(&self) -> bool {
        (self.map_insertion_errors | self.socket_agg_above_limit | self.socket_deltas_above_limit) != 0
    }
}

impl AgentReport {
    /// What names the agent: the instance id, else the machine id; `None` when both are empty.
    pub fn agent_id(&self) -> Option<&str> {
        [&self.instance_id, &self.machine_id].into_iter().find(|id| !id.is_empty()).map(String::as_str)
    }

    /// The end of the interval, milliseconds, rounded down.
    pub fn end_ms(&self) -> i64 {
        i64::try_from(self.time_unix_nano / 1_000_000).unwrap_or(i64::MAX)
    }

    /// Whether the report was cut at the agent's size limit: then healthy flows are missing.
    pub fn truncated(&self) -> bool {
        self.flow_count() >= TOP_K as u64
    }

    /// Flows in the report, also those that could not be read.
    pub fn flow_count(&self) -> u64 {
        (self.flows.len() as u64).saturating_add(self.rejected.total())
    }

    /// Hands every flow as a record of the interval from `start_ms` to the report's time to `sink`. The start is
    /// moved into the hour before the end if it lies outside.
    pub fn for_each_record(&self, start_ms: i64, sink: &mut dyn FnMut(&FlowRecord)) {
        let end_ms = self.end_ms();
        let earliest = end_ms.saturating_sub(MAX_INTERVAL_MS).max(0).min(end_ms);
        let start_ms = start_ms.clamp(earliest, end_ms);
        for flow in &self.flows {
            sink(&flow.record(start_ms, end_ms));
        }
    }
}
