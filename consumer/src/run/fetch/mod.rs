//! Reads one shard into a bounded channel.
//!
//! The channel is the back-pressure: a slow stage stops the reading, never a renewal. A place that expired is taken
//! anew behind the last record seen, so nothing is lost or repeated. `poll` reads or `subscribe` is given, `outlet`
//! takes aggregates apart and sends pages, `pace` says when to read again, `range` reads a cut batch a second time.
//! Invariant: a page holds whole Kinesis records, so a commit between pages never cuts an aggregate.

mod outlet;
mod pace;
mod poll;
mod range;
mod subscribe;

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::retention::Retention;
use super::task::ShardTask;
use super::{Fetch, Reading, Timing};
use crate::lease::{Checkpoint, LeaseRow};
use crate::log::{Log, LogError, Record};
use crate::metrics::EngineMetrics;
use crate::shard::{Position, SequenceNumber, ShardId};
use crate::stage::ShardContext;
use outlet::{Closed, Outlet};
use poll::Poll;
use subscribe::Subscriber;

pub(crate) use range::{Range, read_range};

/// Pages waiting for the stage.
const PAGES: usize = 2;

/// What the fetcher found.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// Records in order, possibly none, and how far behind the tip they end.
    Page { records: Vec<Record>, behind_ms: i64, asked: Instant },
    /// Records behind this one may have expired unread; reading goes on with the oldest one left.
    Trimmed { after: SequenceNumber },
    /// A closed shard has been read to its end.
    ShardEnd,
    /// The stream no longer has the shard: it was closed, and its last record has expired. What was not read by now is
    /// lost, and nothing more will come.
    Gone,
}

/// Where reading goes on.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    position: Position,
    /// This and everything before it is consumed: (sequence, sub-sequence).
    consumed: Option<(SequenceNumber, u64)>,
    /// Whether everything behind that is still there, even if that record is not.
    complete: bool,
    /// Until then (epoch milliseconds) a producer may hold an outdated map of this shard.
    resharded_until_ms: Option<i64>,
}

/// How long after a reshard producers may aggregate by the old shard map.
const RESHARD_MS: i64 = 15 * 60 * 1000;

impl Start {
    /// Behind `checkpoint` (with its sub-sequence) of the shard with this row.
    ///
    /// Reading begins AT the checkpoint's record and not after it: a KCL application may have consumed half of an
    /// aggregate, and a first record that is another one shows that records have expired unread.
    pub(crate) fn behind(row: &LeaseRow, checkpoint: &Checkpoint, sub_sequence: u64) -> Self {
        let (position, consumed) = match checkpoint {
            Checkpoint::TrimHorizon | Checkpoint::ShardEnd => (Position::TrimHorizon, None),
            // LATEST would lose what arrives between the row's creation and the first read.
            Checkpoint::Latest | Checkpoint::AtTimestamp => (Position::AtTimestamp(row.created_ms), None),
            Checkpoint::At(sequence) => (Position::At(sequence.clone()), Some((sequence.clone(), sub_sequence))),
        };
        let resharded = !row.parents.is_empty();
        let resharded_until_ms = resharded.then(|| row.created_ms.saturating_add(RESHARD_MS));
        Self { position, consumed, complete: false, resharded_until_ms }
    }

    /// The same when nothing behind the checkpoint can have expired: a first record that is another one is then no sign
    /// of loss but of a shard in which nothing came for longer than the stream keeps records.
    #[must_use]
    pub(crate) fn complete(self, complete: bool) -> Self {
        Self { complete, ..self }
    }
}

/// Reads the task's shard on until `stop`.
pub(crate) fn spawn(task: &ShardTask, start: Start, stop: CancellationToken) -> mpsc::Receiver<Fetched> {
    let (shard, log, ends) = (&task.context, Arc::clone(&task.log), task.ends.clone());
    let (reading, timing, retention) = (&task.reading, &task.timing, task.retention.clone());
    let source = Source { shard, log, reading, timing, retention, ends };
    read_on(source, task.metrics.clone(), start, stop)
}

/// What is read, and how.
struct Source<'a> {
    shard: &'a ShardContext,
    log: Arc<dyn Log>,
    reading: &'a Reading,
    timing: &'a Timing,
    retention: Retention,
    ends: watch::Receiver<Option<Instant>>,
}

fn read_on(
    source: Source<'_>,
    metrics: EngineMetrics,
    start: Start,
    stop: CancellationToken,
) -> mpsc::Receiver<Fetched> {
    let (sender, receiver) = mpsc::channel(PAGES);
    let Source { shard, log, reading, timing, retention, ends } = source;
    let (stream, position) = (shard.stream.name.clone(), start.position.clone());
    let place = Place { log, stream, shard: shard.shard.clone(), position };
    let outlet = Outlet::new(shard, reading.kpl, metrics, start, retention, sender.clone());
    let reader: BoxFuture<'static, Result<(), Closed>> = match &reading.fetch {
        Fetch::Polling => Box::pin(Poll::new(place, timing.poll, timing.idle_poll, outlet).run()),
        Fetch::FanOut { consumer } => Box::pin(Subscriber::new(place, consumer, outlet, ends).run()),
    };
    tokio::spawn(async move {
        let reading = async {
            // An error says that the stage is gone. Otherwise hold the channel open: its closing would look like a
            // fault.
            if reader.await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = sender.closed() => {}
            () = reading => {}
        }
    });
    receiver
}

/// Where a reader stands.
#[derive(Debug)]
struct Place {
    log: Arc<dyn Log>,
    stream: String,
    shard: ShardId,
    position: Position,
}

impl Place {
    /// Whether "not found" means that the shard alone is gone; a missing stream is a fault that somebody must see.
    async fn is_gone(&self) -> Result<bool, LogError> {
        is_gone(&*self.log, &self.stream, &self.shard).await
    }
}

async fn is_gone(log: &dyn Log, stream: &str, shard: &ShardId) -> Result<bool, LogError> {
    Ok(!log.shards(stream).await?.iter().any(|s| s.id == *shard))
}

#[cfg(test)]
mod tests;
