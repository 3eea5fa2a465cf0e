//! Trials and the table of them.
//!
//! Percentiles are by nearest rank: of fewer than 100 trials the p99 is the largest, which hides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::json;

use super::scenario::Scenario;
use super::{Args, Failure};

/// One trial.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    scenario: Scenario,
    victim: String,
    shards: usize,
    /// Seconds per shard that was read again, ascending.
    reads: Vec<f64>,
    /// Seconds until the slowest shard's next owner held the lease.
    acquired: f64,
    /// Whether what was signalled ended.
    left: bool,
}

impl Trial {
    /// Of what each shard took: (until it was read, until the next owner held its lease).
    pub(crate) fn new(
        scenario: Scenario,
        victim: &str,
        shards: BTreeSet<String>,
        read: &BTreeMap<String, (f64, f64)>,
        left: bool,
    ) -> Self {
        let mut reads: Vec<f64> = read.values().map(|(read, _)| *read).collect();
        reads.sort_by(f64::total_cmp);
        let acquired = read.values().map(|(_, acquired)| *acquired).fold(0.0, f64::max);
        Self { scenario, victim: victim.to_owned(), shards: shards.len(), reads, acquired, left }
    }

    /// The job had no worker that fits.
    pub(crate) fn skipped(scenario: Scenario) -> Self {
        Self { scenario, victim: String::new(), shards: 0, reads: Vec::new(), acquired: 0.0, left: true }
    }

    fn counts(&self) -> bool {
        self.shards > 0
    }

    /// Whether a shard was not read again, or the process did not end.
    fn failed(&self) -> bool {
        self.reads.len() < self.shards || !self.left
    }

    fn slowest(&self) -> f64 {
        self.reads.last().copied().unwrap_or(f64::INFINITY)
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.counts() {
            return write!(f, "{}: skipped, no worker fits", self.scenario);
        }
        let (slowest, acquired, shards) = (self.slowest(), self.acquired, self.shards);
        let failed = if self.failed() { ", FAILED" } else { "" };
        write!(
            f,
            "{} ({}): {slowest:.2} s, lease after {acquired:.2} s, {shards} shards{failed}",
            self.scenario, self.victim
        )
    }
}

/// By nearest rank; `values` ascend.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// How many processes wanted to run in the last minute; what else the machine does is part of the figures.
pub(crate) fn machine_load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Prints the table, or JSON; `loads` are the machine's at the beginning and the end.
pub(crate) fn print(args: &Args, scenarios: &[Scenario], trials: &[Trial], loads: [f64; 2]) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for scenario in scenarios {
        let of: Vec<&Trial> = trials.iter().filter(|t| t.scenario == *scenario && t.counts()).collect();
        let mut slowest: Vec<f64> = of.iter().map(|t| t.slowest()).collect();
        slowest.sort_by(f64::total_cmp);
        let failed = of.iter().filter(|t| t.failed()).count();
        let [median, p90, p99] = [50, 90, 99].map(|p| percentile(&slowest, p));
        let max = slowest.last().copied().unwrap_or(f64::NAN);
        rows.push((scenario, of.len(), failed, [median, p90, p99, max]));
    }
    if args.json {
        let row = |(scenario, trials, failed, figures): &(&Scenario, usize, usize, [f64; 4])| {
            let [median, p90, p99, max] = figures;
            json!({"what": scenario.title(), "trials": trials, "failed": failed, "median_s": median, "p90_s": p90,
                "p99_s": p99, "max_s": max, "limit_s": scenario.limit()})
        };
        let rows: Vec<_> = rows.iter().map(row).collect();
        let out = json!({"seed": args.seed, "jobs": args.jobs, "workers": args.workers, "shards": args.shards,
            "machine_load": loads, "rows": rows});
        println!("{out}");
        return Ok(());
    }
    let processors = std::thread::available_parallelism()?;
    let [before, after] = loads;
    println!("{} jobs of {} workers and {} shards, seed {}", args.jobs, args.workers, args.shards, args.seed);
    println!("{processors} processors; load of the machine {before:.1} at the beginning, {after:.1} at the end\n");
    println!("| what | trials | failed | median | p90 | p99 | largest | wanted p99 |");
    println!("|---|---|---|---|---|---|---|---|");
    for (scenario, trials, failed, [median, p90, p99, max]) in rows {
        let limit = scenario.limit().map_or_else(|| "-".to_owned(), |limit| format!("< {limit:.0} s"));
        println!(
            "| {scenario} | {trials} | {failed} | {median:.2} s | {p90:.2} s | {p99:.2} s | {max:.2} s | {limit} |"
        );
    }
    Ok(())
}
