//! A small job with everything a real one has: two feed kinds, lateness decided in the mapper, steps closed by
//! watermarks. Records are `KIND-KEY TIME`; every one ends up counted in a step, or as late, or as future.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{LaneId, Lanes, Loss, Watermarks};
use flowshift_consumer::stage::{Batch, Mapped, Mapper, Reducer, StageError};

use super::Violations;
use super::trips::Trips;

/// Event time of one step, milliseconds.
pub(crate) const STEP_MS: i64 = 10_000;
/// Feed kinds.
pub(crate) const KINDS: usize = 2;
/// Allowed lateness by kind, milliseconds.
const LATENESS_MS: [i64; KINDS] = [1_000, 4_000];
/// Event time may be ahead of arrival by so much, milliseconds.
const AHEAD_MS: i64 = 120_000;

/// Counters by name: `c KIND STEP KEY`, `late KEY`, `future KEY`, `expired`, `incomplete`.
pub(crate) type Counts = BTreeMap<String, u64>;

pub(crate) fn parse_counts(text: &str) -> Counts {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.filter_map(|(k, n)| Some((k.to_owned(), n.parse().ok()?))).collect()
}

fn lines(counts: &Counts) -> Vec<String> {
    counts.iter().map(|(k, n)| format!("{k}={n}\n")).collect()
}

/// Counts records per kind, step and key.
pub(crate) struct Count {
    pub(crate) lanes: Lanes,
    pub(crate) trips: Trips,
}

/// The source's watermarks.
#[derive(Clone)]
pub(crate) struct Marks([i64; KINDS]);

impl Default for Marks {
    fn default() -> Self {
        Self([i64::MIN; KINDS])
    }
}

impl Marks {
    /// The slower of both, kind by kind.
    pub(crate) fn slower(self, other: Self) -> Self {
        Self(std::array::from_fn(|kind| self.0[kind].min(other.0[kind])))
    }

    pub(crate) fn raise_to(&mut self, kind: usize, to_ms: i64) {
        self.0[kind] = self.0[kind].max(to_ms);
    }
}

impl Count {
    /// The counter a record belongs to, moving the watermark on.
    pub(crate) fn place(marks: &mut Marks, key: &str, time: i64, arrived_ms: i64) -> (usize, String) {
        let kind = usize::from(key.starts_with('1'));
        if time > arrived_ms + AHEAD_MS {
            return (kind, format!("future {key}"));
        }
        let (step, mark) = (time.div_euclid(STEP_MS), &mut marks.0[kind]);
        let late = *mark != i64::MIN && step < mark.div_euclid(STEP_MS);
        *mark = (*mark).max(time.min(arrived_ms) - LATENESS_MS[kind]);
        (kind, if late { format!("late {key}") } else { format!("c {kind} {step} {key}") })
    }
}

impl Mapper for Count {
    type State = Marks;
    type Prepared = ();

    fn semantics(&self) -> u32 {
        1
    }

    fn prepare(&self, _snapshot: &Snapshot) -> Result<(), StageError> {
        Ok(())
    }

    fn map(&self, state: &mut Marks, batch: &Batch<'_>, (): &()) -> Result<Mapped, StageError> {
        self.trips.step();
        let mut counts: BTreeMap<LaneId, Counts> = BTreeMap::new();
        let mut kinds = [false; 4];
        for record in batch.records {
            let text = String::from_utf8_lossy(&record.data);
            let (key, time) = text.split_once(' ').ok_or_else(|| StageError::new("not ours"))?;
            let time: i64 = time.parse().map_err(|e| StageError::with("time", e))?;
            let (kind, name) = Self::place(state, key, time, record.arrived_ms);
            kinds[kind] = true;
            *counts.entry(self.lanes.of(key.as_bytes())).or_default().entry(name).or_default() += 1;
        }
        if let (Some(lane), true) = (self.lanes.get(0), batch.expired > 0) {
            counts.entry(lane).or_default().insert("expired".to_owned(), batch.expired);
        }
        let parts = counts.into_iter().map(|(lane, counts)| {
            // Two parts per lane, so that parts are exercised too.
            let lines = lines(&counts);
            let (low, high) = lines.split_at(lines.len() / 2);
            let parts = [low, high].map(|lines| Bytes::from(lines.concat()));
            (lane, parts.into_iter().filter(|p| !p.is_empty()).collect())
        });
        Ok(Mapped { parts: parts.collect(), kinds })
    }

    fn watermarks(&self, state: &Marks) -> Watermarks {
        Watermarks::from_slice(&state.0)
    }

    fn raise(&self, state: &mut Marks, to: &Watermarks) {
        for (kind, mark) in state.0.iter_mut().enumerate() {
            *mark = (*mark).max(to.get(kind));
        }
    }

    fn inherit(&self, parents: Vec<Marks>) -> Marks {
        parents.into_iter().reduce(Marks::slower).unwrap_or_default()
    }

