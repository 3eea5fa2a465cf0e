//! How a shard stands, and how far event time behind it lies behind the clock: the columns STATUS and LAG.
//!
//! Pure, but for the look into the incidents' state. What is worse comes first: a shard whose owner said why it stopped, or
//! whose state cannot be used, is that, whatever else its row says; and no shard goes on that nobody renews.

use flowshift_consumer::exchange::Status;
use flowshift_consumer::inspect;
use flowshift_consumer::lease::{Checkpoint, LeaseRow};
use flowshift_detector::Correlator;

use super::look::Lease;
use super::watch::{Sign, Signs};
use crate::command::store::Store;
use crate::command::text_table::Tone;
use crate::stage::correlate::Stored;
use crate::stage::rules;

/// Event time (ms) that an exchange shard may lie behind the foremost before it is called behind.
const BEHIND_MS: i64 = 120_000;

/// What a stream is to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Records come in.
    Flows,
    /// Panes, by lane.
    Exchange,
    /// Evidence; one shard.
    Evidence,
}

/// What is known of a job beside its rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Event time up to which incidents are judged, epoch ms; none: nothing yet, or it cannot be read.
    pub(super) judged_ms: Option<i64>,
    /// How far the foremost exchange shard has judged, epoch ms.
    pub(super) foremost_ms: Option<i64>,
}

impl Known {
    /// From the rows, and the incidents' state.
    pub(super) async fn of(store: &Store, found: &[Lease]) -> Self {
        let exchange = &store.config.streams.exchange;
        let rows = found.iter().filter(|lease| lease.stream == *exchange).filter_map(|lease| lease.row.as_ref().ok());
        let foremost_ms = rows.filter_map(reached).max();
        let evidence = &store.config.streams.evidence;
        let stored = found
            .iter()
            .any(|lease| lease.stream == *evidence && lease.row.as_ref().is_ok_and(|row| row.manifest.is_some()));
        // What is wrong with that state stands in its shard's own line.
        let judged_ms = if stored { judged_ms(store).await.ok().flatten() } else { None };
        Self { judged_ms, foremost_ms }
    }
}

async fn judged_ms(store: &Store) -> anyhow::Result<Option<i64>> {
    let stream = store.log.identify(&store.config.streams.evidence).await?;
    let parts = inspect::parts(&store.table, &store.tables, &stream).await?;
    let Some(Stored { body, .. }) = Stored::read(&parts)? else { return Ok(None) };
    let correlator = Correlator::from_state(rules::detector_settings(&store.config)?, body.correlator)?;
    Ok(correlator.taken_s().map(|seconds| seconds.saturating_mul(1_000)))
}

/// Why a shard stands still that its row, or its state, proves to stand still; `state`: what is wrong with the list of its
/// parts.
pub(super) fn stopped(row: &LeaseRow, state: Option<&str>) -> Option<String> {
    if row.checkpoint == Checkpoint::ShardEnd {
        return None;
    }
    if let Some(decision) = row.pending_resolution() {
        return Some(format!("decided ({decision}), its owner takes it at its next try"));
    }
    if let Some(trouble) = &row.trouble {
        return Some(trouble.clone());
    }
    let of = row.manifest.as_ref().map(|manifest| manifest.checkpoint.as_str());
    match (of, state) {
        (Some(of), _) if of != row.checkpoint.to_string() => {
            Some(format!("its state is of checkpoint {of}, the row stands at {}", row.checkpoint))
        }
        (_, Some(problem)) => Some(format!("its state cannot be read: {problem}")),
        _ => None,
    }
}

