//! A job of flowshift's shape: many pairs, about 1 KB of window state each, small state per input shard.
//!
//! A record is a list of pair numbers (u32, little endian). Reading a pair changes one of its ten panes of 100 bytes,
//! of which 40 are as good as random: the state packs about 2.5 times, as the reference assumes of sparse histograms.

use std::collections::BTreeMap;

use bytes::Bytes;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{LaneId, Lanes, Watermarks};
use flowshift_consumer::log::{Entry, Record};
use flowshift_consumer::shard::ShardId;
use flowshift_consumer::stage::{Batch, Mapped, Mapper, Reducer, ShardContext, Stage, StageError, StatePart};

const PANES: usize = 10;
const PANE_BYTES: usize = 100;
const RANDOM_BYTES: usize = 40;
/// Event time between two evidence records of a lane.
const STEP_MS: i64 = 60_000;
/// Beside its watermark a shard remembers about this much (hashes of reports seen, say).
const SHARD_BYTES: usize = 256;

/// The numbers of a list of pairs.
pub(crate) fn pairs(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).filter_map(|chunk| chunk.try_into().ok()).map(u32::from_le_bytes)
}

/// Parts each batch by lane.
pub(crate) struct Parting {
    pub(crate) lanes: Lanes,
}

impl Mapper for Parting {
    type State = i64;
    type Prepared = ();

    fn semantics(&self) -> u32 {
        1
    }

    fn prepare(&self, _snapshot: &Snapshot) -> Result<(), StageError> {
        Ok(())
    }

    fn map(&self, state: &mut i64, batch: &Batch<'_>, (): &()) -> Result<Mapped, StageError> {
        let mut parts: BTreeMap<LaneId, Vec<u8>> = BTreeMap::new();
        for record in batch.records {
            *state = (*state).max(record.arrived_ms - 1_000);
            for pair in pairs(&record.data) {
                let lane = self.lanes.get(u16::try_from(pair % u32::from(self.lanes.count())).unwrap_or_default());
                if let Some(lane) = lane {
                    parts.entry(lane).or_default().extend(pair.to_le_bytes());
                }
            }
        }
        let parts = parts.into_iter().map(|(lane, part)| (lane, vec![Bytes::from(part)])).collect();
        Ok(Mapped { parts, kinds: [!batch.records.is_empty(), false, false, false] })
    }

    fn watermarks(&self, state: &i64) -> Watermarks {
        Watermarks::from_slice(&[if *state == 0 { i64::MIN } else { *state }])
    }

    fn raise(&self, state: &mut i64, to: &Watermarks) {
        *state = (*state).max(to.get(0));
    }

    fn inherit(&self, parents: Vec<i64>) -> i64 {
        parents.into_iter().min().unwrap_or_default()
    }

    fn save(&self, state: &i64) -> Result<Vec<u8>, StageError> {
        let mut bytes = state.to_le_bytes().to_vec();
        fill(&mut bytes, SHARD_BYTES, state.unsigned_abs());
        Ok(bytes)
    }

    fn load(&self, bytes: &Bytes) -> Result<i64, StageError> {
        let number = bytes.get(..8).and_then(|b| b.try_into().ok());
        number.map(i64::from_le_bytes).ok_or_else(|| StageError::new("state without a watermark"))
    }
}

/// Appends `count` bytes that look random and depend on the seed alone.
fn fill(bytes: &mut Vec<u8>, count: usize, seed: u64) {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..count.div_ceil(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend(x.to_le_bytes());
    }
    bytes.truncate(bytes.len() - (count.div_ceil(8) * 8 - count));
}

#[derive(Default)]
struct Lane {
    pairs: BTreeMap<u32, Vec<u8>>,
    touched: u64,
    step: i64,
}

/// Windows of the pairs of a shard's lanes.
#[derive(Default)]
pub(crate) struct Windows {
    lanes: BTreeMap<LaneId, Lane>,
}

impl Reducer for Windows {
    fn restore(&mut self, lane: LaneId, state: Option<&Bytes>) -> Result<(), StageError> {
        let mut restored = Lane::default();
        for row in state.map(Bytes::as_ref).unwrap_or_default().chunks_exact(4 + PANES * PANE_BYTES) {
            let (pair, window) = row.split_at(4);
            restored.pairs.extend(pairs(pair).map(|pair| (pair, window.to_vec())));
        }
        self.lanes.insert(lane, restored);
        Ok(())
    }

    fn apply(&mut self, lane: LaneId, payload: &Bytes) -> Result<(), StageError> {
        let lane = self.lanes.entry(lane).or_default();
        for pair in pairs(payload) {
            lane.touched += 1;
            let window = lane.pairs.entry(pair).or_insert_with(|| first_window(pair));
            let pane = usize::try_from(lane.touched).unwrap_or_default() % PANES * PANE_BYTES;
            let mut fresh = Vec::with_capacity(PANE_BYTES);
            fill(&mut fresh, RANDOM_BYTES, u64::from(pair) << 32 | lane.touched);
            window[pane..pane + RANDOM_BYTES].copy_from_slice(&fresh);
        }
        Ok(())
    }

    fn advance(&mut self, lane: LaneId, watermarks: &Watermarks) -> Result<Vec<Bytes>, StageError> {
        let mark = watermarks.get(0);
        let state = self.lanes.entry(lane).or_default();
        if mark == i64::MIN || mark.div_euclid(STEP_MS) <= state.step {
            return Ok(Vec::new());
        }
        let first = state.step == 0;
        state.step = mark.div_euclid(STEP_MS);
        let evidence = format!("{lane} {} {}", state.step, state.pairs.len());
        Ok(if first { Vec::new() } else { vec![evidence.into_bytes().into()] })
    }

    fn save(&mut self, lane: LaneId) -> Result<Vec<u8>, StageError> {
        let Some(lane) = self.lanes.get(&lane) else { return Ok(Vec::new()) };
        let mut bytes = Vec::with_capacity(lane.pairs.len() * (4 + PANES * PANE_BYTES));
        for (pair, window) in &lane.pairs {
            bytes.extend(pair.to_le_bytes());
            bytes.extend(window);
        }
        Ok(bytes)
    }
}

/// Ten full panes: pairs are measured in their steady state.
fn first_window(pair: u32) -> Vec<u8> {
    let mut window = Vec::with_capacity(PANES * PANE_BYTES);
    for pane in 0..PANES {
        fill(&mut window, RANDOM_BYTES, u64::from(pair) << 8 | pane as u64);
        window.resize((pane + 1) * PANE_BYTES, 0);
    }
    window
}

/// The single owner behind the lanes: counts what they say.
pub(crate) struct Evidence {
    shard: String,
    records: u64,
}

impl Evidence {
    pub(crate) fn new(context: &ShardContext) -> Self {
        Self { shard: context.shard.to_string(), records: 0 }
    }
}

impl Stage for Evidence {
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
        for (_, bytes) in parts {
            self.records += bytes.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        }
        Ok(())
    }

    fn process(&mut self, _record: &Record) -> Result<(), StageError> {
        self.records += 1;
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        let mut bytes = self.records.to_le_bytes().to_vec();
        fill(&mut bytes, 4096, self.records);
        Ok(vec![(self.shard.clone(), bytes.into())])
    }
}

/// An input record that touches these pairs.
pub(crate) fn record(shard: &ShardId, hash_key: u128, pairs: &[u32]) -> Entry {
    let data: Vec<u8> = pairs.iter().flat_map(|pair| pair.to_le_bytes()).collect();
    Entry { partition_key: shard.as_str().to_owned(), hash_key: Some(hash_key), data: data.into() }
}
