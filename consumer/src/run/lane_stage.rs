//! Wraps a [`Reducer`] in the marks that make it exact: the stage of an exchange shard.
//!
//! One part of the state holds the marks of all the shard's lanes (they change with every heartbeat), and one part per
//! lane the reducer's state (which changes only with data). A child shard finds the marks of its lanes in its parents'
//! marks parts and the lanes' states under their own keys.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;

use super::retention::Retention;
use crate::commit::PageName;
use crate::exchange::{
    Applied, BatchPart, Control, Envelope, FeedKinds, LaneId, LaneState, Lanes, Loss, Message, Watermarks,
};
use crate::log::{Entry, Record};
use crate::metrics::EngineMetrics;
use crate::planted::planted;
use crate::stage::{PageChange, Reducer, ShardContext, ShardLoss, Stage, StageError, StatePart};

const MARKS: &str = "marks@";

/// Whether a part holds the marks of a shard's lanes, which its children take over under their own keys.
pub(crate) fn is_marks(key: &str) -> bool {
    key.starts_with(MARKS)
}

/// Key of a lane's state part.
fn lane_key(lane: LaneId) -> String {
    format!("lane-{:04}", lane.index())
}

/// Key of the part that holds the marks of a shard's lanes.
fn marks_key(context: &ShardContext) -> String {
    format!("{MARKS}{}", context.shard)
}

/// Keys of all parts that an exchange shard writes, for the epochs.
pub(super) fn state_keys(context: &ShardContext, lanes: Lanes) -> BTreeSet<String> {
    lanes.within(context.range).into_iter().map(lane_key).chain([marks_key(context)]).collect()
}

#[derive(Clone, PartialEq, prost::Message)]
struct Marks {
    #[prost(message, repeated, tag = "1")]
    lanes: Vec<LaneMarks>,
    /// Records of this shard's lineage that were no envelopes.
    #[prost(uint64, tag = "2")]
    undecodable: u64,
    /// Number of lanes of the job; 0 in marks of older versions.
    #[prost(uint32, tag = "3")]
    count: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LaneMarks {
    #[prost(uint32, tag = "1")]
    lane: u32,
    #[prost(bytes = "bytes", tag = "2")]
    state: Bytes,
}

/// A reducer with its lanes' marks.
#[derive(Debug)]
pub struct LaneStage<R> {
    reducer: R,
    lanes: Lanes,
    kinds: FeedKinds,
    marks_key: String,
    states: BTreeMap<LaneId, LaneState>,
    /// Lanes whose reducer's state changed since the last save.
    dirty: BTreeSet<LaneId>,
    /// Whether marks changed since the last save.
    moved: bool,
    /// The lane whose watermarks moved with the last record, until it is told.
    due: Option<(LaneId, Watermarks)>,
    outputs: BTreeMap<LaneId, Vec<Bytes>>,
    undecodable: u64,
    /// Outputs wait for a commit.
    hurry: bool,
    /// Says how long the marks of a source are kept after its END; none: for ever.
    retention: Option<Retention>,
    /// Where losses and watermarks are counted, with the names of stream and shard.
    metrics: Option<(EngineMetrics, String, String)>,
}

impl<R: Reducer> LaneStage<R> {
    /// The stage of one exchange shard.
    pub fn new(reducer: R, context: &ShardContext, lanes: Lanes, kinds: FeedKinds) -> Self {
        let own = lanes.within(context.range);
        Self {
            reducer,
            lanes,
            kinds,
            marks_key: marks_key(context),
            states: own.into_iter().map(|lane| (lane, LaneState::new(kinds))).collect(),
            dirty: BTreeSet::new(),
            moved: false,
            due: None,
            outputs: BTreeMap::new(),
            undecodable: 0,
            hurry: false,
            retention: None,
            metrics: None,
        }
    }

    /// Forgets ended sources once no copy of their batches can be in the exchange stream.
    #[must_use]
    pub(crate) fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Counts losses and shows the lanes' watermark.
    #[must_use]
    pub fn with_metrics(mut self, metrics: EngineMetrics, context: &ShardContext) -> Self {
        self.metrics = Some((metrics, context.stream.name.clone(), context.shard.to_string()));
        self
    }

