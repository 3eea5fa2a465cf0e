//! What AGGREGATE remembers of one input shard: small, because it is written with every batch.
//!
//! Watermarks, the last report times of each agent (interval and repeats), and hashes of recent records of our own
//! formats (repeats). Bounded: see the constants. What falls out of a bound is older than the allowed lateness in any
//! healthy feed, so it would be late anyway.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use flowshift_proto::agent_report::AgentReport;
use serde::{Deserialize, Serialize};

/// Report times kept per agent.
const REPORTS_PER_AGENT: usize = 64;
/// Agents unheard of for this long are forgotten.
const AGENT_HORIZON_MS: i64 = 24 * 3_600_000;
/// Record hashes kept.
const CONTENTS: usize = 4_096;
/// Record hashes older than this are forgotten.
const CONTENT_HORIZON_MS: i64 = 3_600_000;
/// A longer silence than this many intervals says that reports were lost, not that one report covers it.
const LONGEST_INTERVALS: i64 = 4;

/// The state of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceState {
    /// Watermark per feed kind, epoch milliseconds.
    pub(super) watermarks: [i64; 4],
    agents: BTreeMap<String, BTreeSet<u64>>,
    contents: VecDeque<(u128, i64)>,
}

impl Default for SourceState {
    fn default() -> Self {
        Self { watermarks: [i64::MIN; 4], agents: BTreeMap::new(), contents: VecDeque::new() }
    }
}

impl SourceState {
    /// A child of several parents waits for the slowest and remembers what each of them has seen.
    pub(super) fn inherit(parents: Vec<Self>) -> Self {
        let mut parents = parents.into_iter();
        let Some(mut child) = parents.next() else { return Self::default() };
        for parent in parents {
            for (mark, other) in child.watermarks.iter_mut().zip(parent.watermarks) {
                *mark = (*mark).min(other);
            }
            for (agent, times) in parent.agents {
                child.agents.entry(agent).or_default().extend(times);
            }
            child.contents.extend(parent.contents);
        }
        child
    }

    /// Whether a record of our own formats came before.
    pub(super) fn has_seen(&self, content: u128) -> bool {
        self.contents.iter().any(|(hash, _)| *hash == content)
    }

    /// Remembers a record.
    pub(super) fn note_content(&mut self, content: u128, arrived_ms: i64) {
        self.contents.push_back((content, arrived_ms));
        let old = |(_, at): &(u128, i64)| *at < arrived_ms.saturating_sub(CONTENT_HORIZON_MS);
        while self.contents.len() > CONTENTS || self.contents.front().is_some_and(old) {
            self.contents.pop_front();
        }
    }

    /// Where a report's interval starts; `None` when the report came before.
    ///
    /// The message does not say how long its interval is. It starts at the agent's report before, unless there is none,
    /// the agent has started anew, or reports between were lost: then it is the configured one.
    pub(super) fn begin_report(
        &mut self,
        agent: &str,
        report: &AgentReport,
        arrived_ms: i64,
        usual_ms: i64,
    ) -> Option<i64> {
        let end_ms = report.end_ms();
        // By its arrival too: one agent's clock must not make the others forgotten.
        let forget = end_ms.min(arrived_ms).saturating_sub(AGENT_HORIZON_MS);
        if self.agents.len() > 1 && !self.agents.contains_key(agent) {
            self.agents.retain(|_, times| times.last().is_some_and(|t| millis(*t) >= forget));
        }
        let times = self.agents.entry(agent.to_owned()).or_default();
        if !times.insert(report.time_unix_nano) {
            return None;
        }
        let before = times.range(..report.time_unix_nano).next_back().map(|t| millis(*t));
        if times.len() > REPORTS_PER_AGENT {
            times.pop_first();
        }
        let usual = end_ms.saturating_sub(usual_ms);
        Some(match before {
            Some(before) if report.restarts == 0 => {
                let gap = end_ms.saturating_sub(before);
                let lost = report.failed_reports > 0 || gap > usual_ms.saturating_mul(LONGEST_INTERVALS);
                if lost { before.max(usual) } else { before }
            }
            Some(before) => before.max(usual),
            None => usual,
        })
    }
}

fn millis(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}
