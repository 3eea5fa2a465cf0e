//! Drives a [`Stage`]: state and checkpoint of one shard, committed together.
//!
//! Order of a commit: outputs are put and acknowledged, chunks are put, then one write of the row moves checkpoint and
//! manifest. Nothing after a failed step happens, and everything since the last commit happens again.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fetch::{self, Fetched};
use super::task::ShardTask;
use super::{DriveError, Exit, crash_point};
use crate::commit::{Fence, Manifest, Part};
use crate::lease::{Checkpoint, LeaseRow, attribute};
use crate::log::put_all;
use crate::resolve::{Decision, Resolution};
use crate::stage::{ShardLoss, Stage, StatePart};
use crate::table::{Condition, Update, Value};

const IDLE: Duration = Duration::from_millis(50);
/// Chunks in flight at once.
const PUTS: usize = 8;

/// Runs a stage until its shard or the worker's time ends.
pub(crate) async fn drive(task: &ShardTask, stage: &mut dyn Stage, output: Option<&str>) -> Result<Exit, DriveError> {
    let mut run = StageRun::start(task, stage, output).await?;
    if run.shard_ended {
        return Ok(Exit::ShardEnd);
    }
    let reading = CancellationToken::new();
    let _stop_reading = reading.clone().drop_guard();
    let mut pages = fetch::spawn(
        Arc::clone(&task.log),
        task.stream().to_owned(),
        task.context.shard.clone(),
        run.start.clone(),
        task.timing.poll,
        reading,
    );
    loop {
        if run.due() {
            run.commit(false).await?;
        }
        if run.at_end && run.stage.finished() {
            run.commit(false).await?;
            if run.stage.finished() {
                return Ok(Exit::Finished);
            }
        }
        tokio::select! {
            biased;
            () = task.lease.lost().cancelled() => return Ok(Exit::Lost),
            () = task.leave.cancelled() => {
                run.commit(false).await?;
                task.lease.release().await?;
                return Ok(Exit::Left);
            }
            page = pages.recv() => match page {
                Some(Fetched::Page { records, behind_ms, asked }) => {
                    run.at_end = records.is_empty() && behind_ms == 0 && task.input_ended_before(asked);
                    task.metrics.read(task.stream(), task.lease.key(), &records, behind_ms);
                    for record in records {
                        run.stage.process(&record)?;
                        run.checkpoint = Checkpoint::At(record.sequence);
                        run.dirty = true;
                    }
                    run.stage.idle()?;
                    if behind_ms == 0 && !run.dirty {
                        task.metrics.progressed(task.stream(), task.lease.key());
                    }
                }
                Some(Fetched::ShardEnd) => {
                    run.commit(true).await?;
                    return Ok(Exit::ShardEnd);
                }
                None => return Ok(Exit::Lost),
            },
            () = tokio::time::sleep(IDLE) => run.stage.idle()?,
        }
    }
}

struct StageRun<'a> {
    task: &'a ShardTask,
    stage: &'a mut dyn Stage,
    output: Option<&'a str>,
    start: crate::shard::Position,
    shard_ended: bool,
    fence: Fence,
    /// Committed parts, which name the live slots.
    parts: Vec<Part>,
    checkpoint: Checkpoint,
    committed: Instant,
    dirty: bool,
    /// Whether the input is over and read to its tip.
    at_end: bool,
    /// An operator's decision that the next commit rests on.
    resolution: Option<Resolution>,
}

impl<'a> StageRun<'a> {
    async fn start(task: &'a ShardTask, stage: &'a mut dyn Stage, output: Option<&'a str>) -> Result<Self, DriveError> {
        let row = task.lease.row().await?;
        let (parts, inherited) = match &row.manifest {
            Some(manifest) => {
                check_checkpoint(manifest, &row)?;
                (manifest.parts.clone(), false)
            }
            None => (task.parents_parts(&row).await?, true),
        };
        let wanted: Vec<Part> = parts.iter().filter(|p| stage.restores(&p.key)).cloned().collect();
        let state = load_parts(task, &wanted).await?;
        stage.restore(state)?;
        let resolution = row.pending_resolution();
        if let Some(resolution) = resolution {
            tracing::warn!(stream = task.stream(), shard = %row.shard, %resolution, "going on as an operator decided");
        }
        if let Some(Decision::AcceptGaps { until_ms }) = resolution.map(|r| r.decision) {
            stage.lost(ShardLoss::Accepted { until_ms });
        }
        let kept: Vec<Part> = parts.into_iter().filter(|p| stage.keeps(&p.key)).collect();
        let fence = claim_epoch(task, &row, &kept).await?;
        Ok(Self {
            task,
            stage,
            output,
            start: fetch::start_position(&row.checkpoint, row.created_ms),
            shard_ended: row.checkpoint == Checkpoint::ShardEnd,
            fence,
            dirty: resolution.is_some() || inherited && !kept.is_empty(),
            resolution,
            parts: kept,
            checkpoint: row.checkpoint,
            committed: Instant::now(),
            at_end: false,
        })
    }

