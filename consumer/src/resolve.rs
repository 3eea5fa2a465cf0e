//! An operator's decision about a shard that stopped at a proven loss.
//!
//! A decision is one conditional write on the shard's lease row (`fs_resolve`), so it survives crashes and lease moves;
//! the owner finds it when it starts the shard again, and the commit that rests on it notes its number
//! (`fs_resolved`), so it is used once. Nothing here loses anything by itself: what was lost already is counted, and
//! told to the job by [`Reducer::incomplete`](crate::stage::Reducer::incomplete). Both ends write it to the log.
//! Read next: [`crate::exchange::Loss`].

mod missing;

use std::fmt;

use crate::lease::{LeaseRow, RowError, attribute};
use crate::log::{Entry, Log, PutError, put_all};
use crate::run::Tables;
use crate::shard::ShardId;
use crate::table::{Condition, Table, TableError, Update, Value};

pub use missing::{Missing, MissingError, missing};

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on without whatever is missing among the records that arrived up to `until_ms` (epoch milliseconds).
    AcceptGaps {
        /// Gaps in later records stop the shard again.
        until_ms: i64,
    },
    /// Go on from the checkpoint without the committed state.
    DiscardState,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcceptGaps { until_ms } => write!(f, "gaps {until_ms}"),
            Self::DiscardState => f.write_str("discard"),
        }
    }
}

/// A decision on a lease row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// Its number on this row, from 1.
    pub number: i64,
    /// What was decided.
    pub decision: Decision,
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.decision)
    }
}

impl Resolution {
    /// From the stored text; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let number = words.next()?.parse().ok()?;
        let decision = match (words.next()?, words.next()) {
            ("gaps", Some(ms)) => Decision::AcceptGaps { until_ms: ms.parse().ok()? },
            ("discard", None) => Decision::DiscardState,
            _ => return None,
        };
        Some(Self { number, decision })
    }
}

/// A decision could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is no such lease row.
    #[error("no lease row for shard {shard} of stream {stream}")]
    NoRow {
        /// The stream.
        stream: String,
        /// The shard.
        shard: ShardId,
    },
    /// Another decision was written to the row at the same moment: look at it, then decide again.
    #[error("another decision was written for shard {0} at the same moment")]
    Raced(ShardId),
    /// The row cannot be read.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The table failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The record could not be put.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// Lets a shard that stopped at missing batches go on without them: every gap among records that arrived up to
/// `until_ms` (epoch milliseconds; now, as a rule) is accepted, counted, and makes its lane incomplete.
///
/// # Errors
/// [`ResolveError`]; nothing is written then.
pub async fn accept_gaps(
    table: &dyn Table,
    tables: &Tables,
    stream: &str,
    shard: &ShardId,
    until_ms: i64,
) -> Result<Resolution, ResolveError> {
    decide(table, tables, stream, shard, Decision::AcceptGaps { until_ms }).await
}

/// Lets a shard whose committed state cannot be used start empty at its checkpoint, under a new epoch.
///
/// # Errors
/// [`ResolveError`]; nothing is written then.
pub async fn discard_state(
    table: &dyn Table,
    tables: &Tables,
    stream: &str,
    shard: &ShardId,
) -> Result<Resolution, ResolveError> {
    decide(table, tables, stream, shard, Decision::DiscardState).await
}

/// Puts records of the job's own making that skip lanes ([`crate::skip`]) into the stream of the stage that waits for
/// them, and returns when they are acknowledged. They may stand there twice, so they must be idempotent by content.
///
/// # Errors
/// The stream refused it for good.
pub async fn skip(log: &dyn Log, stream: &str, records: Vec<Entry>) -> Result<(), ResolveError> {
    let stop = tokio_util::sync::CancellationToken::new();
    tracing::warn!(stream, records = records.len(), "an operator skips what lanes did not say");
    Ok(put_all(log, stream, records, &stop, |_| {}).await?)
}

async fn decide(
    table: &dyn Table,
    tables: &Tables,
    stream: &str,
    shard: &ShardId,
    decision: Decision,
) -> Result<Resolution, ResolveError> {
    let leases = tables.leases(stream);
    let none = || ResolveError::NoRow { stream: stream.to_owned(), shard: shard.clone() };
    let item = table.get(&leases, shard.as_str()).await?.ok_or_else(none)?;
    let row = LeaseRow::read(&item)?.ok_or_else(none)?;
    let number = row.resolved.max(row.resolution.map_or(0, |r| r.number)) + 1;
    let resolution = Resolution { number, decision };
    let update = Update::new().set(attribute::RESOLVE, Value::string(resolution.to_string()));
    let as_seen = match item.string(attribute::RESOLVE) {
        None => Condition::Absent(attribute::RESOLVE),
        Some(text) => Condition::Equals(attribute::RESOLVE, Value::string(text)),
    };
    let condition = Condition::All(vec![Condition::Exists(attribute::KEY), as_seen]);
    match table.update(&leases, shard.as_str(), update, condition).await {
        Ok(()) => {}
        Err(TableError::Conflict { .. }) => return Err(ResolveError::Raced(shard.clone())),
        Err(e) => return Err(e.into()),
    }
    tracing::warn!(stream, %shard, %resolution, "an operator decided about the shard");
    Ok(resolution)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolution_survives_its_stored_form_and_nonsense_is_none() {
        for decision in [Decision::AcceptGaps { until_ms: 1_800_000_000_123 }, Decision::DiscardState] {
            let resolution = Resolution { number: 3, decision };
            assert_eq!(Resolution::parse(&resolution.to_string()), Some(resolution));
        }
        for text in ["", "3", "x discard", "3 gaps", "3 gaps x", "3 discard now"] {
            assert_eq!(Resolution::parse(text), None, "{text:?}");
        }
    }
}
