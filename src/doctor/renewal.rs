//! Workers of this job: does anyone renew the leases that are held?
//!
//! Pure: looks at rows and beats in, a verdict out. Life is a number that moved between two looks, as for the leader; no clock
//! is compared. A job that was left as asked has rows without owners, which is well; one whose workers died has rows with
//! owners that nobody renews, and that is told. Read next: [`super::foreign`], which looks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flowshift_consumer::inspect::Workers;
use flowshift_consumer::lease::{Checkpoint, LeaseRow};

use super::Finding;

/// What one look saw of this job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Leases held, by owner.
    held: BTreeMap<String, usize>,
    /// Numbers that their owner moves: each lease's counter, and its beat under an empty name.
    pulse: BTreeMap<(String, String), i64>,
    /// Shards that say why they stopped: where, why.
    stopped: Vec<(String, String)>,
}

impl Look {
    /// Takes the workers' beats.
    pub(super) fn workers(&mut self, workers: &Workers) {
        let beats = workers.beats.iter().filter_map(|(id, beat)| Some(((id.clone(), String::new()), (*beat)?)));
        self.pulse.extend(beats);
    }

    /// Takes a row of one of this job's workers, or of nobody.
    pub(super) fn row(&mut self, table: &str, row: &LeaseRow) {
        if row.checkpoint == Checkpoint::ShardEnd {
            return;
        }
        let place = format!("{table}: {}", row.shard);
        if let Some(trouble) = &row.trouble {
            self.stopped.push((place.clone(), trouble.clone()));
        }
        if let Some(owner) = row.checkpoint_owner.as_ref().or(row.owner.as_ref()) {
            *self.held.entry(owner.clone()).or_default() += 1;
            self.pulse.insert((owner.clone(), place), row.counter);
        }
    }
}

/// All looks so far.
#[derive(Debug, Default)]
pub(super) struct Watch {
    before: Option<Look>,
    live: BTreeSet<String>,
}

impl Watch {
    /// Takes the next look; whether every owner in it was seen to live by now.
    pub(super) fn saw(&mut self, look: Look) -> bool {
        if let Some(before) = &self.before {
            for (what, number) in &look.pulse {
                if before.pulse.get(what).is_some_and(|old| old != number) {
                    self.live.insert(what.0.clone());
                }
            }
        }
        let all = look.held.keys().all(|owner| self.live.contains(owner));
        self.before = Some(look);
        all
    }

    /// The shards whose rows say why they stopped; `at_work`: somebody may still try, and no stopped job is looked at.
    pub(super) fn stopped(&self, at_work: bool) -> Vec<Finding> {
        let told = |(place, why): &(String, String)| {
            let who = if at_work { "its owner stopped there and tries again" } else { "it stood there at the end" };
            Finding::warning(
                place,
                format!("{who}: {why}"),
                "see what it says; README, `Looking in, and lending a hand`, has `leases resolve`",
            )
        };
        self.before.iter().flat_map(|last| last.stopped.iter().map(told)).collect()
    }

    /// Whether the leases that are held are renewed; `watched`: for how long.
    pub(super) fn verdict(&self, watched: Duration) -> Vec<Finding> {
        let Some(last) = &self.before else { return Vec::new() };
        let mut findings = Vec::new();
        let silent: Vec<(&String, &usize)> =
            last.held.iter().filter(|(owner, _)| !self.live.contains(*owner)).collect();
        let leases: usize = silent.iter().map(|(_, leases)| **leases).sum();
        let Some((first, _)) = silent.first() else {
            if !last.held.is_empty() {
                let leases: usize = last.held.values().sum();
                findings.push(Finding::ok("this job", format!("{} at work on {leases} leases", last.held.len())));
            }
            return findings;
        };
        let seconds = watched.as_secs();
        findings.push(if silent.len() == last.held.len() {
            Finding::warning(
                "this job",
                format!("no worker renews its {leases} held leases (owner {first}), watched for {seconds} s: the job stands still"),
                "start `flowshift run`, which takes them over; if it should be running, look at its pods and why they died",
            )
        } else {
            Finding::warning(
                "this job",
                format!("{} of {} owners are silent ({first}), with {leases} leases, watched for {seconds} s", silent.len(), last.held.len()),
                "the leader gives their leases to others after engine.failover; if this stays, see the log of the leader",
            )
        });
        findings
    }
}

#[cfg(test)]
mod tests {
    use flowshift_consumer::lease::new_row;
    use flowshift_consumer::shard::{HashRange, Shard, ShardId};

    use super::*;
    use crate::doctor::Level;

    fn row(shard: &str, owner: Option<&str>, counter: i64) -> LeaseRow {
        let shard = Shard { id: ShardId::new(shard), parents: Vec::new(), range: HashRange::ALL, closed: false };
        let row = LeaseRow::read(&new_row(&shard, &Checkpoint::TrimHorizon, 0)).unwrap().unwrap();
        LeaseRow { owner: owner.map(str::to_owned), counter, ..row }
    }

    fn look(rows: &[LeaseRow], beats: &[(&str, i64)]) -> Look {
        let mut look = Look::default();
        let beats = beats.iter().map(|(id, beat)| ((*id).to_owned(), Some(*beat))).collect();
        look.workers(&Workers { beats, leader: None });
        rows.iter().for_each(|row| look.row("leases", row));
        look
    }

    fn verdict(looks: &[Look]) -> Vec<Finding> {
        let mut watch = Watch::default();
        for look in looks {
            watch.saw(look.clone());
        }
        [watch.stopped(true), watch.verdict(Duration::from_secs(5))].concat()
    }

    /// The beats of dead workers stand in the table for ever: they were counted as workers of the job.
    #[test]
    fn workers_whose_numbers_stand_still_are_no_workers() {
        let dead = look(&[row("0", Some("a"), 7), row("1", Some("a"), 3)], &[("a", 9)]);
        let found = verdict(&[dead.clone(), dead.clone()]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].level, Level::Warning);
        assert!(
            found[0].what.starts_with("no worker renews its 2 held leases (owner a), watched for 5 s"),
            "{found:?}"
        );
        // A counter or a beat that moves is life.
        for alive in [
            look(&[row("0", Some("a"), 8), row("1", Some("a"), 3)], &[("a", 9)]),
            look(&[row("0", Some("a"), 7), row("1", Some("a"), 3)], &[("a", 10)]),
        ] {
            assert_eq!(verdict(&[dead.clone(), alive])[0].level, Level::Ok);
        }
    }

    #[test]
    fn one_silent_owner_beside_live_ones_is_named() {
        let first = look(&[row("0", Some("a"), 7), row("1", Some("b"), 3)], &[]);
        let then = look(&[row("0", Some("a"), 7), row("1", Some("b"), 4)], &[]);
        let found = verdict(&[first, then]);
        assert!(found[0].what.starts_with("1 of 2 owners are silent (a), with 1 leases"), "{found:?}");
    }

    #[test]
    fn a_job_that_nobody_holds_is_well_and_a_shard_that_stopped_is_told() {
        assert_eq!(verdict(&[look(&[row("0", None, 7)], &[])]), Vec::new());
        let stopped = LeaseRow { trouble: Some("stage: lost".into()), ..row("0", None, 7) };
        let found = verdict(&[look(&[stopped], &[])]);
        assert!(found[0].level == Level::Warning && found[0].what.contains("stage: lost"), "{found:?}");
    }
}