/// The word for how a shard stands; never empty.
pub(super) fn status(
    lease: &Lease,
    row: &LeaseRow,
    kind: Kind,
    stopped: Option<&str>,
    signs: &Signs,
    known: &Known,
) -> (&'static str, Tone) {
    if row.checkpoint == Checkpoint::ShardEnd {
        return (if lease.children.is_empty() { "ended" } else { "resharded" }, Tone::Warn);
    }
    let sign = lease.holder().and_then(|owner| signs.get(owner));
    if stopped.is_some() {
        return ("stopped", Tone::Bad);
    }
    if row.cut.as_ref().is_some_and(|cut| cut.end && cut.children.is_empty()) {
        return ("input over", Tone::Warn);
    }
    match sign {
        Some(Sign::Silent(_)) => return ("not renewed", Tone::Bad),
        // Not begun, and its parents are not over, or the leader has not come to it.
        None if !row.is_begun() => return ("waiting", Tone::Warn),
        None => return ("no owner", Tone::Warn),
        Some(Sign::Live(_) | Sign::Stopped | Sign::Unknown) => {}
    }
    match kind {
        Kind::Flows => match row.status[0] {
            Status::Live => ("live", Tone::Plain),
            Status::Idle => ("idle", Tone::Warn),
            _ => ("returning", Tone::Warn),
        },
        Kind::Exchange if is_behind(row, known) => ("behind", Tone::Bad),
        Kind::Exchange | Kind::Evidence => ("reading", Tone::Plain),
    }
}

fn is_behind(row: &LeaseRow, known: &Known) -> bool {
    let Some(foremost) = known.foremost_ms else { return false };
    row.is_begun() && reached(row).is_none_or(|ms| foremost.saturating_sub(ms) > BEHIND_MS)
}

/// Event time up to which all lanes of an exchange shard have judged, of the kind that is furthest; what has ended says
/// nothing.
fn reached(row: &LeaseRow) -> Option<i64> {
    row.reached.iter().flatten().copied().filter(is_time).max()
}

fn is_time(ms: &i64) -> bool {
    *ms != i64::MIN && *ms != i64::MAX
}

/// How far event time behind a shard is from the clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Lag {
    /// Read to its tip: nothing waits.
    Tip,
    /// Seconds.
    Behind(f64),
}

/// The lag of a shard: a flows shard's watermark, what all lanes of an exchange shard have judged, up to where incidents
/// are judged. None: it is over, or has said nothing yet.
pub(super) fn lag(row: &LeaseRow, kind: Kind, known: &Known, now_ms: i64) -> Option<Lag> {
    if row.checkpoint == Checkpoint::ShardEnd {
        return None;
    }
    let ms = match kind {
        Kind::Flows => {
            let cut = row.cut.as_ref()?;
            if row.at_tip {
                return Some(Lag::Tip);
            }
            cut.watermarks.first().copied().filter(is_time)?
        }
        Kind::Exchange => reached(row)?,
        Kind::Evidence => known.judged_ms?,
    };
    Some(Lag::Behind(now_ms.saturating_sub(ms).max(0) as f64 / 1_000.0))
}

/// What is wrong with the job as a whole, in a sentence; none while some owner lives, or when nobody watched.
pub(super) fn nobody(found: &[Lease], signs: &Signs) -> Option<String> {
    let open = |lease: &&Lease| matches!(&lease.row, Ok(row) if row.checkpoint != Checkpoint::ShardEnd);
    let held = found.iter().filter(open).filter(|lease| lease.holder().is_some()).count();
    if held == 0 {
        return None;
    }
    let mut watched = std::time::Duration::ZERO;
    for sign in signs.values() {
        match sign {
            Sign::Silent(span) => watched = watched.max(*span),
            Sign::Live(_) | Sign::Stopped | Sign::Unknown => return None,
        }
    }
    let owners = if signs.len() == 1 { "its owner is".to_owned() } else { format!("all {} owners are", signs.len()) };
    Some(format!(
        "no worker renews these leases: {held} are held, and {owners} silent ({:.1} s watched): the job stands still; start \
         `flowshift run`, which takes them over, or look why its workers died",
        watched.as_secs_f64()
    ))
}

#[cfg(test)]
mod tests;