    fn save(&self, state: &Marks) -> Result<Vec<u8>, StageError> {
        Ok(state.0.map(|mark| mark.to_string()).join(" ").into_bytes())
    }

    fn load(&self, bytes: &Bytes) -> Result<Marks, StageError> {
        let text = String::from_utf8_lossy(bytes);
        let marks: Result<Vec<i64>, _> = text.split(' ').map(str::parse).collect();
        let marks = marks.map_err(|e| StageError::with("state", e))?;
        Ok(Marks(marks.try_into().map_err(|_| StageError::new("state"))?))
    }
}

/// Sums per lane; says once per kind and step what the step held, when the watermark has passed it.
pub(crate) struct Sum {
    lanes: BTreeMap<LaneId, Lane>,
    violations: Violations,
    /// A planted bug: time passes by this clock too.
    clock: Option<WallClock>,
    trips: Trips,
    broken: Broken,
}

/// Lanes whose reducer fails, whoever runs it: their shard stops.
pub(crate) type Broken = Arc<Mutex<BTreeSet<LaneId>>>;

#[derive(Default)]
struct Lane {
    counts: Counts,
    /// Last step told by kind; i64::MAX after the end.
    told: [i64; KINDS],
}

impl Sum {
    pub(crate) fn new(violations: Violations, clock: Option<WallClock>, trips: Trips, broken: Broken) -> Self {
        Self { lanes: BTreeMap::new(), violations, clock, trips, broken }
    }
}

/// What a step held: the counters of its kind and step, summed.
fn total(counts: &Counts, kind: usize, step: i64) -> u64 {
    let prefix = format!("c {kind} {step} ");
    counts.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix)).map(|(_, n)| n).sum()
}

impl Reducer for Sum {
    fn restore(&mut self, lane: LaneId, state: Option<&Bytes>) -> Result<(), StageError> {
        let mut restored = Lane { counts: Counts::new(), told: [i64::MIN; KINDS] };
        if let Some(bytes) = state {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let (told, counts) = text.split_once('\n').ok_or_else(|| StageError::new("lane state"))?;
            let told: Vec<i64> = told.split(' ').filter_map(|t| t.parse().ok()).collect();
            restored.told = told.try_into().map_err(|_| StageError::new("lane state"))?;
            restored.counts = parse_counts(counts);
        }
        self.lanes.insert(lane, restored);
        Ok(())
    }

    fn apply(&mut self, lane: LaneId, payload: &Bytes) -> Result<(), StageError> {
        self.trips.step();
        let state = self.lanes.entry(lane).or_default();
        for (name, n) in parse_counts(&String::from_utf8_lossy(payload)) {
            if let Some((kind, step)) = step_of(&name)
                && step <= state.told[kind]
            {
                let what = format!("lane {lane} was given {name} after it closed step {}", state.told[kind]);
                self.violations.note(what.clone());
                return Err(StageError::new(what));
            }
            *state.counts.entry(name).or_default() += n;
        }
        Ok(())
    }

    fn advance(&mut self, lane: LaneId, watermarks: &Watermarks) -> Result<Vec<Bytes>, StageError> {
        if self.broken.lock().unwrap().contains(&lane) {
            return Err(StageError::new(format!("lane {lane} is broken")));
        }
        let state = self.lanes.entry(lane).or_default();
        let mut told = Vec::new();
        for (kind, lateness_ms) in LATENESS_MS.into_iter().enumerate() {
            let by_clock = self.clock.as_ref().map_or(i64::MIN, |clock| clock.now_ms() - lateness_ms);
            let mark = watermarks.get(kind).max(by_clock);
            let closed = match mark {
                i64::MIN => continue,
                i64::MAX => i64::MAX,
                mark => mark.div_euclid(STEP_MS) - 1,
            };
            if closed <= state.told[kind] {
                continue;
            }
            let steps: BTreeSet<i64> = state
                .counts
                .keys()
                .filter_map(|name| step_of(name))
                .filter(|(k, step)| *k == kind && *step > state.told[kind] && *step <= closed)
                .map(|(_, step)| step)
                .collect();
            let steps: Vec<String> =
                steps.iter().map(|step| format!("{step}:{}", total(&state.counts, kind, *step))).collect();
            told.push(Bytes::from(format!("{lane} {kind} {closed} {}", steps.join(","))));
            state.told[kind] = closed;
        }
        Ok(told)
    }

    fn incomplete(&mut self, lane: LaneId, _why: &Loss) {
        *self.lanes.entry(lane).or_default().counts.entry("incomplete".to_owned()).or_default() += 1;
    }

    fn save(&mut self, lane: LaneId) -> Result<Vec<u8>, StageError> {
        let state = self.lanes.entry(lane).or_default();
        let told = state.told.map(|t| t.to_string()).join(" ");
        Ok(format!("{told}\n{}", lines(&state.counts).concat()).into_bytes())
    }
}

/// Kind and step of a counter of records.
pub(crate) fn step_of(name: &str) -> Option<(usize, i64)> {
    let mut words = name.strip_prefix("c ")?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}
