//! Drives a [`Stage`]: state and checkpoint of one shard, committed together.
//!
//! Order of a commit: outputs are put and acknowledged, chunks are put, then one write of the row moves checkpoint and
//! manifest. Nothing after a failed step happens, and everything since the last commit happens again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fetch::{self, Fetched};
use super::found::{self, find};
use super::task::{ShardTask, with_children};
use super::{DriveError, Exit, control, crash_point};
use crate::commit::{Fence, PageName, Pages, Part, Saver, indexed_part};
use crate::exchange::{Lanes, Watermarks};
use crate::lease::{Checkpoint, LeaseRow, attribute};
use crate::log::put_all;
use crate::resolve::{Decision, Resolution};
use crate::shard::ShardId;
use crate::stage::{PageChange, ShardLoss, Stage};
use crate::table::{Condition, Update, Value};

const IDLE: Duration = Duration::from_millis(50);
/// Pages read at once.
const READS: usize = 8;

/// Runs a stage until its shard or the worker's time ends.
///
/// `lanes`: those of the job, when the stream is its exchange.
pub(crate) async fn drive(
    task: &ShardTask,
    stage: &mut dyn Stage,
    output: Option<&str>,
    lanes: Option<Lanes>,
) -> Result<Exit, DriveError> {
    let mut run = StageRun::start(task, stage, output, lanes).await?;
    if run.shard_ended {
        return Ok(Exit::ShardEnd);
    }
    let reading = CancellationToken::new();
    let _stop_reading = reading.clone().drop_guard();
    let mut pages = fetch::spawn(task, run.start.clone(), reading);
    loop {
        if run.due() {
            run.commit(None).await?;
        }
        if run.at_end && run.stage.finished() {
            run.commit(None).await?;
            if run.stage.finished() {
                return Ok(Exit::Finished);
            }
        }
        tokio::select! {
            biased;
            () = task.lease.lost().cancelled() => return Ok(Exit::Lost),
            () = task.leave.cancelled() => {
                run.commit(None).await?;
                task.let_go().await?;
                return Ok(Exit::Left);
            }
            page = pages.recv() => match page {
                Some(Fetched::Page { records, behind_ms, asked }) => {
                    run.at_end = records.is_empty() && behind_ms == 0 && task.input_ended_before(asked);
                    task.read(&records, behind_ms);
                    for record in records {
                        run.stage.process(&record)?;
                        run.proceed().await?;
                        run.checkpoint = Checkpoint::At(record.sequence);
                        run.sub_sequence = record.sub_sequence;
                        run.dirty = true;
                    }
                    run.stage.idle()?;
                    if behind_ms == 0 {
                        run.tip = Some(asked);
                    }
                    if behind_ms == 0 && !run.dirty {
                        run.tell_tip().await?;
                        task.metrics.progressed(task.stream(), task.lease.key());
                    }
                }
                Some(Fetched::Trimmed { after }) => {
                    task.trimmed(&after);
                    run.lost(lanes).await?;
                }
                Some(end @ (Fetched::ShardEnd | Fetched::Gone)) => {
                    // None: left or lost, which comes first above.
                    let Some(children) = task.children().await? else { continue };
                    if task.ended(&end) {
                        run.lost(lanes).await?;
                    }
                    run.commit(Some(&children)).await?;
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
    start: fetch::Start,
    shard_ended: bool,
    saver: Saver,
    pages: Pages,
    checkpoint: Checkpoint,
    /// Place of the checkpoint's record inside its aggregate, which is consumed whole.
    sub_sequence: u64,
    committed: Instant,
    dirty: bool,
    /// Whether the input is over and read to its tip.
    at_end: bool,
    /// When the last read that came to the tip began; everything it gave is processed.
    tip: Option<Instant>,
    /// When the row was last told so.
    told_tip: Option<Instant>,
    /// Whether the row says why the shard stopped, which it no longer does.
    troubled: bool,
    /// An operator's decision that the next commit rests on.
    resolution: Option<Resolution>,
}

impl<'a> StageRun<'a> {
    async fn start(
        task: &'a ShardTask,
        stage: &'a mut dyn Stage,
        output: Option<&'a str>,
        lanes: Option<Lanes>,
    ) -> Result<Self, DriveError> {
        let row = task.lease.row().await?;
        let resolution = row.pending_resolution();
        if let Some(resolution) = resolution {
            tracing::warn!(stream = task.stream(), shard = %row.shard, %resolution, "going on as an operator decided");
        }
        // Moved in, because a stage need not be `Sync`.
        let wanting = &mut *stage;
        let found = find(task, &row, move |key| wanting.restores(owner(key))).await?;
        let (indexes, state): (Vec<_>, Vec<_>) = found.state.into_iter().partition(|(key, _)| owner(key) != key);
        stage.restore(state)?;
        let kept: Vec<Part> = found.parts.into_iter().filter(|p| stage.keeps(owner(&p.key))).collect();
        let fence = claim_epoch(task, &row, &kept, found.discarded).await?;
        let mut pages = Pages::new(task.chunks.clone(), fence, &indexes)?;
        if let Err(error) = pages.sweep_all().await {
            tracing::warn!(stream = task.stream(), shard = %row.shard, %error, "dropped pages are not deleted yet");
        }
        if found.discarded {
            stage.lost(ShardLoss::Discarded);
        }
        if let Some(Decision::AcceptGaps { until_ms }) = resolution.map(|r| r.decision) {
            stage.lost(ShardLoss::Accepted { until_ms });
        }
        if found.discarded || resolution.is_some() {
            control::tell_again(task, lanes).await?;
        }
        let troubled = row.trouble.is_some();
        let dirty = resolution.is_some() || found.discarded || found.inherited && !kept.is_empty();
        Ok(Self {
            task,
            stage,
            output,
            start: fetch::Start::behind(&row, &row.checkpoint, row.sub_sequence)
                .complete(!found.discarded && task.nothing_expired(&row)),
            shard_ended: row.checkpoint == Checkpoint::ShardEnd,
            pages,
            saver: Saver::new(task.chunks.clone(), task.lease.key(), fence, kept, found.directory),
            dirty,
            resolution,
            checkpoint: row.checkpoint,
            sub_sequence: row.sub_sequence,
            committed: Instant::now(),
            at_end: false,
            tip: None,
            told_tip: None,
            troubled,
        })
    }

    /// Records expired unread. Told again whenever they are found missing, so until a commit behind them.
    async fn lost(&mut self, lanes: Option<Lanes>) -> Result<(), DriveError> {
        self.stage.lost(ShardLoss::Trimmed);
        control::tell_again(self.task, lanes).await
    }

    fn due(&self) -> bool {
        self.stage.urgent() || self.dirty && self.committed.elapsed() >= self.task.timing.commit
    }

    /// Delivers the pages that the record needs, then lets the stage do the rest of its work.
    async fn proceed(&mut self) -> Result<(), DriveError> {
        let wanted = self.stage.wanted();
        if !wanted.is_empty() {
            let pages = &self.pages;
            let reads = futures::stream::iter(wanted).map(|(part, name)| async move {
                let page = pages.get(&part, &name).await;
                (part, name, page)
            });
            let read: Vec<_> = reads.buffered(READS).collect().await;
            for (part, name, page) in read {
                let page = page.or_else(|error| found::unusable_page(self.task, &self.checkpoint, error))?;
                self.stage.page(&part, &name, page)?;
            }
        }
        Ok(self.stage.proceed()?)
    }

    /// Tells the row now and then that a shard in which nothing comes is read to its tip.
    async fn tell_tip(&mut self) -> Result<(), DriveError> {
        let every = self.task.retention.say_every();
        let due = every.is_some_and(|every| self.told_tip.is_none_or(|at| at.elapsed() >= every));
        if !due && !self.troubled {
            return Ok(());
        }
        let update = self.task.with_tip(Update::new().remove(attribute::TROUBLE), self.tip);
        self.task.lease.write(update, Condition::None).await?;
        (self.told_tip, self.troubled) = (Some(Instant::now()), false);
        Ok(())
    }

    /// `end`: the shard's children, when this is the commit of all of it.
    async fn commit(&mut self, end: Option<&[ShardId]>) -> Result<(), DriveError> {
        let task = self.task;
        let stop = task.lease.lost();
        if let Some(stream) = self.output {
            for wave in self.stage.outputs() {
                put_all(&*task.log, stream, wave, stop, |_| {}).await?;
            }
            crash_point!("stage::after_outputs");
        }
        let (mut page_parts, mut written) = (Vec::new(), Vec::new());
        let changes = by_part(self.stage.pages()?);
        task.owns(changes.keys())?;
        for (part, changes) in changes {
            let (index, wrote) = self.pages.put(&part, changes, stop).await?;
            page_parts.push(index);
            written.extend(wrote);
        }
        let reached = self.stage.reached();
        let mut saved = self.stage.save()?;
        task.owns(saved.iter().map(|(key, _)| key))?;
        saved.extend(page_parts);
        let checkpoint = if end.is_some() { Checkpoint::ShardEnd } else { self.checkpoint.clone() };
        let sub_sequence = if end.is_some() { 0 } else { self.sub_sequence };
        let stage = &mut *self.stage;
        let put = self.saver.put(checkpoint.to_string(), saved, move |key| stage.keeps(owner(key)), stop);
        let (manifest, wrote) = put.await?;
        written.extend(wrote);
        crash_point!("stage::after_chunks");
        let mut update = Update::new()
            .set(attribute::CHECKPOINT, Value::string(checkpoint.to_string()))
            .set(attribute::SUB_SEQUENCE, Value::number(sub_sequence))
            .set(attribute::MANIFEST, Value::B(manifest.encode_bytes()))
            .set(attribute::SWITCHES, Value::number(0))
            // As every checkpoint of KCL does; what an application left pending would outlive it here.
            .remove(attribute::PENDING)
            .remove(attribute::PENDING_SUB_SEQUENCE)
            .remove(attribute::PENDING_STATE)
            .remove(attribute::TROUBLE);
        for (name, mark) in attribute::REACHED.into_iter().zip(reached.iter().flat_map(Watermarks::as_slice)) {
            update = if *mark == i64::MIN { update.remove(name) } else { update.set(name, Value::number(*mark)) };
        }
        if let Some(children) = end {
            update = with_children(update, children);
        }
        if let Some(resolution) = self.resolution {
            update = update.set(attribute::RESOLVED, Value::number(resolution.number));
        }
        task.lease.write(task.with_tip(update, self.tip), Condition::None).await?;
        (self.told_tip, self.troubled) = (self.tip.and(Some(Instant::now())), false);
        crash_point!("stage::after_commit");
        self.saver.committed();
        if let Err(error) = self.pages.committed().await {
            tracing::warn!(stream = task.stream(), shard = task.lease.key(), %error, "dropped pages are not deleted yet");
        }
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

/// The part that an index of pages belongs to; any other part is its own.
fn owner(key: &str) -> &str {
    indexed_part(key).unwrap_or(key)
}

fn by_part(changes: Vec<PageChange>) -> BTreeMap<String, Vec<(PageName, Option<Bytes>)>> {
    let mut parts: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for PageChange { part, name, bytes } in changes {
        parts.entry(part).or_default().push((name, bytes));
    }
    parts
}

/// The epoch of this row's fences: its own, or one above everything its parts were ever written under.
async fn claim_epoch(task: &ShardTask, row: &LeaseRow, parts: &[Part], fresh: bool) -> Result<Fence, DriveError> {
    let counter = task.lease.fence_counter();
    if let (Some(epoch), true) = (row.epoch, row.manifest.is_some() && !fresh) {
        return Ok(Fence { epoch, counter });
    }
    let mut keys = task.state_keys.clone();
    keys.extend(parts.iter().map(|p| p.key.clone()));
    let keys: Vec<String> = keys.into_iter().collect();
    let floor = parts.iter().map(|p| p.epoch).max().unwrap_or_default();
    let epoch = task.epochs.raise(&keys, floor).await?;
    let mut update = Update::new().set(attribute::EPOCH, Value::number(epoch));
    if fresh {
        update = update.remove(attribute::SEEN);
    }
    task.lease.write(update, Condition::None).await?;
    Ok(Fence { epoch, counter })
}
