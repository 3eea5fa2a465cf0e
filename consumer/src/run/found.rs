//! What a driver finds committed when it starts: proven, or refused, or by policy discarded.
//!
//! State and checkpoint are of one commit or they are not used together. When they are not (another program moved the
//! checkpoint) or when state is missing or damaged, [`StateMismatch`] decides: stop the shard with an error that names
//! everything, or go on without the state, loudly. Never a silent fresh start.
//! Not here: what an empty start means for lanes and sources; the drivers do that. Read next: [`super::stage_driver`].

use futures::StreamExt;

use super::map_cut::{emission, own_cut};
use super::task::ShardTask;
use super::{DriveError, StateMismatch};
use crate::commit::{ChunkError, Manifest, Part};
use crate::lease::{Checkpoint, LeaseError, LeaseRow};
use crate::resolve::Decision;
use crate::shard::ShardId;
use crate::stage::StatePart;

/// Parts read at once.
const READS: usize = 8;

/// The state a shard starts with.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Committed parts.
    pub(super) parts: Vec<Part>,
    /// The directory that lists them, when it is the row's own.
    pub(super) directory: Option<Part>,
    /// Bytes of the wanted ones.
    pub(super) state: Vec<StatePart>,
    /// Whether they are the parents'.
    pub(super) inherited: bool,
    /// Whether there was state that is not used.
    pub(super) discarded: bool,
}

/// Finds and proves the state of a row; parts that `wanted` does not want are not read.
pub(super) async fn find(task: &ShardTask, row: &LeaseRow, wanted: impl Fn(&str) -> bool) -> Result<Found, DriveError> {
    let started = tokio::time::Instant::now();
    let operator = row.pending_resolution().is_some_and(|r| r.decision == Decision::DiscardState);
    let error = match read(task, row, wanted).await {
        _ if operator => {
            task.metrics.state_discarded(task.stream(), "operator");
            tracing::error!(stream = task.stream(), shard = %row.shard, checkpoint = %row.checkpoint, "committed state discarded as an operator decided");
            return Ok(Found { discarded: true, ..Found::default() });
        }
        Ok(found) => {
            if !found.parts.is_empty() {
                task.metrics.restored(task.stream(), started.elapsed());
            }
            return Ok(found);
        }
        Err(error) => error,
    };
    let Some(reason) = reason(&error) else { return Err(error) };
    if task.state_mismatch == StateMismatch::Fail {
        return Err(error);
    }
    task.metrics.state_discarded(task.stream(), reason);
    tracing::error!(
        stream = task.stream(),
        shard = %row.shard,
        checkpoint = %row.checkpoint,
        reason,
        error = %error,
        "committed state discarded by state_mismatch = discard: what follows the checkpoint is counted, what was in the state is lost"
    );
    Ok(Found { discarded: true, ..Found::default() })
}

/// A page that its index names and that cannot be had: an error, or by policy no page.
pub(super) fn unusable_page<T>(
    task: &ShardTask,
    checkpoint: &Checkpoint,
    source: ChunkError,
) -> Result<Option<T>, DriveError> {
    if !source.is_damage() || task.state_mismatch == StateMismatch::Fail {
        return Err(unreadable(task, &task.context.shard, checkpoint.to_string(), source));
    }
    task.metrics.state_discarded(task.stream(), "page");
    let shard = &task.context.shard;
    tracing::error!(stream = task.stream(), %shard, error = %source, "page discarded by state_mismatch = discard");
    Ok(None)
}

/// Why state may be discarded; `None`: the error says nothing about the state.
fn reason(error: &DriveError) -> Option<&'static str> {
    match error {
        DriveError::StateMismatch { .. } => Some("moved"),
        DriveError::ForeignPending { .. } => Some("pending"),
        DriveError::StateUnreadable { source, .. } => match **source {
            ChunkError::Missing(_) => Some("missing"),
            _ => Some("damaged"),
        },
        _ => None,
    }
}

