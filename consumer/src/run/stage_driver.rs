//! Drives a [`Stage`]: state and checkpoint of one shard, committed together.
//!
//! Order of a commit: outputs are put and acknowledged, chunks are put, then one write of the row moves checkpoint and
//! manifest. Nothing after a failed step happens, and everything since the last commit happens again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fetch::{self, Fetched};
use super::found::find;
use super::task::ShardTask;
use super::{DriveError, Exit, crash_point};
use crate::commit::{Fence, Part, Saver};
use crate::lease::{Checkpoint, LeaseRow, attribute};
use crate::log::put_all;
use crate::resolve::{Decision, Resolution};
use crate::stage::{ShardLoss, Stage};
use crate::table::{Condition, Update, Value};

const IDLE: Duration = Duration::from_millis(50);

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
    saver: Saver,
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
        let resolution = row.pending_resolution();
        if let Some(resolution) = resolution {
            tracing::warn!(stream = task.stream(), shard = %row.shard, %resolution, "going on as an operator decided");
        }
        // Moved in, because a stage need not be `Sync`.
        let wanting = &mut *stage;
        let found = find(task, &row, move |key| wanting.restores(key)).await?;
        stage.restore(found.state)?;
        let kept: Vec<Part> = found.parts.into_iter().filter(|p| stage.keeps(&p.key)).collect();
        let fence = claim_epoch(task, &row, &kept, found.discarded).await?;
        if found.discarded {
            stage.lost(ShardLoss::Discarded);
        }
        if let Some(Decision::AcceptGaps { until_ms }) = resolution.map(|r| r.decision) {
            stage.lost(ShardLoss::Accepted { until_ms });
        }
        let dirty = resolution.is_some() || found.discarded || found.inherited && !kept.is_empty();
        Ok(Self {
            task,
            stage,
            output,
            start: fetch::start_position(&row.checkpoint, row.created_ms),
            shard_ended: row.checkpoint == Checkpoint::ShardEnd,
            saver: Saver::new(task.chunks.clone(), task.lease.key(), fence, kept, found.directory),
            dirty,
            resolution,
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
        let checkpoint = if shard_end { Checkpoint::ShardEnd } else { self.checkpoint.clone() };
        let stage = &mut *self.stage;
        let put = self.saver.put(checkpoint.to_string(), saved, move |key| stage.keeps(key), stop);
        let (manifest, written) = put.await?;
        crash_point!("stage::after_chunks");
        let mut update = Update::new()
            .set(attribute::CHECKPOINT, Value::string(checkpoint.to_string()))
            .set(attribute::SUB_SEQUENCE, Value::number(0))
            .set(attribute::MANIFEST, Value::B(manifest.encode_bytes()))
            .set(attribute::SWITCHES, Value::number(0))
            // As every checkpoint of KCL does; what an application left pending would outlive it here.
            .remove(attribute::PENDING)
            .remove(attribute::PENDING_SUB_SEQUENCE)
            .remove(attribute::PENDING_STATE);
        if shard_end {
            update = task.with_children(update).await?;
        }
        if let Some(resolution) = self.resolution {
            update = update.set(attribute::RESOLVED, Value::number(resolution.number));
        }
        task.lease.write(update, Condition::None).await?;
        crash_point!("stage::after_commit");
        self.saver.committed();
        self.committed = Instant::now();
        self.dirty = false;
        task.metrics.committed(task.stream(), task.lease.key());
        written.iter().for_each(|written| task.metrics.state_written(task.stream(), written));
        task.metrics.state_held(task.stream(), task.lease.key(), self.saver.held());
        self.resolution = None;
        self.stage.committed();
        Ok(())
    }
}

/// The epoch of this row's fences: its own, or one above everything its parts were ever written under.
async fn claim_epoch(task: &ShardTask, row: &LeaseRow, parts: &[Part], fresh: bool) -> Result<Fence, DriveError> {
    let counter = task.lease.fence_counter();
    if let (Some(epoch), true) = (row.epoch, row.manifest.is_some() && !fresh) {
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
