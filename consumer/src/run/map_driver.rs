//! Drives a [`Mapper`]: reads one input shard, collects records into batches and decides when each is due.
//!
//! Not here: what happens to a batch ([`super::map_run`]: compute, cut, emit, in this order, the next only when every
//! record of this one is acknowledged) and what is committed ([`super::map_commit`]).

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fetch::{self, Fetched};
use super::map_run::{End, MapRun};
use super::task::ShardTask;
use super::{DriveError, Exit, Timing};
use crate::commit::Snapshot;
use crate::exchange::{Lanes, ShardCounts};
use crate::lease::Checkpoint;
use crate::log::Record;
use crate::shard::ShardId;
use crate::stage::Mapper;

/// A batch is cut early when it holds this much.
const FULL_RECORDS: usize = 10_000;
const FULL_BYTES: usize = 8 << 20;

/// Where a mapper's batches go.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) stream: String,
    pub(crate) lanes: Lanes,
    pub(crate) snapshot: tokio::sync::watch::Receiver<Snapshot>,
    /// Open shards as the leader published them; none: it has not yet.
    pub(crate) counts: tokio::sync::watch::Receiver<Option<ShardCounts>>,
}

impl Exchange {
    /// Time between two batches of a source: as set, or longer when the exchange stream is too narrow for that. Never
    /// so long that a source at work looks stuck: beyond that the stream's throttling slows the batches down.
    fn interval(&self, timing: &Timing) -> Duration {
        let least = self.counts.borrow().map_or(Duration::ZERO, |counts| counts.least_interval(self.lanes.count()));
        timing.batch.max(least.min(timing.stuck_after / 3))
    }
}

/// Runs a mapper until its shard or the worker's time ends.
pub(crate) async fn drive<M: Mapper>(task: &ShardTask, mapper: &M, exchange: Exchange) -> Result<Exit, DriveError> {
    let mut run = MapRun::start(task, mapper, exchange).await?;
    if run.checkpoint == Checkpoint::ShardEnd {
        let row = task.lease.row().await?;
        if row.checkpoint != Checkpoint::ShardEnd {
            let children = row.cut.into_iter().flat_map(|cut| cut.children);
            run.settle_end(&children.map(ShardId::new).collect::<Vec<_>>()).await?;
        }
        return Ok(Exit::ShardEnd);
    }
    let reading = CancellationToken::new();
    let _stop_reading = reading.clone().drop_guard();
    // Behind a batch that was emitted again, which the row's own checkpoint is not.
    let start =
        fetch::Start::behind(&task.lease.row().await?, &run.checkpoint, run.sub_sequence).complete(run.complete);
    let mut pages = fetch::spawn(task, start, reading);
    let mut waiting = Waiting::default();
    loop {
        let interval = run.exchange.interval(&task.timing);
        let heartbeat = task.timing.heartbeat.max(interval);
        let due = waiting.due(interval, run.cut_at);
        tokio::select! {
            biased;
            () = task.lease.lost().cancelled() => return Ok(Exit::Lost),
            () = task.leave.cancelled() => {
                run.settle().await?;
                task.let_go().await?;
                return Ok(Exit::Left);
            }
            () = tokio::time::sleep_until(due), if !waiting.records.is_empty() => {
                let records = waiting.take();
                // Not cut: left, which comes first above. Here and below.
                run.batch(&records, waiting.at_tip, &End::No).await?;
            }
            () = tokio::time::sleep_until(run.cut_at + heartbeat * 2), if run.unsettled && waiting.records.is_empty() => {
                // Nothing can be read: say at least that what was cut is emitted.
                run.settle().await?;
            }
            page = pages.recv(), if !waiting.full() => match page {
                Some(Fetched::Page { records, behind_ms, asked }) => {
                    task.read(&records, behind_ms);
                    if behind_ms == 0 {
                        run.tip = Some(asked);
                    }
                    waiting.add(records, behind_ms);
                    if !waiting.records.is_empty() || !waiting.at_tip {
                        continue;
                    }
                    if task.input_ended_before(asked) {
                        if !run.batch(&[], true, &End::Input).await? {
                            continue;
                        }
                        run.settle().await?;
                        return Ok(Exit::Finished);
                    }
                    if run.cut_at.elapsed() >= heartbeat {
                        run.batch(&[], true, &End::No).await?;
                    }
                }
                Some(Fetched::Trimmed { after }) => {
                    task.trimmed(&after);
                    run.trimmed = true;
                }
                Some(end @ (Fetched::ShardEnd | Fetched::Gone)) => {
                    run.trimmed |= task.ended(&end);
                    let records = waiting.take();
                    if !records.is_empty() && !run.batch(&records, true, &End::No).await? {
                        continue;
                    }
                    // None: left or lost, which comes first above.
                    let Some(children) = task.children().await? else { continue };
                    if !run.batch(&[], true, &End::Shard(children.clone())).await? {
                        continue;
                    }
                    run.settle_end(&children).await?;
                    return Ok(Exit::ShardEnd);
                }
                None => return Ok(Exit::Lost),
            },
        }
    }
}

/// Records read and not yet cut.
#[derive(Default)]
struct Waiting {
    records: Vec<Record>,
    bytes: usize,
    at_tip: bool,
}

impl Waiting {
    fn add(&mut self, records: Vec<Record>, behind_ms: i64) {
        self.bytes += records.iter().map(|r| r.data.len()).sum::<usize>();
        self.records.extend(records);
        self.at_tip = behind_ms == 0;
    }

    fn take(&mut self) -> Vec<Record> {
        self.bytes = 0;
        std::mem::take(&mut self.records)
    }

    fn full(&self) -> bool {
        self.records.len() >= FULL_RECORDS || self.bytes >= FULL_BYTES
    }

    fn due(&self, interval: Duration, cut_at: Instant) -> Instant {
        if self.full() { Instant::now() } else { cut_at + interval }
    }
}