    fn restore_marks(&mut self, bytes: &Bytes) -> Result<(), StageError> {
        let marks = Marks::decode(bytes.clone()).map_err(|e| StageError::with("marks of the lanes", e))?;
        let ours = u32::from(self.lanes.count());
        if marks.count != 0 && marks.count != ours {
            return Err(StageError::new(format!(
                "the lanes' state is of a job of {stored} lanes, this one has {ours}: the number never changes in a job's \
                 life, because every key would go to another lane; set it back to {stored}, or begin a job under a new name",
                stored = marks.count
            )));
        }
        self.undecodable = self.undecodable.saturating_add(marks.undecodable);
        for entry in marks.lanes {
            let lane = u16::try_from(entry.lane).ok().and_then(|index| self.lanes.get(index));
            let state = LaneState::decode(self.kinds, &entry.state)
                .map_err(|e| StageError::with(format!("marks of lane {}", entry.lane), e))?;
            if let Some(slot) = lane.and_then(|lane| self.states.get_mut(&lane)) {
                *slot = state;
            }
        }
        Ok(())
    }

    /// The lane of a record: its partition key, which the engine writes.
    fn lane(&self, record: &Record) -> Option<LaneId> {
        let lane = record.partition_key.parse().ok().and_then(|index| self.lanes.get(index))?;
        self.states.contains_key(&lane).then_some(lane)
    }

    fn apply_batch(&mut self, lane: LaneId, part: &BatchPart, arrived_ms: i64) -> Result<(), StageError> {
        let Some(state) = self.states.get_mut(&lane) else { return Ok(()) };
        let applied = state.apply_part(part, arrived_ms).map_err(|e| {
            if let Some((metrics, stream, _)) = &self.metrics {
                metrics.gap_stopped(stream);
            }
            StageError::with(format!("lane {lane}"), e)
        })?;
        if applied == Applied::Repeat && !planted("planted::skip_the_marks") {
            return Ok(());
        }
        let watermarks = state.watermarks();
        tracing::trace!(%lane, source = %part.source, epoch = part.epoch, n = part.n, part = part.part, part.end, said = ?part.watermarks, reached = ?watermarks, "part");
        self.moved = true;
        match &applied {
            Applied::NewAfter(loss) => self.incomplete(lane, loss, loss.name()),
            Applied::Closed(loss) => self.incomplete(lane, loss, "partial"),
            Applied::New | Applied::Repeat => {}
        }
        if !part.payload.is_empty() && !matches!(applied, Applied::Closed(_)) {
            self.reducer.apply(lane, &part.payload)?;
            self.dirty.insert(lane);
        }
        self.due = Some((lane, watermarks));
        Ok(())
    }

    fn incomplete(&mut self, lane: LaneId, loss: &Loss, reason: &'static str) {
        tracing::error!(%lane, %loss, "records are lost: the lane's windows are incomplete");
        if let Some((metrics, stream, _)) = &self.metrics {
            metrics.lane_incomplete(stream, reason);
        }
        self.reducer.incomplete(lane, loss);
        self.dirty.insert(lane);
    }

    fn apply_control(&mut self, lane: LaneId, control: &Control, arrived_ms: i64) -> Result<(), StageError> {
        let kept = self.retention.as_ref().map(|retention| retention.tombstone().as_millis());
        let keep_ms = kept.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(i64::MAX);
        let Some(state) = self.states.get_mut(&lane) else { return Ok(()) };
        let Some(losses) = state.apply_control(control, arrived_ms, keep_ms) else { return Ok(()) };
        let watermarks = state.watermarks();
        tracing::trace!(%lane, ?control, reached = ?watermarks, "control");
        self.moved = true;
        losses.iter().for_each(|loss| self.incomplete(lane, loss, loss.name()));
        self.due = Some((lane, watermarks));
        Ok(())
    }

    /// The advance that is due; the pages it needs are delivered by now.
    fn advance(&mut self) -> Result<(), StageError> {
        let Some((lane, watermarks)) = self.due.take() else { return Ok(()) };
        let outputs = self.reducer.advance(lane, &watermarks)?;
        if !outputs.is_empty() {
            self.dirty.insert(lane);
            self.hurry = true;
            self.outputs.entry(lane).or_default().extend(outputs);
        }
        Ok(())
    }
}

impl<R: Reducer> Stage for LaneStage<R> {
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
        let mut bodies = BTreeMap::new();
        for (key, bytes) in parts {
            if is_marks(&key) {
                // A parent's marks live on only under this shard's own key.
                self.moved |= key != self.marks_key;
                self.restore_marks(&bytes)?;
            } else {
                bodies.insert(key, bytes);
            }
        }
        for lane in self.states.keys().copied().collect::<Vec<_>>() {
            self.reducer.restore(lane, bodies.get(&lane_key(lane)))?;
        }
        Ok(())
    }

