//! Judges a finished run. It knows what was put into the input stream, and compares with committed state, with the
//! outbox, and with what went out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowshift_consumer::inspect;
use flowshift_consumer::log::Log;
use flowshift_consumer::table::Table;

use super::job::{Counts, parse_counts, step_of};
use super::judge::State;
use super::world::{EVIDENCE, EXCHANGE, World, tables};

/// Records told too late, by kind and step.
pub(crate) type Dropped = BTreeMap<(usize, i64), u64>;

fn by_key(counters: &Counts) -> BTreeMap<String, u64> {
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for (name, n) in counters.iter().filter(|(name, _)| name.contains(' ')) {
        let key = name.rsplit(' ').next().unwrap_or_default();
        *counted.entry(key.to_owned()).or_default() += n;
    }
    counted
}

impl World {
    async fn parts(&self, stream: &str) -> Result<Vec<(String, bytes::Bytes)>, String> {
        let table: Arc<dyn Table> = self.table.clone();
        let stream = self.log.identify(stream).await.map_err(|e| e.to_string())?;
        inspect::parts(&table, &tables(), &stream).await.map_err(|e| e.to_string())
    }

    /// The counters of every committed lane.
    pub(crate) async fn lanes(&self) -> Result<BTreeMap<String, Counts>, String> {
        let mut lanes = BTreeMap::new();
        for (key, bytes) in self.parts(EXCHANGE).await? {
            if let Some(lane) = key.strip_prefix("lane-") {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let (_, counts) = text.split_once('\n').ok_or("lane state")?;
                lanes.insert(lane.to_owned(), parse_counts(counts));
            }
        }
        Ok(lanes)
    }

