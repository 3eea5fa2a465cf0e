//! Baselines from history, past the streams: what a lane would know had the job run before.
//!
//! For `demo`, and for a replay that starts with history. The same mapping as AGGREGATE and the same detector as DETECT,
//! with the allowed lateness of the job; no streams, no commits, no evidence. Invariant: what is judged here is never
//! judged again; panes past the end stay open in the state and are judged with what the job adds to them.

use flowshift_consumer::exchange::Lanes;
use flowshift_detector::{FeedKind, LaneDetector, MergeOutcome, Settings};
use flowshift_proto::agent_report::AgentReport;
use xxhash_rust::xxh3::xxh3_64;

use super::aggregate::BatchPanes;
use super::detect::Seed;
use super::rules::Rules;

/// Event time mapped at once, milliseconds: enough to share the work per pane, little enough to stay small.
const CHUNK_MS: i64 = 60_000;

/// One report of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct PastReport {
    /// Start of its interval, epoch milliseconds; the report says its end.
    pub start_ms: i64,
    /// The report.
    pub report: AgentReport,
}

/// Baselines and the account of what they were made from.
#[derive(Debug, Clone, Default)]
pub struct Seeded {
    /// A lane for every one of the job, also for those without a pair.
    pub lanes: Seed,
    /// Flow records read.
    pub records_in: u64,
    /// Flow records in no lane: unmapped, or behind what was judged already.
    pub refused: u64,
}

/// Makes baselines from reports in the order of their ends. Steps are judged up to `until_s` (epoch seconds), for every
/// lane alike, so that all of them go on with the same step.
pub fn seed(
    rules: &Rules,
    lanes: Lanes,
    settings: &Settings,
    reports: impl Iterator<Item = PastReport>,
    until_s: i64,
) -> Seeded {
    let until_ms = until_s.saturating_mul(1000);
    let mut history = History {
        panes: BatchPanes::new(lanes, rules),
        lanes: (0..lanes.count()).map(|_| LaneDetector::new(settings.clone())).collect(),
        late: 0,
    };
    let (mut newest_ms, mut flush_ms, mut judged_ms) = (i64::MIN, i64::MIN, i64::MIN);
    for PastReport { start_ms, report } in reports {
        newest_ms = newest_ms.max(report.end_ms());
        if newest_ms >= flush_ms {
            judged_ms = newest_ms.saturating_sub(rules.lateness_ms).min(until_ms);
            history.flush(judged_ms);
            flush_ms = newest_ms.saturating_add(CHUNK_MS);
        }
        history.report(start_ms, &report, judged_ms, i64::from(rules.pane_s) * 1000);
    }
    history.flush(until_ms);
    history.finish()
}

struct History<'a> {
    panes: BatchPanes<'a>,
    /// By lane number.
    lanes: Vec<LaneDetector>,
    late: u64,
}

impl History<'_> {
    fn report(&mut self, start_ms: i64, report: &AgentReport, judged_ms: i64, pane_ms: i64) {
        let agent = Some((xxh3_64(report.agent_id().unwrap_or_default().as_bytes()), report.truncated()));
        let first_pane_end = start_ms.div_euclid(pane_ms).saturating_add(1).saturating_mul(pane_ms);
        if first_pane_end <= judged_ms {
            self.late = self.late.saturating_add(report.flows.len() as u64);
            return;
        }
        report.for_each_record(start_ms, &mut |flow| self.panes.flow(flow, agent));
    }

    /// Hands the panes to their lanes and judges what is over.
    fn flush(&mut self, judged_ms: i64) {
        for (lane, pair, start_s, cell) in self.panes.take() {
            let Some(detector) = self.lanes.get_mut(usize::from(lane.index())) else { continue };
            let outcome = detector.merge(&pair, FeedKind::Reports, start_s, &cell);
            debug_assert_eq!(outcome, MergeOutcome::Accepted, "late reports were left out");
        }
        for detector in &mut self.lanes {
            detector.close(FeedKind::Reports, judged_ms);
        }
    }

    fn finish(self) -> Seeded {
        let account = self.panes.account();
        let numbered = (0..).zip(self.lanes);
        Seeded {
            lanes: numbered.collect(),
            records_in: account.records_in.saturating_add(self.late),
            refused: account.records_in.saturating_sub(account.accounted).saturating_add(self.late),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::simulate::Region;
    use crate::stage::rules;
    use crate::topology::Topology;

    /// Ten minutes of a region learned up to one minute before the end, and the number of its flow records.
    fn learned(moved_ms: i64) -> (Seeded, Settings, u64, i64) {
        let region = Region::demo(3);
        let config = Config::local_defaults().unwrap();
        let topology = Topology::parse(&region.topology_yaml()).unwrap();
        let rules = Rules::read(&rules::snapshot_of(&config, &topology).unwrap()).unwrap();
        let (lanes, settings) = (rules::lanes(&config).unwrap(), rules::detector_settings(&config).unwrap());
        let mut reports: Vec<PastReport> = (region.reports(-600, 0))
            .map(|r| PastReport { start_ms: r.time_ms - r.interval_ms, report: r.into_agent_report() })
            .collect();
        let last = reports.len() - 1;
        reports[last].start_ms -= moved_ms;
        let records = reports.iter().map(|r| r.report.flows.len() as u64).sum();
        let until_s = region.start_s() - 60;
        (seed(&rules, lanes, &settings, reports.into_iter(), until_s), settings, records, until_s)
    }

    #[test]
    fn every_lane_goes_on_with_the_same_step_and_has_all_records() {
        let (seeded, _, records, until_s) = learned(0);
        assert_eq!((seeded.lanes.len(), seeded.records_in, seeded.refused), (8, records, 0));
        let (mut pairs, mut kept) = (0, 0);
        for lane in seeded.lanes.into_values() {
            let feed = lane.state().feed(FeedKind::Reports).unwrap();
            assert_eq!((feed.judged_until_s(), feed.refused_closed), (Some(until_s), 0));
            pairs += lane.totals().count();
            kept += lane.totals().map(|(_, _, totals)| totals.records).sum::<u64>();
        }
        assert_eq!((pairs, kept), (58, records));
    }

    #[test]
    fn panes_after_the_end_stay_open_for_the_job() {
        let (mut seeded, _, _, until_s) = learned(0);
        let mut rows = 0;
        for mut lane in std::mem::take(&mut seeded.lanes).into_values() {
            let judged = lane.close(FeedKind::Reports, (until_s + 60) * 1000);
            rows += judged.iter().filter(|e| e.step_start_s == until_s && !e.elements.is_empty()).count();
        }
        assert!(rows > 0, "nothing was left to judge");
    }

    #[test]
    fn a_report_behind_what_was_judged_is_counted_and_left_out() {
        let (seeded, _, records, _) = learned(300_000);
        assert_eq!(seeded.records_in, records);
        assert!(seeded.refused > 0);
        assert!(seeded.lanes.values().all(|lane| lane.state().feed(FeedKind::Reports).unwrap().refused_closed == 0));
    }
}
