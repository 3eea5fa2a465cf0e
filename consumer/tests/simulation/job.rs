//! A small job: counts words per key, event time = the time in the record. Records are `key time`.

use std::collections::BTreeMap;

use bytes::Bytes;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{LaneId, Lanes, Watermarks};
use flowshift_consumer::stage::{Batch, Mapped, Mapper, Reducer, StageError};

/// Counts per key of a batch, as `key=n` lines per lane.
pub(crate) struct Count {
    pub(crate) lanes: Lanes,
}

#[derive(Clone, Default)]
pub(crate) struct Mark(i64);

impl Mark {
    fn text(&self) -> String {
        self.0.to_string()
    }
}

impl Mapper for Count {
    type State = Option<Mark>;
    type Prepared = ();

    fn semantics(&self) -> u32 {
        1
    }

    fn prepare(&self, _snapshot: &Snapshot) -> Result<(), StageError> {
        Ok(())
    }

    fn map(&self, state: &mut Self::State, batch: &Batch<'_>, (): &()) -> Result<Mapped, StageError> {
        let mut counts: BTreeMap<LaneId, BTreeMap<String, u64>> = BTreeMap::new();
        for record in batch.records {
            let text = String::from_utf8_lossy(&record.data);
            let (key, time) = text.split_once(' ').ok_or_else(|| StageError::new("not ours"))?;
            let time: i64 = time.parse().map_err(|e| StageError::with("time", e))?;
            let mark = state.get_or_insert(Mark(i64::MIN));
            mark.0 = mark.0.max(time.min(record.arrived_ms) - 1_000);
            *counts.entry(self.lanes.of(key.as_bytes())).or_default().entry(key.to_owned()).or_default() += 1;
        }
        let parts = counts.into_iter().map(|(lane, counts)| {
            // Two parts per lane, so that parts are exercised too.
            let lines: Vec<String> = counts.iter().map(|(k, n)| format!("{k}={n}\n")).collect();
            let middle = lines.len() / 2;
            let part = |lines: &[String]| Bytes::from(lines.concat());
            let parts = [part(&lines[..middle]), part(&lines[middle..])];
            (lane, parts.into_iter().filter(|p| !p.is_empty()).collect())
        });
        Ok(Mapped { parts: parts.collect(), kinds: [!batch.records.is_empty(), false, false, false] })
    }

    fn watermarks(&self, state: &Self::State) -> Watermarks {
        Watermarks::from_slice(&[state.as_ref().map_or(i64::MIN, |m| m.0)])
    }

    fn raise(&self, state: &mut Self::State, to: &Watermarks) {
        let mark = state.get_or_insert(Mark(i64::MIN));
        mark.0 = mark.0.max(to.get(0));
    }

    fn inherit(&self, parents: Vec<Self::State>) -> Self::State {
        parents.into_iter().flatten().map(|m| m.0).min().map(Mark)
    }

    fn save(&self, state: &Self::State) -> Result<Vec<u8>, StageError> {
        Ok(state.as_ref().map(Mark::text).unwrap_or_default().into_bytes())
    }

    fn load(&self, bytes: &Bytes) -> Result<Self::State, StageError> {
        let text = String::from_utf8_lossy(bytes);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(|n| Some(Mark(n))).map_err(|e| StageError::with("state", e))
    }
}

/// Sums per lane and key; says `lane step total` for every whole 10 s of event time.
#[derive(Default)]
pub(crate) struct Sum {
    lanes: BTreeMap<LaneId, Lane>,
}

#[derive(Default)]
struct Lane {
    counts: BTreeMap<String, u64>,
    /// Last step told; i64::MAX after the end.
    told: Option<i64>,
}

pub(crate) fn parse_counts(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.filter_map(|(k, n)| Some((k.to_owned(), n.parse().ok()?))).collect()
}

impl Reducer for Sum {
    fn restore(&mut self, lane: LaneId, state: Option<&Bytes>) -> Result<(), StageError> {
        let mut restored = Lane::default();
        if let Some(bytes) = state {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let (told, counts) = text.split_once('\n').ok_or_else(|| StageError::new("lane state"))?;
            restored = Lane { counts: parse_counts(counts), told: told.parse().ok() };
        }
        self.lanes.insert(lane, restored);
        Ok(())
    }

    fn apply(&mut self, lane: LaneId, payload: &Bytes) -> Result<(), StageError> {
        let lane = self.lanes.entry(lane).or_default();
        for (key, n) in parse_counts(&String::from_utf8_lossy(payload)) {
            *lane.counts.entry(key).or_default() += n;
        }
        Ok(())
    }

    fn advance(&mut self, lane: LaneId, watermarks: &Watermarks) -> Result<Vec<Bytes>, StageError> {
        let mark = watermarks.get(0);
        if mark == i64::MIN {
            return Ok(Vec::new());
        }
        let step = if mark == i64::MAX { i64::MAX } else { mark.div_euclid(10_000) };
        let state = self.lanes.entry(lane).or_default();
        if state.told.is_some_and(|told| step <= told) {
            return Ok(Vec::new());
        }
        state.told = Some(step);
        let total: u64 = state.counts.values().sum();
        Ok(vec![Bytes::from(format!("{lane} {step} {total}"))])
    }

    fn save(&mut self, lane: LaneId) -> Result<Vec<u8>, StageError> {
        let state = self.lanes.entry(lane).or_default();
        let told = state.told.map(|t| t.to_string()).unwrap_or_default();
        let counts: String = state.counts.iter().map(|(k, n)| format!("{k}={n}\n")).collect();
        Ok(format!("{told}\n{counts}").into_bytes())
    }
}