    /// The last step of a kind that every committed lane has told.
    pub(crate) async fn told(&self, kind: usize) -> Result<i64, String> {
        let parts = self.parts(EXCHANGE).await?;
        let lanes = parts.iter().filter(|(key, _)| key.starts_with("lane-"));
        let told = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).split([' ', '\n']).nth(kind)?.parse().ok();
        let told: Option<Vec<i64>> = lanes.map(|(_, bytes)| told(bytes)).collect();
        Ok(told.ok_or("lane state")?.into_iter().min().unwrap_or(i64::MIN))
    }

    /// The counters of all committed lanes, summed.
    pub(crate) async fn counters(&self) -> Result<Counts, String> {
        let mut all = Counts::new();
        for (name, n) in self.lanes().await?.into_values().flatten() {
            *all.entry(name).or_default() += n;
        }
        Ok(all)
    }

    /// Everything a run without expiry must satisfy at its end.
    pub(crate) async fn judge(&self) -> Result<(), String> {
        let counters = self.counters().await?;
        if let Some(lost) = counters.keys().find(|name| *name == "expired" || *name == "incomplete") {
            return Err(format!("{lost} is counted and nothing expired"));
        }
        self.every_record_is_counted_once(&counters)?;
        self.every_record_is_late_only_by_the_account(&counters, &self.floors())?;
        self.evidence_is_repeated_in_the_same_bytes()?;
        self.every_verdict_is_reached_once(&counters, &BTreeMap::new()).await
    }

    /// How many records are missing; no key may be counted more often than it was produced.
    pub(crate) fn what_is_missing(&self, counters: &Counts) -> Result<u64, String> {
        let counted = by_key(counters);
        for (key, n) in &counted {
            if self.produced.get(key).is_none_or(|produced| produced < n) {
                return Err(format!("{key} is counted {n} times, more often than it was produced"));
            }
        }
        Ok(self.produced.values().sum::<u64>() - counted.values().sum::<u64>())
    }

    /// How many records of each lane's keys are missing there.
    pub(crate) async fn missing_by_lane(&self) -> Result<BTreeMap<String, u64>, String> {
        let lanes = self.lanes().await?;
        self.what_is_missing(&self.counters().await?)?;
        let mut missing: BTreeMap<String, u64> = BTreeMap::new();
        for (key, produced) in &self.produced {
            let lane = format!("{:04}", self.lanes.of(key.as_bytes()).index());
            let counted = lanes.get(&lane).and_then(|counts| by_key(counts).get(key).copied()).unwrap_or_default();
            *missing.entry(lane).or_default() += produced - counted;
        }
        Ok(missing)
    }

    /// Per key: counted + late + future = produced.
    pub(crate) fn every_record_is_counted_once(&self, counters: &Counts) -> Result<(), String> {
        let counted = by_key(counters);
        if counted == self.produced {
            return Ok(());
        }
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let (expected, found) = (sum(&self.produced), sum(&counted));
        let wrong: Vec<String> = self
            .produced
            .iter()
            .filter(|(key, n)| counted.get(*key) != Some(n))
            .map(|(key, n)| format!("{key}: {n} produced, {} counted", counted.get(key).copied().unwrap_or_default()))
            .collect();
        Err(format!("{expected} records produced, {found} counted: {}", wrong.join("; ")))
    }

    /// What a lane says of a kind up to a step is said once, or again with the same bytes.
    fn evidence_is_repeated_in_the_same_bytes(&self) -> Result<(), String> {
        let mut told: BTreeMap<String, String> = BTreeMap::new();
        for record in self.log.dump(EVIDENCE) {
            let text = String::from_utf8_lossy(&record.data).into_owned();
            let key = text.split(' ').take(3).collect::<Vec<_>>().join(" ");
            if let Some(before) = told.insert(key, text.clone())
                && before != text
            {
                return Err(format!("told twice and differently: {before:?} and {text:?}"));
            }
        }
        Ok(())
    }

    /// What the third stage has committed.
    pub(crate) async fn verdicts(&self) -> Result<State, String> {
        let parts = self.parts(EVIDENCE).await?;
        Ok(parts.first().map(|(_, bytes)| State::decode(bytes)).unwrap_or_default())
    }

    /// Everything a run must satisfy in which lanes were skipped: what they told too late is counted, and a verdict
    /// holds the rest of its step. Returns what was told too late.
    pub(crate) async fn judge_with_skips(&self) -> Result<Dropped, String> {
        let counters = self.counters().await?;
        self.every_record_is_counted_once(&counters)?;
        self.every_record_is_late_only_by_the_account(&counters, &self.floors())?;
        self.evidence_is_repeated_in_the_same_bytes()?;
        let dropped = self.verdicts().await?.dropped;
        self.every_verdict_is_reached_once(&counters, &dropped).await?;
        Ok(dropped)
    }

    /// The outbox holds each step once, with exactly what the lanes counted for it but for what came too late, and all
    /// of it went out.
    async fn every_verdict_is_reached_once(&self, counters: &Counts, dropped: &Dropped) -> Result<(), String> {
        let mut expected: BTreeMap<(usize, i64), u64> = BTreeMap::new();
        for (name, n) in counters {
            if let Some(step) = step_of(name) {
                *expected.entry(step).or_default() += n;
            }
        }
        for (step, n) in dropped {
            let left = expected.get(step).and_then(|all| all.checked_sub(*n));
            let left =
                left.ok_or_else(|| format!("{n} dropped of step {step:?}, which held {:?}", expected.get(step)))?;
            if left == 0 {
                expected.remove(step)
            } else {
                expected.insert(*step, left)
            };
        }
        let expected: BTreeSet<String> = expected.iter().map(|((k, s), n)| format!("{k} {s} {n}")).collect();
        let State { outbox, dropped: counted, .. } = self.verdicts().await?;
        if counted != *dropped {
            return Err(format!("told too late: {counted:?}, expected {dropped:?}"));
        }
        let once: BTreeSet<String> = outbox.iter().cloned().collect();
        if once.len() != outbox.len() {
            return Err(format!("an entry stands twice in the outbox: {outbox:?}"));
        }
        if once != expected {
            let missing: Vec<_> = expected.difference(&once).collect();
            let wrong: Vec<_> = once.difference(&expected).collect();
            return Err(format!("outbox: missing {missing:?}, wrong {wrong:?}"));
        }
        let sent: BTreeSet<String> = self.outside.lock().unwrap().iter().cloned().collect();
        if sent == once { Ok(()) } else { Err("what went out is not what the outbox holds".into()) }
    }
}
