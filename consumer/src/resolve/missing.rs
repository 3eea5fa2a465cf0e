//! What a stopped exchange shard would go on without, found before anyone decides.
//!
//! Reads from the shard's checkpoint with the committed marks, by the same rules as its owner, but accepts and notes
//! every loss instead of stopping. Nothing is written. Read next: [`super::accept_gaps`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::commit::{ChunkError, Chunks, Part};
use crate::exchange::{FeedKinds, LaneId, Lanes, Loss, Watermarks};
use crate::inspect::{self, InspectError};
use crate::lease::{Checkpoint, LeaseRow};
use crate::log::{Log, LogError, StreamId};
use crate::run::{LaneStage, Tables, is_marks};
use crate::shard::{Position, ShardId};
use crate::stage::{Reducer, ShardContext, ShardLoss, Stage, StageError};
use crate::table::Table;

/// Pause between two reads: the shard's readers share five a second.
const PAUSE: Duration = Duration::from_millis(300);

/// The losses between a shard's checkpoint and its tip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Each loss with its lane, in the order in which the owner would meet them.
    pub losses: Vec<(LaneId, Loss)>,
    /// Records looked at.
    pub records: u64,
    /// Whether the tip was reached; otherwise there may be more.
    pub to_tip: bool,
}

/// Why it cannot be said what is missing.
#[derive(Debug, thiserror::Error)]
pub enum MissingError {
    /// The shard has no lease row.
    #[error("no lease row for shard {0}")]
    NoRow(ShardId),
    /// Rows or state cannot be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The stream cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Marks or records cannot be understood.
    #[error(transparent)]
    Stage(#[from] StageError),
}

impl From<ChunkError> for MissingError {
    fn from(error: ChunkError) -> Self {
        Self::Inspect(InspectError::Chunk(error))
    }
}

/// Looks through at most `limit` records of an exchange shard behind its checkpoint.
///
/// # Errors
/// [`MissingError`].
pub async fn missing(
    (table, log): (&Arc<dyn Table>, &dyn Log),
    tables: &Tables,
    stream: &StreamId,
    shard: &ShardId,
    (lanes, kinds): (Lanes, FeedKinds),
    limit: u64,
) -> Result<Missing, MissingError> {
    let rows = inspect::rows(&**table, tables, &stream.name).await?;
    let row = rows.iter().find(|row| row.shard == *shard).ok_or_else(|| MissingError::NoRow(shard.clone()))?;
    let context = ShardContext { stream: stream.clone(), shard: shard.clone(), range: row.range };
    let losses = Losses::default();
    let mut stage = LaneStage::new(losses.clone(), &context, lanes, kinds);
    let chunks = Chunks::new(Arc::clone(table), tables.state(), stream.clone());
    let mut marks = Vec::new();
    for part in marks_of(table, tables, stream, row, &rows).await? {
        marks.push((part.key.clone(), chunks.get(&part).await?));
    }
    stage.restore(marks)?;
    stage.lost(ShardLoss::Accepted { until_ms: i64::MAX });
    let (records, to_tip) = read_on(log, stream, row, &mut stage, limit).await?;
    let losses = std::mem::take(&mut *losses.0.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Missing { losses, records, to_tip })
}

/// The marks that the shard's owner would start with: its own, or its parents'.
async fn marks_of(
    table: &Arc<dyn Table>,
    tables: &Tables,
    stream: &StreamId,
    row: &LeaseRow,
    rows: &[LeaseRow],
) -> Result<Vec<Part>, InspectError> {
    let sources: Vec<&LeaseRow> = match row.manifest {
        Some(_) => vec![row],
        None => rows.iter().filter(|other| row.parents.contains(&other.shard)).collect(),
    };
    let mut parts = Vec::new();
    for source in sources {
        let all = inspect::row_parts(table, tables, stream, source).await?;
        parts.extend(all.into_iter().filter(|part| is_marks(&part.key)));
    }
    Ok(parts)
}

async fn read_on(
    log: &dyn Log,
    stream: &StreamId,
    row: &LeaseRow,
    stage: &mut impl Stage,
    limit: u64,
) -> Result<(u64, bool), MissingError> {
    // The exchange stream is always read from its oldest record.
    let mut position = match &row.checkpoint {
        Checkpoint::At(sequence) => Position::After(sequence.clone()),
        _ => Position::TrimHorizon,
    };
    let mut token = None;
    let mut records = 0;
    while records < limit {
        let place = match token.take() {
            Some(place) => place,
            None => log.seek(&stream.name, &row.shard, &position).await?,
        };
        let page = match log.read(&stream.name, &place).await {
            Ok(page) => page,
            Err(error) if error.is_retryable() || matches!(error, LogError::Expired) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        records += page.records.len() as u64;
        for record in &page.records {
            stage.process(record)?;
            position = Position::After(record.sequence.clone());
        }
        token = page.next;
        if token.is_none() || (page.records.is_empty() && page.behind_ms == 0) {
            return Ok((records, true));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok((records, false))
}

/// A reducer that only notes what its lanes lose.
#[derive(Debug, Clone, Default)]
struct Losses(Arc<Mutex<Vec<(LaneId, Loss)>>>);

impl Reducer for Losses {
    fn restore(&mut self, _: LaneId, _: Option<&Bytes>) -> Result<(), StageError> {
        Ok(())
    }

    fn apply(&mut self, _: LaneId, _: &Bytes) -> Result<(), StageError> {
        Ok(())
    }

    fn advance(&mut self, _: LaneId, _: &Watermarks) -> Result<Vec<Bytes>, StageError> {
        Ok(Vec::new())
    }

    fn incomplete(&mut self, lane: LaneId, why: &Loss) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((lane, why.clone()));
    }

    fn save(&mut self, _: LaneId) -> Result<Vec<u8>, StageError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{BatchPart, Envelope, Message, SourceId};
    use crate::lease::{attribute, new_row};
    use crate::log::Entry;
    use crate::log::memory::MemoryLog;
    use crate::table::memory::MemoryTable;
    use crate::table::{Condition, Value};

    fn batch(lane: LaneId, n: u64) -> Entry {
        let stream = StreamId { name: "input".into(), created_ms: 1 };
        let part = BatchPart {
            source: SourceId { stream, shard: ShardId::new("s-0") },
            epoch: 1,
            n,
            part: 0,
            parts: 1,
            watermarks: Watermarks::NONE,
            end: false,
            children: Vec::new(),
            expired: 0,
            diverged: false,
            trimmed: false,
            payload: Bytes::new(),
        };
        let data = Envelope::encode(&Message::Batch(part));
        Entry { partition_key: lane.index().to_string(), hash_key: None, data }
    }

    #[tokio::test(start_paused = true)]
    async fn every_gap_behind_the_checkpoint_is_named_and_nothing_is_written() {
        let (memory, log) = (Arc::new(MemoryTable::default()), MemoryLog::new(0));
        log.create("exchange", 1);
        let (lanes, kinds) = (Lanes::new(2).unwrap(), FeedKinds::new(1));
        let (a, b) = (lanes.get(0).unwrap(), lanes.get(1).unwrap());
        log.append("exchange", &[batch(a, 1), batch(b, 1), batch(a, 4), batch(b, 2), batch(b, 7)]).await.unwrap();
        let tables = Tables::new("job");
        let stream = log.identify("exchange").await.unwrap();
        let shard = log.shards("exchange").await.unwrap().remove(0);
        let row = new_row(&shard, &Checkpoint::TrimHorizon, 0).with(attribute::OWNER, Value::string("w"));
        memory.put(&tables.leases("exchange"), row.clone(), Condition::None).await.unwrap();
        let table: Arc<dyn Table> = memory.clone();
        let found = missing((&table, &log), &tables, &stream, &shard.id, (lanes, kinds), 1_000).await.unwrap();
        let told: Vec<String> = found.losses.iter().map(|(lane, loss)| format!("{lane}: {loss}")).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("after 1 and before 4") && told[1].contains("after 2 and before 7"), "{told:?}");
        assert_eq!((found.records, found.to_tip), (5, true));
        let after = table.get(&tables.leases("exchange"), shard.id.as_str()).await.unwrap().unwrap();
        assert_eq!(after, row);
    }
}