async fn read(task: &ShardTask, row: &LeaseRow, wanted: impl Fn(&str) -> bool) -> Result<Found, DriveError> {
    let mut found = Found::default();
    match &row.manifest {
        Some(manifest) => {
            found.parts = parts(task, row, manifest).await?;
            pending_is_ours(task, row)?;
            found.directory.clone_from(&manifest.directory);
            let reads = found.parts.iter().filter(|part| wanted(&part.key)).cloned().collect();
            found.state = state(task, row, reads).await?;
        }
        // A checkpoint without any state is a place to start at, such as a KCL application's; its past is not ours.
        None if matches!(row.checkpoint, Checkpoint::At(_) | Checkpoint::ShardEnd) => {}
        None => {
            found.inherited = true;
            for parent in &row.parents {
                let Some(item) = task.table.get(&task.leases, parent.as_str()).await? else { continue };
                let Some(parent) = LeaseRow::read(&item).map_err(LeaseError::Row)? else { continue };
                if parent.checkpoint != Checkpoint::ShardEnd {
                    return Err(parent_open(task, row, &parent));
                }
                let Some(manifest) = &parent.manifest else { continue };
                let of_parent = parts(task, &parent, manifest).await?;
                let reads = of_parent.iter().filter(|part| wanted(&part.key)).cloned().collect();
                found.state.extend(state(task, &parent, reads).await?);
                found.parts.extend(of_parent);
            }
        }
    }
    Ok(found)
}

/// The bytes of some of a row's parts.
async fn state(task: &ShardTask, row: &LeaseRow, parts: Vec<Part>) -> Result<Vec<StatePart>, DriveError> {
    let reads = futures::stream::iter(parts)
        .map(|part| async move { task.chunks.get(&part).await.map(|bytes| (part.key, bytes)) });
    let read: Vec<Result<StatePart, _>> = reads.buffered(READS).collect().await;
    let read: Result<_, _> = read.into_iter().collect();
    read.map_err(|e| unreadable(task, &row.shard, row.checkpoint.to_string(), e))
}

/// The parts of a row's manifest, which must belong to the row's checkpoint.
async fn parts(task: &ShardTask, row: &LeaseRow, manifest: &Manifest) -> Result<Vec<Part>, DriveError> {
    let checkpoint = row.checkpoint.to_string();
    if manifest.checkpoint != checkpoint {
        return Err(DriveError::StateMismatch {
            stream: task.stream().to_owned(),
            shard: row.shard.clone(),
            state: manifest.checkpoint.clone(),
            row: checkpoint,
            resolve: task.context.shard.clone(),
        });
    }
    task.chunks.parts(manifest).await.map_err(|e| unreadable(task, &row.shard, checkpoint, e))
}

/// A row with a cut of ours must show as pending what the cut says, or nothing.
fn pending_is_ours(task: &ShardTask, row: &LeaseRow) -> Result<(), DriveError> {
    let Some(Err(foreign)) = own_cut(row).map(|cut| emission(row, cut)) else { return Ok(()) };
    Err(DriveError::ForeignPending {
        stream: task.stream().to_owned(),
        shard: row.shard.clone(),
        n: foreign.n,
        cut: foreign.cut.to_string(),
        row: foreign.row.map_or_else(|| "missing".to_owned(), |row| row.to_string()),
    })
}

/// Half of what the child is to begin with would be missing: its parent goes on from there.
fn parent_open(task: &ShardTask, row: &LeaseRow, parent: &LeaseRow) -> DriveError {
    let (stream, shard) = (task.stream().to_owned(), row.shard.clone());
    DriveError::ParentOpen { stream, shard, parent: parent.shard.clone(), checkpoint: parent.checkpoint.to_string() }
}

fn unreadable(task: &ShardTask, shard: &ShardId, checkpoint: String, source: ChunkError) -> DriveError {
    if !source.is_damage() {
        return source.into();
    }
    let (stream, resolve) = (task.stream().to_owned(), task.context.shard.clone());
    DriveError::StateUnreadable { stream, shard: shard.clone(), checkpoint, resolve, source: Box::new(source) }
}
