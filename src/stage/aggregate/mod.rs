//! AGGREGATE: flow records of one input shard → partial panes per lane.
//!
//! A pure function of (records, the shard's small state, the snapshot): no clock, no chance, sorted output. Every record
//! ends in a pane or under exactly one reason, and the account of it travels with the batch, so that it is committed
//! exactly once like everything else. Read [`state`] (what is remembered), then [`panes`] (what goes out), then here.

mod panes;
mod state;

use bytes::Bytes;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{Lanes, Watermarks};
use flowshift_consumer::log::Record;
use flowshift_consumer::stage::{Batch, Mapped, Mapper, StageError};
use flowshift_proto::agent_report::AgentReport;
use flowshift_proto::decode::{self, Item, Options};
use flowshift_proto::flow::{FeedKind, FlowRecord};
use flowshift_proto::reason::Reason;
use flowshift_proto::state::{Chunk, Kind};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

pub use state::SourceState;

use super::rules::Rules;
pub(in crate::stage) use panes::{BatchPanes, lane_of};

/// Version of the mapping's meaning; raised when the same records would give other bytes.
const SEMANTICS: u32 = 1;
/// Version of the stored state.
const STATE_VERSION: u32 = 1;

/// The mapper of the job.
#[derive(Debug, Clone, Copy)]
pub struct Aggregate {
    lanes: Lanes,
}

impl Aggregate {
    /// For a job with these lanes.
    pub fn new(lanes: Lanes) -> Self {
        Self { lanes }
    }
}

impl Mapper for Aggregate {
    type State = SourceState;
    type Prepared = Rules;

    fn semantics(&self) -> u32 {
        SEMANTICS
    }

    fn prepare(&self, snapshot: &Snapshot) -> Result<Rules, StageError> {
        Rules::read(snapshot).map_err(|e| StageError::with("snapshot", e))
    }

    fn map(&self, state: &mut SourceState, batch: &Batch<'_>, rules: &Rules) -> Result<Mapped, StageError> {
        let mut run = Run { state, rules, panes: BatchPanes::new(self.lanes, rules) };
        for record in batch.records {
            run.record(record);
        }
        run.panes.refuse(Reason::Expired, batch.expired);
        let account_lane = self.lanes.of(batch.shard.shard.as_str().as_bytes());
        run.panes.finish(account_lane)
    }

    fn watermarks(&self, state: &SourceState) -> Watermarks {
        Watermarks::from_slice(&state.watermarks)
    }

    fn raise(&self, state: &mut SourceState, to: &Watermarks) {
        for (mark, floor) in state.watermarks.iter_mut().zip(to.as_slice()) {
            *mark = (*mark).max(*floor);
        }
    }

    fn inherit(&self, parents: Vec<SourceState>) -> SourceState {
        SourceState::inherit(parents)
    }

    fn save(&self, state: &SourceState) -> Result<Vec<u8>, StageError> {
        let body = postcard::to_stdvec(state).map_err(|e| StageError::with("aggregate state", e))?;
        Ok(Chunk { version: STATE_VERSION, kind: Kind::Aggregate, body }.encode())
    }

    fn load(&self, bytes: &Bytes) -> Result<SourceState, StageError> {
        let chunk =
            Chunk::decode(bytes, Kind::Aggregate, STATE_VERSION).map_err(|e| StageError::with("aggregate state", e))?;
        postcard::from_bytes(&chunk.body).map_err(|e| StageError::with("aggregate state", e))
    }
}

/// One batch being mapped.
struct Run<'a> {
    state: &'a mut SourceState,
    rules: &'a Rules,
    panes: BatchPanes<'a>,
}

impl Run<'_> {
    fn record(&mut self, record: &Record) {
        let options = Options { format: self.rules.format, arrival_ms: Some(record.arrived_ms), ..Options::default() };
        // Own batches carry no identity, so their bytes are it; agent reports name themselves.
        let content = xxh3_128(&record.data);
        let seen = self.state.has_seen(content);
        let mut flows = false;
        let decoded = decode::payload(&record.data, &options, &mut |item| match item {
            Item::Flow(flow) => {
                flows = true;
                if seen {
                    self.panes.refuse(Reason::Duplicate, 1);
                } else {
                    self.flow(flow, record.arrived_ms, None);
                }
            }
            Item::Report(report) => self.report(&report, record.arrived_ms),
        });
        match decoded {
            Ok(decoded) => {
                for (reason, count) in decoded.rejected.iter() {
                    self.panes.refuse(reason, count);
                }
                if let Some(problem) = decoded.first_problem {
                    self.log_problem(record, &problem.error);
                }
            }
            Err(error) => {
                self.panes.refuse(error.reason(), 1);
                self.log_problem(record, &error);
            }
        }
        if flows {
            self.state.note_content(content, record.arrived_ms);
        }
    }

    fn log_problem(&self, record: &Record, error: &decode::DecodeError) {
        tracing::debug!(sequence = %record.sequence, error = %error, "part of a record cannot be read");
    }

    fn report(&mut self, report: &AgentReport, arrived_ms: i64) {
        let Some(agent) = report.agent_id() else {
            self.panes.refuse(Reason::Malformed, report.flows.len() as u64);
            return;
        };
        let agent = agent.to_owned();
        if report.end_ms() > arrived_ms.saturating_add(self.rules.future_ms) {
            self.panes.refuse(Reason::Future, report.flows.len() as u64);
            return;
        }
        let usual_ms = self.rules.agent_interval_ms;
        let Some(start_ms) = self.state.begin_report(&agent, report, arrived_ms, usual_ms) else {
            self.panes.refuse(Reason::Duplicate, report.flows.len() as u64);
            return;
        };
        let hash = xxh3_64(agent.as_bytes());
        report.for_each_record(start_ms, &mut |flow| self.flow(flow, arrived_ms, Some((hash, report.truncated()))));
    }

    /// Decides lateness, here and nowhere else, then maps the flow to its pair.
    fn flow(&mut self, flow: &FlowRecord, arrived_ms: i64, agent: Option<(u64, bool)>) {
        if flow.feed != FeedKind::Reports {
            self.panes.refuse(Reason::Unsupported, 1);
            return;
        }
        if flow.end_ms > arrived_ms.saturating_add(self.rules.future_ms) {
            self.panes.refuse(Reason::Future, 1);
            return;
        }
        let pane_ms = i64::from(self.rules.pane_s) * 1000;
        let first_pane_end = flow.start_ms.div_euclid(pane_ms).saturating_add(1).saturating_mul(pane_ms);
        let mark = &mut self.state.watermarks[0];
        if first_pane_end <= *mark {
            self.panes.refuse(Reason::Late, 1);
            return;
        }
        let seen = flow.end_ms.min(arrived_ms).saturating_sub(self.rules.lateness_ms);
        *mark = (*mark).max(seen);
        self.panes.flow(flow, agent);
    }
}

#[cfg(test)]
mod tests;
