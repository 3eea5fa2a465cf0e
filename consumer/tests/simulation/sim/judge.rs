//! The third stage: takes what the lanes say step by step and owns an outbox, as the real program's CORRELATE does.
//!
//! A step is judged when every lane has told it, or is skipped for it; what a lane tells of a step it was skipped for
//! is counted and dropped. A step's verdict enters the outbox in the same commit that moves the checkpoint past its
//! evidence, and goes out after that commit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use flowshift_consumer::exchange::LaneId;
use flowshift_consumer::log::{Entry, Record};
use flowshift_consumer::skip::SkipRecord;
use flowshift_consumer::stage::{Stage, StageError, StatePart};

use super::Violations;
use super::job::{KINDS, STEP_MS};
use super::trips::Trips;

/// What has gone out to the world, at least once.
pub(crate) type Outside = Arc<Mutex<Vec<String>>>;

/// Lane, kind, the step up to which it speaks, and what the steps held.
type Said = (u16, usize, i64, Vec<(i64, u64)>);

/// The stage.
pub(crate) struct Judge {
    shard: String,
    lanes: u16,
    violations: Violations,
    outside: Outside,
    trips: Trips,
    state: State,
    changed: bool,
    /// Entries of the outbox that have gone out.
    sent: usize,
}

#[derive(Default)]
pub(crate) struct State {
    /// Last step told, by lane and kind.
    told: BTreeMap<(u16, usize), i64>,
    /// Last step skipped, by lane and kind.
    skipped: BTreeMap<(u16, usize), i64>,
    /// What lanes told of steps they had been skipped for, by kind and step.
    pub(crate) dropped: BTreeMap<(usize, i64), u64>,
    /// Sums of steps that are not judged yet.
    open: BTreeMap<(usize, i64), u64>,
    /// `KIND STEP TOTAL`, in the order of judgement.
    pub(crate) outbox: Vec<String>,
}

impl Judge {
    pub(crate) fn new(shard: String, lanes: u16, violations: Violations, outside: Outside, trips: Trips) -> Self {
        Self { shard, lanes, violations, outside, trips, state: State::default(), changed: false, sent: 0 }
    }

    fn low(&self, kind: usize) -> i64 {
        let of = |map: &BTreeMap<(u16, usize), i64>, lane| map.get(&(lane, kind)).copied().unwrap_or(i64::MIN);
        let told = |lane| of(&self.state.told, lane).max(of(&self.state.skipped, lane));
        (0..self.lanes).map(told).min().unwrap_or(i64::MIN)
    }

    fn judge(&mut self, kind: usize) {
        let low = self.low(kind);
        let ripe: Vec<(usize, i64)> =
            self.state.open.keys().filter(|(k, step)| *k == kind && *step <= low).copied().collect();
        for key in ripe {
            if let Some(total) = self.state.open.remove(&key) {
                self.state.outbox.push(format!("{} {} {total}", key.0, key.1));
            }
        }
    }

    fn parse(text: &str) -> Option<Said> {
        let mut words = text.split(' ');
        let (lane, kind, to) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let steps = words.next()?.split(',').filter_map(|s| s.split_once(':'));
        Some((lane, kind, to, steps.filter_map(|(s, n)| Some((s.parse().ok()?, n.parse().ok()?))).collect()))
    }
}

/// The record that skips a lane up to a moment, and the moment of the last step it takes in.
pub(crate) fn skip_record(lane: LaneId, kind: usize, moment_ms: i64) -> Option<SkipRecord> {
    let step = moment_ms.div_euclid(STEP_MS) - 1;
    let data = Bytes::from(format!("skip:{lane}:{kind}:{step}"));
    let entry = Entry { partition_key: lane.to_string(), hash_key: None, data };
    Some(SkipRecord { until_ms: (step + 1) * STEP_MS, entry })
}

fn parse_skip(text: &str) -> Option<(u16, usize, i64)> {
    let mut words = text.strip_prefix("skip:")?.split(':');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

impl State {
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let mut state = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            let (what, rest) = line.split_once(' ').unwrap();
            let words: Vec<i64> = rest.split(' ').map(|w| w.parse().unwrap()).collect();
            match what {
                "told" | "skip" => {
                    let key = (u16::try_from(words[0]).unwrap(), usize::try_from(words[1]).unwrap());
                    let map = if what == "told" { &mut state.told } else { &mut state.skipped };
                    map.insert(key, words[2]);
                }
                "open" | "drop" => {
                    let key = (usize::try_from(words[0]).unwrap(), words[1]);
                    let map = if what == "open" { &mut state.open } else { &mut state.dropped };
                    map.insert(key, u64::try_from(words[2]).unwrap());
                }
                _ => state.outbox.push(rest.to_owned()),
            }
        }
        state
    }

    pub(crate) fn encode(&self) -> String {
        let told = self.told.iter().map(|((lane, kind), to)| format!("told {lane} {kind} {to}\n"));
        let skipped = self.skipped.iter().map(|((lane, kind), to)| format!("skip {lane} {kind} {to}\n"));
        let open = self.open.iter().map(|((kind, step), n)| format!("open {kind} {step} {n}\n"));
        let dropped = self.dropped.iter().map(|((kind, step), n)| format!("drop {kind} {step} {n}\n"));
        told.chain(skipped)
            .chain(open)
            .chain(dropped)
            .chain(self.outbox.iter().map(|entry| format!("out {entry}\n")))
            .collect()
    }
}

impl Stage for Judge {
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
        if let Some((_, bytes)) = parts.first() {
            self.state = State::decode(bytes);
        }
        Ok(())
    }

    fn process(&mut self, record: &Record) -> Result<(), StageError> {
        self.trips.step();
        let text = String::from_utf8_lossy(&record.data);
        if let Some((lane, kind, to)) = parse_skip(&text) {
            let skipped = self.state.skipped.entry((lane, kind)).or_insert(i64::MIN);
            self.changed |= to > *skipped;
            *skipped = to.max(*skipped);
            self.judge(kind);
            return Ok(());
        }
        let (lane, kind, to, steps) = Self::parse(&text).ok_or_else(|| StageError::new("evidence"))?;
        let told = self.state.told.entry((lane, kind)).or_insert(i64::MIN);
        if to <= *told {
            return Ok(());
        }
        if steps.iter().any(|(step, _)| *step <= *told) {
            let what = format!("lane {lane} told {text:?} after it had told up to {told}");
            self.violations.note(what.clone());
            return Err(StageError::new(what));
        }
        *told = to;
        let skipped = self.state.skipped.get(&(lane, kind)).copied().unwrap_or(i64::MIN);
        for (step, n) in steps {
            let map = if step <= skipped { &mut self.state.dropped } else { &mut self.state.open };
            *map.entry((kind, step)).or_default() += n;
        }
        self.changed = true;
        self.judge(kind);
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        if !std::mem::take(&mut self.changed) {
            return Ok(Vec::new());
        }
        Ok(vec![(self.shard.clone(), Bytes::from(self.state.encode()))])
    }

    fn committed(&mut self) {
        let mut outside = self.outside.lock().unwrap();
        outside.extend(self.state.outbox[self.sent..].iter().cloned());
        self.sent = self.state.outbox.len();
    }

    fn finished(&self) -> bool {
        (0..KINDS).all(|kind| self.low(kind) == i64::MAX)
    }
}
