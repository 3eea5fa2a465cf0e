//! Puts many records and returns only when every one is acknowledged.
//!
//! Refused records are sent again, with the same bytes, after a growing pause. A request whose answer was lost is sent
//! again whole, so a record may stand in the stream twice: every reader of what is put here must drop repeats.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Entry, Log, LogError};

/// Records of one PutRecords request (a Kinesis limit).
const MAX_RECORDS: usize = 500;
/// Bytes of one PutRecords request: under the 5 MB that every region grants.
const MAX_BYTES: usize = 4_500_000;
/// A single request may take so many times the limit of [`put_all_within`].
const REQUEST: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why not everything was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The caller's token was cancelled (lease lost, or the process ends at once).
    #[error("cancelled before every record was acknowledged")]
    Cancelled,
    /// A time-limited put was given up for now; what is not acknowledged may still come into the stream.
    #[error("not every record was acknowledged within {0:?}")]
    Late(Duration),
    /// A record can never be accepted.
    #[error(transparent)]
    Refused(#[from] LogError),
}

/// Puts `entries` in requests within Kinesis' limits and retries until all are acknowledged or `stop` is cancelled.
///
/// `between` is called after each acknowledged request with the number of records acknowledged so far.
pub async fn put_all(
    log: &dyn Log,
    stream: &str,
    mut entries: Vec<Entry>,
    stop: &CancellationToken,
    between: impl FnMut(usize),
) -> Result<(), PutError> {
    put_rest(log, stream, &mut entries, stop, None, between).await
}

/// Takes out of `pending` what is acknowledged.
async fn put_rest(
    log: &dyn Log,
    stream: &str,
    pending: &mut Vec<Entry>,
    stop: &CancellationToken,
    limit: Option<Duration>,
    mut between: impl FnMut(usize),
) -> Result<(), PutError> {
    let (began, mut acknowledged) = (Instant::now(), 0);
    let mut pause = FIRST_PAUSE;
    while !pending.is_empty() {
        let request = first_request(pending);
        let mut refused = Vec::new();
        match log.append(stream, &pending[..request]).await {
            Ok(answers) => {
                for (entry, answer) in pending[..request].iter().zip(answers) {
                    match answer {
                        Ok(_) => acknowledged += 1,
                        Err(e) if e.is_retryable() => refused.push(entry.clone()),
                        Err(e) => return Err(PutError::Refused(e)),
                    }
                }
            }
            Err(e) if e.is_retryable() => {
                tracing::debug!(stream, error = %e, "put will be repeated");
                refused.extend_from_slice(&pending[..request]);
            }
            Err(e) => return Err(PutError::Refused(e)),
        }
        let progressed = refused.len() < request;
        let waits = !refused.is_empty();
        pending.splice(..request, refused);
        between(acknowledged);
        if let Some(limit) = limit.filter(|limit| !pending.is_empty() && began.elapsed() >= *limit) {
            return Err(PutError::Late(limit));
        }
        if !waits {
            pause = FIRST_PAUSE;
            continue;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(PutError::Cancelled),
            () = tokio::time::sleep(pause) => {}
        }
        pause = if progressed { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
    }
    Ok(())
}

/// [`put_all`] for a caller that has other things to do: gives up after `limit` with [`PutError::Late`]. What is
/// acknowledged is no longer in `entries` then; some of the others may be in the stream, and more may still come into
/// it.
pub(crate) async fn put_all_within(
    log: &dyn Log,
    stream: &str,
    entries: &mut Vec<Entry>,
    stop: &CancellationToken,
    limit: Duration,
) -> Result<(), PutError> {
    // A request under way is waited for: one that always takes longer would never come through.
    let put = put_rest(log, stream, entries, stop, Some(limit), |_| {});
    tokio::time::timeout(limit.saturating_mul(REQUEST), put).await.unwrap_or(Err(PutError::Late(limit)))
}

/// How many of the first entries fit one request; at least one.
fn first_request(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fits = entries.iter().take(MAX_RECORDS).take_while(|e| {
        bytes += e.data.len() + e.partition_key.len();
        bytes <= MAX_BYTES
    });
    fits.count().max(1)
}
