//! The third stage: takes what the lanes say step by step and owns an outbox, as the real program's CORRELATE does.
//!
//! A step is judged when every lane has told it; its verdict enters the outbox in the same commit that moves the
//! checkpoint past its evidence, and goes out after that commit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use flowshift_consumer::log::Record;
use flowshift_consumer::stage::{Stage, StageError, StatePart};

use super::Violations;
use super::job::KINDS;
use super::trips::Trips;

/// What has gone out to the world, at least once.
pub(crate) type Outside = Arc<Mutex<Vec<String>>>;

/// Lane, kind, the step up to which it speaks, and what the steps held.
type Said = (u16, usize, i64, Vec<(i64, u64)>);

/// The stage.
pub(crate) struct Judge {
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
    /// Sums of steps that are not judged yet.
    open: BTreeMap<(usize, i64), u64>,
    /// `KIND STEP TOTAL`, in the order of judgement.
    pub(crate) outbox: Vec<String>,
}

impl Judge {
    pub(crate) fn new(lanes: u16, violations: Violations, outside: Outside, trips: Trips) -> Self {
        Self { lanes, violations, outside, trips, state: State::default(), changed: false, sent: 0 }
    }

    fn low(&self, kind: usize) -> i64 {
        let told = |lane| self.state.told.get(&(lane, kind)).copied().unwrap_or(i64::MIN);
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

impl State {
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let mut state = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            let (what, rest) = line.split_once(' ').unwrap();
            let words: Vec<i64> = rest.split(' ').map(|w| w.parse().unwrap()).collect();
            match what {
                "told" => {
                    let key = (u16::try_from(words[0]).unwrap(), usize::try_from(words[1]).unwrap());
                    state.told.insert(key, words[2]);
                }
                "open" => {
                    let key = (usize::try_from(words[0]).unwrap(), words[1]);
                    state.open.insert(key, u64::try_from(words[2]).unwrap());
                }
                _ => state.outbox.push(rest.to_owned()),
            }
        }
        state
    }

    fn encode(&self) -> String {
        let told = self.told.iter().map(|((lane, kind), to)| format!("told {lane} {kind} {to}\n"));
        let open = self.open.iter().map(|((kind, step), n)| format!("open {kind} {step} {n}\n"));
        told.chain(open).chain(self.outbox.iter().map(|entry| format!("out {entry}\n"))).collect()
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
        for (step, n) in steps {
            *self.state.open.entry((kind, step)).or_default() += n;
        }
        self.changed = true;
        self.judge(kind);
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        if !std::mem::take(&mut self.changed) {
            return Ok(Vec::new());
        }
        Ok(vec![("judge".to_owned(), Bytes::from(self.state.encode()))])
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
