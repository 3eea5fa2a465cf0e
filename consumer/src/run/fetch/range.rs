//! Reads the records of a cut batch a second time.
//!
//! The same records as the first time, taken apart in the same way, or fewer when some have expired; never others.

use std::time::Duration;

use super::is_gone;
use super::pace::SHORTEST;
use crate::kpl::{Kpl, Split, split};
use crate::log::{Log, LogError, Record};
use crate::shard::{HashRange, Position, SequenceNumber, ShardId};

/// The records of a batch.
#[derive(Debug)]
pub(crate) struct Range {
    /// The first record's sequence number and its place inside its aggregate.
    pub(crate) first: (SequenceNumber, u64),
    /// The last record's sequence number; its aggregate belongs to the batch whole.
    pub(crate) last: SequenceNumber,
    /// How the batch took aggregates apart.
    pub(crate) kpl: Option<Kpl>,
    /// Hash keys of the shard.
    pub(crate) hashes: HashRange,
}

impl Range {
    fn take(&self, record: Record, records: &mut Vec<Record>) {
        if record.sequence < self.first.0 {
            return;
        }
        let parts = match self.kpl.map(|kpl| split(kpl, self.hashes, record.clone())) {
            None => vec![record],
            Some(Split::Plain { record, .. }) => vec![record],
            Some(Split::Aggregate { records, .. }) => records,
        };
        let first = (&self.first.0, self.first.1);
        records.extend(parts.into_iter().filter(|r| (&r.sequence, r.sub_sequence) >= first));
    }
}

/// Reads the records of `range` that the stream still has.
pub(crate) async fn read_range(
    log: &dyn Log,
    stream: &str,
    shard: &ShardId,
    range: &Range,
    poll: Duration,
) -> Result<Vec<Record>, LogError> {
    let poll = poll.max(SHORTEST);
    let mut position = Position::At(range.first.0.clone());
    let mut token = None;
    let mut records: Vec<Record> = Vec::new();
    loop {
        let place = match token.take() {
            Some(place) => Ok(place),
            None => log.seek(stream, shard, &position).await,
        };
        let page = match place {
            Ok(place) => match log.read(stream, &place).await {
                Err(e) if e.is_retryable() => {
                    token = Some(place);
                    Err(e)
                }
                other => other,
            },
            Err(e) => Err(e),
        };
        match page {
            Ok(page) => {
                let at_tip = page.records.is_empty() && page.behind_ms == 0;
                for record in page.records {
                    if record.sequence > range.last {
                        return Ok(records);
                    }
                    position = Position::After(record.sequence.clone());
                    range.take(record, &mut records);
                }
                let complete = matches!(&position, Position::After(seen) if *seen == range.last);
                if at_tip || complete || page.next.is_none() {
                    return Ok(records);
                }
                token = page.next;
            }
            // The first record may be gone from the stream: then what is left begins at the trim horizon.
            Err(LogError::Invalid(_)) if matches!(position, Position::At(_)) => position = Position::TrimHorizon,
            Err(LogError::Expired) => {}
            Err(LogError::NotFound(text)) => {
                return if is_gone(log, stream, shard).await? { Ok(records) } else { Err(LogError::NotFound(text)) };
            }
            Err(e) if e.is_retryable() => {}
            Err(e) => return Err(e),
        }
        tokio::time::sleep(poll).await;
    }
}