    fn due(&self) -> bool {
        self.stage.urgent() || self.dirty && self.committed.elapsed() >= self.task.timing.commit
    }

    async fn commit(&mut self, shard_end: bool) -> Result<(), DriveError> {
        let task = self.task;
        let stop = task.lease.lost();
        if let Some(stream) = self.output {
            for wave in self.stage.outputs() {
                put_all(&*task.log, stream, wave, stop, |_| {}).await?;
            }
            crash_point!("stage::after_outputs");
        }
        let saved = self.stage.save()?;
        self.put_parts(saved).await?;
        crash_point!("stage::after_chunks");
        let checkpoint = if shard_end { Checkpoint::ShardEnd } else { self.checkpoint.clone() };
        let mut manifest = Manifest::new(checkpoint.to_string(), self.parts.clone());
        manifest.parts.retain(|p| self.stage.keeps(&p.key));
        let mut update = Update::new()
            .set(attribute::CHECKPOINT, Value::string(checkpoint.to_string()))
            .set(attribute::SUB_SEQUENCE, Value::number(0))
            .set(attribute::MANIFEST, Value::B(manifest.encode_bytes()))
            .set(attribute::SWITCHES, Value::number(0));
        if shard_end {
            update = task.with_children(update).await?;
        }
        if let Some(resolution) = self.resolution {
            update = update.set(attribute::RESOLVED, Value::number(resolution.number));
        }
        task.lease.write(update, Condition::None).await?;
        crash_point!("stage::after_commit");
        self.parts = manifest.parts;
        self.committed = Instant::now();
        self.dirty = false;
        task.metrics.committed(task.stream(), task.lease.key());
        self.resolution = None;
        self.stage.committed();
        Ok(())
    }

    /// Writes the saved parts under their next generations and notes them.
    async fn put_parts(&mut self, saved: Vec<StatePart>) -> Result<(), DriveError> {
        let (task, fence) = (self.task, self.fence);
        let jobs: Vec<(String, u64, bytes::Bytes)> = saved
            .into_iter()
            .map(|(key, bytes)| {
                let last = self.parts.iter().find(|p| p.key == key).map_or(0, |p| p.generation);
                (key, last + 1, bytes)
            })
            .collect();
        let puts = futures::stream::iter(jobs).map(|(key, generation, bytes)| async move {
            task.chunks.put(&key, generation, fence, &bytes, task.lease.lost()).await
        });
        let written: Vec<Result<Part, _>> = puts.buffered(PUTS).collect().await;
        for part in written {
            let part = part?;
            task.metrics.state_bytes(task.stream(), part.length);
            match self.parts.iter_mut().find(|p| p.key == part.key) {
                Some(slot) => *slot = part,
                None => self.parts.push(part),
            }
        }
        Ok(())
    }
}

/// State and checkpoint must be of one commit; anything else is another program's doing and never passed over.
pub(crate) fn check_checkpoint(manifest: &Manifest, row: &LeaseRow) -> Result<(), DriveError> {
    let row_checkpoint = row.checkpoint.to_string();
    if manifest.checkpoint == row_checkpoint {
        return Ok(());
    }
    Err(DriveError::StateMismatch { state: manifest.checkpoint.clone(), row: row_checkpoint })
}

/// Reads and proves committed parts.
pub(crate) async fn load_parts(task: &ShardTask, parts: &[Part]) -> Result<Vec<StatePart>, DriveError> {
    let reads = futures::stream::iter(parts.to_vec())
        .map(|part| async move { task.chunks.get(&part).await.map(|bytes| (part.key, bytes)) });
    let read: Vec<Result<StatePart, _>> = reads.buffered(PUTS).collect().await;
    Ok(read.into_iter().collect::<Result<_, _>>()?)
}

/// The epoch of this row's fences: its own, or one above everything its parts were ever written under.
async fn claim_epoch(task: &ShardTask, row: &LeaseRow, parts: &[Part]) -> Result<Fence, DriveError> {
    let counter = task.lease.fence_counter();
    if let (Some(epoch), true) = (row.epoch, row.manifest.is_some()) {
        return Ok(Fence { epoch, counter });
    }
    let mut keys = task.state_keys.clone();
    keys.extend(parts.iter().map(|p| p.key.clone()));
    keys.sort();
    keys.dedup();
    let floor = parts.iter().map(|p| p.epoch).max().unwrap_or_default();
    let epoch = task.epochs.raise(&keys, floor).await?;
    let stored = Value::number(epoch);
    task.lease.write(Update::new().set(attribute::EPOCH, stored), Condition::None).await?;
    Ok(Fence { epoch, counter })
}
