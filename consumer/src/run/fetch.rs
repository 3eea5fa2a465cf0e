//! Reads one shard into a bounded channel.
//!
//! The channel is the back-pressure: a slow stage stops the reading, never a renewal. An expired place is taken anew
//! after the last record seen, so nothing is lost or repeated.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lease::Checkpoint;
use crate::log::{Log, LogError, ReadToken, Record};
use crate::shard::{Position, ShardId};

/// Pages waiting for the stage.
const PAGES: usize = 2;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the fetcher found.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// Records in order, possibly none, and how far behind the tip they end.
    Page { records: Vec<Record>, behind_ms: i64, asked: Instant },
    /// A closed shard has been read to its end.
    ShardEnd,
}

/// Where reading goes on behind a checkpoint of a row made at `created_ms`.
pub(crate) fn start_position(checkpoint: &Checkpoint, created_ms: i64) -> Position {
    match checkpoint {
        Checkpoint::TrimHorizon | Checkpoint::ShardEnd => Position::TrimHorizon,
        // LATEST would lose what arrives between the row's creation and the first read.
        Checkpoint::Latest | Checkpoint::AtTimestamp => Position::AtTimestamp(created_ms),
        Checkpoint::At(sequence) => Position::After(sequence.clone()),
    }
}

/// Reads on until `stop`.
pub(crate) fn spawn(
    log: Arc<dyn Log>,
    stream: String,
    shard: ShardId,
    start: Position,
    poll: Duration,
    stop: CancellationToken,
) -> mpsc::Receiver<Fetched> {
    let (sender, receiver) = mpsc::channel(PAGES);
    tokio::spawn(async move {
        let reading = read_on(&*log, &stream, &shard, start, poll, &sender);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = sender.closed() => {}
            () = reading => {}
        }
    });
    receiver
}

async fn read_on(
    log: &dyn Log,
    stream: &str,
    shard: &ShardId,
    mut position: Position,
    poll: Duration,
    sender: &mpsc::Sender<Fetched>,
) {
    let mut token: Option<ReadToken> = None;
    let mut pause = poll;
    loop {
        let asked = Instant::now();
        match step(log, stream, shard, &position, token.take()).await {
            Ok((records, next, behind_ms)) => {
                pause = poll;
                if let Some(last) = records.last() {
                    position = Position::After(last.sequence.clone());
                }
                // The last, empty page of a closed shard is its end, not a look at a tip.
                let says_something = !records.is_empty() || next.is_some();
                if says_something && sender.send(Fetched::Page { records, behind_ms, asked }).await.is_err() {
                    return;
                }
                if next.is_none() {
                    if sender.send(Fetched::ShardEnd).await.is_err() {
                        return;
                    }
                    // Hold the channel open: its closing would look like a fault.
                    return std::future::pending().await;
                }
                token = next;
            }
            Err(LogError::Expired) => tracing::debug!(stream, %shard, "shard iterator expired"),
            Err(e) => {
                tracing::warn!(stream, %shard, error = %e, "read failed, trying again");
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        tokio::time::sleep_until(asked + pause).await;
    }
}

async fn step(
    log: &dyn Log,
    stream: &str,
    shard: &ShardId,
    position: &Position,
    token: Option<ReadToken>,
) -> Result<(Vec<Record>, Option<ReadToken>, i64), LogError> {
    let token = match token {
        Some(token) => token,
        None => log.seek(stream, shard, position).await?,
    };
    let page = log.read(stream, &token).await?;
    Ok((page.records, page.next, page.behind_ms))
}

/// Reads exactly the records from `first` to `last`; fewer when some have expired.
pub(crate) async fn read_range(
    log: &dyn Log,
    stream: &str,
    shard: &ShardId,
    first: &crate::shard::SequenceNumber,
    last: &crate::shard::SequenceNumber,
    poll: Duration,
) -> Result<Vec<Record>, LogError> {
    let start = match log.seek(stream, shard, &Position::At(first.clone())).await {
        // The first record may be gone from the stream: then what is left begins at the trim horizon.
        Err(LogError::Invalid(_)) => log.seek(stream, shard, &Position::TrimHorizon).await?,
        other => other?,
    };
    let mut token = Some(start);
    let mut records: Vec<Record> = Vec::new();
    while let Some(place) = token {
        let page = match log.read(stream, &place).await {
            Err(LogError::Expired) => {
                let after = records.last().map_or(Position::At(first.clone()), |r| Position::After(r.sequence.clone()));
                token = Some(log.seek(stream, shard, &after).await?);
                continue;
            }
            Err(e) if e.is_retryable() => {
                tokio::time::sleep(poll).await;
                token = Some(place);
                continue;
            }
            other => other?,
        };
        let at_tip = page.records.is_empty() && page.behind_ms == 0;
        for record in page.records {
            if record.sequence > *last {
                return Ok(records);
            }
            if record.sequence >= *first {
                records.push(record);
            }
        }
        if at_tip || records.last().is_some_and(|r| r.sequence == *last) {
            return Ok(records);
        }
        token = page.next;
        tokio::time::sleep(poll).await;
    }
    Ok(records)
}
