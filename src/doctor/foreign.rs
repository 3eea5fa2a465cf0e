//! Who is at work on our lease tables: another program, beside which flowshift does not start, or workers of this job.
//!
//! As at a start, life is a counter that moves. A start watches other programs for `engine.foreign_watch`; here it is watched
//! for a few seconds only, and what did not move by then is said to be open. Read next: [`super::renewal`] (our own workers).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use flowshift_consumer::inspect::{self, InspectError};
use flowshift_consumer::lease::LeaseRow;
use flowshift_consumer::run::Tables;
use flowshift_consumer::table::aws::DynamoTable;
use flowshift_consumer::table::{Table, TableError};
use tokio::time::Instant;

use super::renewal::{Look, Watch};
use super::{Finding, Patient};
use crate::app;

/// KCL renews every third of its failover time, 3.3 s by default.
const WATCH: Duration = Duration::from_secs(5);
/// Beyond the time in which a live worker of ours moves.
const GRACE: Duration = Duration::from_secs(1);
/// The longest watch: a check has 15 s.
const LONGEST: Duration = Duration::from_secs(12);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// A row that another program owns.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Foreign {
    table: String,
    shard: String,
    owner: String,
    counter: i64,
}

/// What was seen of the lease tables.
#[derive(Debug, Default)]
struct Seen {
    foreign: Vec<Foreign>,
    /// Workers of this job and what they hold.
    ours: Look,
    /// Rows that cannot be read, with the reason.
    broken: Vec<(String, String)>,
}

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    if !patient.part.works() {
        return vec![Finding::ok("", "collect takes no leases")];
    }
    if let Some(blocked) = patient.blocked().await {
        return vec![blocked];
    }
    let table = DynamoTable::new(patient.clients.dynamodb.clone());
    let tables = app::tables(&patient.config);
    let streams = &patient.config.streams;
    let streams = [&streams.flows, &streams.exchange, &streams.evidence];
    let began = Instant::now();
    let (mut before, mut watch) = (BTreeMap::new(), Watch::default());
    let span = WATCH.max(patient.config.engine.renewal.get() + GRACE).min(LONGEST);
    loop {
        let seen = match look(&table, &tables, &streams).await {
            Ok(seen) => seen,
            Err(error) => {
                let what = format!("not looked at: {error:#}");
                return vec![Finding::skipped("", what, "see `tables` and `permissions`")];
            }
        };
        let moved = moved(&mut before, &seen.foreign);
        // Nobody can live in a folder that is ours.
        let renewed = watch.saw(seen.ours.clone()) || patient.stopped;
        let over = began.elapsed() >= span;
        if moved.is_some() || over || renewed && seen.foreign.is_empty() {
            let mut findings = verdict(&seen, moved.as_ref(), patient.config.engine.foreign_watch.get());
            findings.extend(watch.stopped(!patient.stopped));
            if !patient.stopped {
                findings.extend(watch.verdict(began.elapsed()));
            }
            return findings;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A table that is not there has no rows.
async fn look(table: &DynamoTable, tables: &Tables, streams: &[&String]) -> anyhow::Result<Seen> {
    let workers = match inspect::workers(table, tables).await {
        Err(InspectError::Table(TableError::NotFound(_))) => inspect::Workers::default(),
        other => other.context("the list of workers")?,
    };
    let ours: BTreeSet<&String> = workers.beats.keys().collect();
    let mut seen = Seen::default();
    seen.ours.workers(&workers);
    for stream in streams {
        let leases = tables.leases(stream);
        let items = match table.scan(&leases).await {
            Err(TableError::NotFound(_)) => continue,
            other => other.with_context(|| format!("lease table {leases}"))?,
        };
        for item in items {
            let row = match LeaseRow::read(&item) {
                Ok(Some(row)) => row,
                Ok(None) => continue,
                Err(error) => {
                    seen.broken.push((leases.name.clone(), error.to_string()));
                    continue;
                }
            };
            let foreign = |owner: &&String| Some(*owner) != row.assigned.as_ref() && !ours.contains(owner);
            if let Some(owner) = row.owner.as_ref().filter(foreign) {
                let (shard, owner) = (row.shard.to_string(), owner.clone());
                seen.foreign.push(Foreign { table: leases.name.clone(), shard, owner, counter: row.counter });
            } else {
                seen.ours.row(&leases.name, &row);
            }
        }
    }
    Ok(seen)
}

/// The first row whose counter is not what it was at the first look.
fn moved(before: &mut BTreeMap<(String, String), i64>, now: &[Foreign]) -> Option<Foreign> {
    let lives =
        |row: &&Foreign| *before.entry((row.table.clone(), row.shard.clone())).or_insert(row.counter) != row.counter;
    now.iter().find(lives).cloned()
}

fn verdict(seen: &Seen, moved: Option<&Foreign>, foreign_watch: Duration) -> Vec<Finding> {
    let mut findings: Vec<Finding> = seen.broken.iter().map(|(table, why)| Finding::fault(
        table,
        why,
        "name another table in tables.*; README, `Going on from a KCL application`, says what a table must hold",
    )).collect();
    findings.push(match (moved, seen.foreign.first()) {
        (Some(row), _) => Finding::fault(
            &row.table,
            format!("{} of another program is at work on shard {}", row.owner, row.shard),
            "stop that application, all of its workers: flowshift does not start beside it; or name another table in \
             tables.*",
        ),
        (None, Some(row)) => Finding::warning(
            &row.table,
            format!(
                "{} leases of another program (owner {}), still for {} s",
                seen.foreign.len(),
                row.owner,
                WATCH.as_secs()
            ),
            format!(
                "if it is stopped all is well: a start watches them for {} s and goes on at its checkpoints",
                foreign_watch.as_secs()
            ),
        ),
        (None, None) => Finding::ok("", "none of another program"),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn row(counter: i64) -> Foreign {
        Foreign { table: "leases".into(), shard: "s".into(), owner: "kcl-7".into(), counter }
    }

    #[test]
    fn only_a_counter_that_moves_is_life() {
        let mut before = BTreeMap::new();
        assert_eq!(moved(&mut before, &[row(1)]), None);
        assert_eq!(moved(&mut before, &[row(1)]), None);
        assert_eq!(moved(&mut before, &[row(2)]), Some(row(2)));
    }

    #[test]
    fn a_live_worker_is_a_fault_a_still_one_a_warning_and_none_is_well() {
        let seen = Seen { foreign: vec![row(1)], ..Seen::default() };
        let minute = Duration::from_secs(60);
        let live = verdict(&seen, Some(&row(2)), minute);
        assert!(live[0].level == Level::Fault && live[0].what.contains("kcl-7"));
        let still = verdict(&seen, None, minute);
        assert!(still[0].level == Level::Warning && still[0].fix.contains("60 s"));
        assert_eq!(verdict(&Seen::default(), None, minute)[0].level, Level::Ok);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_a_fault_of_its_table() {
        let seen = Seen { broken: vec![("leases".into(), "row x: several streams".into())], ..Seen::default() };
        let found = verdict(&seen, None, WATCH);
        assert_eq!((found[0].level, found[0].about.as_str()), (Level::Fault, "leases"));
    }
}