    fn process(&mut self, record: &Record) -> Result<(), StageError> {
        self.advance()?;
        let message = Envelope::decode(&record.data);
        match (self.lane(record), message) {
            (Some(lane), Ok(Message::Batch(part))) => self.apply_batch(lane, &part, record.arrived_ms),
            (Some(lane), Ok(Message::Control(control))) => self.apply_control(lane, &control, record.arrived_ms),
            (lane, message) => {
                // Not ours: counted and passed. Were it a damaged batch, its missing number would stop the lane.
                self.undecodable += 1;
                let error = message.err().map(|e| e.to_string());
                tracing::warn!(sequence = %record.sequence, ?lane, error, "record in the exchange stream is not ours");
                Ok(())
            }
        }
    }

    fn wanted(&mut self) -> Vec<(String, PageName)> {
        let Some((lane, watermarks)) = &self.due else { return Vec::new() };
        let wanted = self.reducer.wanted(*lane, watermarks);
        wanted.into_iter().map(|name| (lane_key(*lane), name)).collect()
    }

    fn page(&mut self, part: &str, name: &PageName, page: Option<Bytes>) -> Result<(), StageError> {
        match lane_of_key(part).and_then(|index| self.lanes.get(index)) {
            Some(lane) => self.reducer.page(lane, name, page),
            None => Err(StageError::new(format!("page {name} of {part}, which is no lane"))),
        }
    }

    fn proceed(&mut self) -> Result<(), StageError> {
        self.advance()
    }

    fn pages(&mut self) -> Result<Vec<PageChange>, StageError> {
        let mut changes = Vec::new();
        for lane in self.states.keys() {
            for (name, bytes) in self.reducer.pages(*lane)? {
                changes.push(PageChange { part: lane_key(*lane), name, bytes });
                // Pages and state are of one commit.
                self.dirty.insert(*lane);
            }
        }
        Ok(changes)
    }

    fn outputs(&mut self) -> Vec<Vec<Entry>> {
        let outputs = std::mem::take(&mut self.outputs);
        let longest = outputs.values().map(Vec::len).max().unwrap_or_default();
        // One record per lane and wave: a wave is acknowledged before the next, so a lane's records stay in order.
        (0..longest)
            .map(|index| {
                let wave = outputs.iter().filter_map(|(lane, records)| Some((lane, records.get(index)?)));
                wave.map(|(lane, data)| Entry {
                    partition_key: lane.index().to_string(),
                    hash_key: None,
                    data: data.clone(),
                })
                .collect()
            })
            .collect()
    }

    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        let mut parts = Vec::new();
        for lane in std::mem::take(&mut self.dirty) {
            parts.push((lane_key(lane), Bytes::from(self.reducer.save(lane)?)));
        }
        if std::mem::take(&mut self.moved) || !parts.is_empty() {
            let lanes = self
                .states
                .iter()
                .map(|(lane, state)| LaneMarks { lane: u32::from(lane.index()), state: Bytes::from(state.encode()) });
            let count = u32::from(self.lanes.count());
            let marks = Marks { lanes: lanes.collect(), undecodable: self.undecodable, count };
            parts.push((self.marks_key.clone(), Bytes::from(marks.encode_to_vec())));
        }
        Ok(parts)
    }

    fn keeps(&self, key: &str) -> bool {
        key == self.marks_key || self.states.keys().any(|lane| lane_key(*lane) == key)
    }

    fn restores(&self, key: &str) -> bool {
        is_marks(key) || self.keeps(key)
    }

    fn lost(&mut self, loss: ShardLoss) {
        self.moved = true;
        for state in self.states.values_mut() {
            match loss {
                ShardLoss::Trimmed | ShardLoss::Discarded => state.forgive(),
                ShardLoss::Accepted { until_ms } => state.accept_until(until_ms),
            }
        }
        if loss == ShardLoss::Discarded {
            for lane in self.states.keys().copied().collect::<Vec<_>>() {
                self.incomplete(lane, &Loss::Discarded, Loss::Discarded.name());
            }
            // A crash before the first commit would find the old state again and discard it again: soon is better.
            self.hurry = true;
        }
    }

    fn reached(&self) -> Option<Watermarks> {
        self.states.values().map(LaneState::watermarks).reduce(|a, b| a.min(&b))
    }

    fn urgent(&self) -> bool {
        self.hurry
    }

    fn committed(&mut self) {
        self.hurry = false;
        let slowest = self.states.values().map(|state| state.watermarks().get(0)).min();
        if let (Some((metrics, stream, shard)), Some(mark)) = (&self.metrics, slowest) {
            metrics.lane_watermark(stream, shard, mark);
        }
    }

    fn finished(&self) -> bool {
        self.outputs.is_empty() && self.states.values().all(LaneState::ended)
    }
}

/// For readers of committed state: the lane whose reducer's state a part holds. None: it holds marks, an index of
/// pages, or nothing of a lane.
pub fn lane_of_key(key: &str) -> Option<u16> {
    key.strip_prefix("lane-").and_then(|index| index.parse().ok())
}
