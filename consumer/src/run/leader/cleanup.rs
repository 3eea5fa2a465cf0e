//! Late clean-up: rows of consumed shards, once nothing can need them any more.
//!
//! A row goes when its shard is consumed and gone from the stream, its parents' rows are gone, every child has
//! committed a state (of an input: a cut) of its own, and its own state lives on: an input shard's was copied by its
//! children, as the marks of an exchange shard were, and a lane's stands in another row's manifest. State that stays
//! with its shard (a stage whose children start empty) keeps its row for ever. The row goes first, its chunks after it:
//! a crash in between leaves bytes nobody names, never a name without bytes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Leader;
use super::ghost::ghosts;
use crate::commit::{ChunkError, Chunks, Manifest};
use crate::lease::{Checkpoint, LeaseRow, attribute};
use crate::run::DriveError;
use crate::run::control::passed;
use crate::run::lane_stage::is_marks;
use crate::shard::{Shard, ShardId};
use crate::table::{Condition, TableError, Value};

impl Leader {
    /// Deletes what can go; `shards` is the stream as just listed.
    pub(super) async fn clean_up(
        &mut self,
        stream: &str,
        shards: &[Shard],
        rows: &mut Vec<LeaseRow>,
    ) -> Result<(), DriveError> {
        let listed: BTreeSet<&ShardId> = shards.iter().map(|shard| &shard.id).collect();
        for shard in ghosts(rows).iter().filter(|shard| !listed.contains(shard)) {
            self.lay(stream, shard, rows).await?;
        }
        let is_input = self.control.is_some() && self.parts.streams.first().is_some_and(|input| input == stream);
        let done: Vec<LeaseRow> = rows.iter().filter(|row| is_done(row, rows, &listed, is_input)).cloned().collect();
        if done.is_empty() {
            return Ok(());
        }
        let id = self.parts.log.identify(stream).await?;
        let chunks = Chunks::new(Arc::clone(&self.parts.table), self.state(), id);
        for row in done {
            match self.delete(stream, &chunks, &row, rows, is_input).await {
                Ok(true) => rows.retain(|other| other.shard != row.shard),
                Ok(false) => {}
                // A commit went on meanwhile, or state is damaged: nothing is deleted on a guess.
                Err(DriveError::Chunk(e)) => {
                    tracing::debug!(stream, shard = %row.shard, error = %e, "row of a consumed shard stays for now");
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Deletes a row that should not be, unless somebody has it by now. It never had any chunks.
    async fn lay(&self, stream: &str, shard: &ShardId, rows: &mut Vec<LeaseRow>) -> Result<(), DriveError> {
        let Some(row) = rows.iter().find(|row| row.shard == *shard) else { return Ok(()) };
        let unchanged = Condition::All(vec![
            Condition::Equals(attribute::COUNTER, Value::number(row.counter)),
            Condition::Absent(attribute::OWNER),
            Condition::Absent(attribute::MANIFEST),
        ]);
        let table = self.parts.config.tables.leases(stream);
        match self.parts.table.delete(&table, shard.as_str(), unchanged).await {
            Ok(()) => {
                tracing::warn!(stream, %shard, "row of a consumed shard that was put late deleted");
                rows.retain(|row| row.shard != *shard);
            }
            Err(TableError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// Deletes a row that is done and its chunks, if its state lives on.
    async fn delete(
        &self,
        stream: &str,
        chunks: &Chunks,
        row: &LeaseRow,
        rows: &[LeaseRow],
        is_input: bool,
    ) -> Result<bool, DriveError> {
        let living: Vec<Manifest> =
            rows.iter().filter(|other| other.shard != row.shard).filter_map(|other| other.manifest.clone()).collect();
        let is_exchange = self.control.as_ref().is_some_and(|control| control.streams().1 == stream);
        let copied = |key: &str| is_exchange && is_marks(key);
        if let (Some(manifest), false) = (&row.manifest, is_input)
            && !lives_on(chunks, manifest, &living, copied).await?
        {
            return Ok(false);
        }
        if is_input {
            passed::note(&*self.parts.table, &self.state(), row).await?;
        }
        let unchanged = Condition::All(vec![
            Condition::Equals(attribute::COUNTER, Value::number(row.counter)),
            Condition::Equals(attribute::CHECKPOINT, Value::string(Checkpoint::ShardEnd.to_string())),
        ]);
        let table = self.parts.config.tables.leases(stream);
        match self.parts.table.delete(&table, row.shard.as_str(), unchanged).await {
            Ok(()) => {}
            Err(TableError::Conflict { .. }) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        let deleted = match &row.manifest {
            Some(manifest) => chunks.delete_parts(manifest, &living).await?,
            None => 0,
        };
        tracing::info!(stream, shard = %row.shard, chunks = deleted, "row of a consumed shard deleted");
        Ok(true)
    }
}

fn children<'a>(row: &'a LeaseRow, rows: &'a [LeaseRow]) -> impl Iterator<Item = &'a LeaseRow> {
    rows.iter().filter(|child| child.parents.contains(&row.shard))
}

/// Whether the row's shard is over and done with, whatever becomes of its state.
fn is_done(row: &LeaseRow, rows: &[LeaseRow], listed: &BTreeSet<&ShardId>, is_input: bool) -> bool {
    let has_row = |shard: &ShardId| rows.iter().any(|other| other.shard == *shard);
    let over = row.checkpoint == Checkpoint::ShardEnd && !listed.contains(&row.shard);
    // A child that is listed gets its row first.
    let unborn = row.children.iter().any(|child| listed.contains(child) && !has_row(child));
    // Until its first cut a child's watermark is its parents'.
    let on_its_own = |child: &LeaseRow| child.manifest.is_some() && (child.cut.is_some() || !is_input);
    over && !unborn && !row.parents.iter().any(has_row) && children(row, rows).all(on_its_own)
}

/// Whether every part of a state is also in a living manifest, but for those that the children copied.
async fn lives_on(
    chunks: &Chunks,
    manifest: &Manifest,
    living: &[Manifest],
    copied: impl Fn(&str) -> bool,
) -> Result<bool, ChunkError> {
    let parts = chunks.parts(manifest).await?.into_iter().map(|part| part.key);
    let mut missing: BTreeSet<String> = parts.filter(|key| !copied(key)).collect();
    for other in living {
        if missing.is_empty() {
            break;
        }
        for part in chunks.parts(other).await? {
            missing.remove(&part.key);
        }
    }
    Ok(missing.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::new_row;
    use crate::shard::HashRange;
    use crate::table::Item;

    fn row(id: &str, parents: &[&str], change: impl FnOnce(Item) -> Item) -> LeaseRow {
        let parents = parents.iter().map(|id| ShardId::new(*id)).collect();
        let shard = Shard { id: ShardId::new(id), parents, range: HashRange::ALL, closed: false };
        let item = new_row(&shard, &Checkpoint::TrimHorizon, 0);
        LeaseRow::read(&change(item)).unwrap().unwrap()
    }

    fn ended(item: Item) -> Item {
        item.with(attribute::CHECKPOINT, Value::string("SHARD_END"))
    }

    fn committed(item: Item) -> Item {
        item.with(attribute::MANIFEST, Value::B(Manifest::new("TRIM_HORIZON".into(), vec![]).encode_bytes()))
    }

    #[test]
    fn a_row_stays_while_its_child_or_its_parent_or_the_stream_needs_it() {
        let done = |rows: &[LeaseRow], listed: &[&str]| {
            let listed: Vec<ShardId> = listed.iter().map(|id| ShardId::new(*id)).collect();
            is_done(&rows[1], rows, &listed.iter().collect(), false)
        };
        let (parent, shard) = (row("0", &[], ended), row("1", &["0"], ended));
        let (young, grown) = (row("2", &["1"], |item| item), row("2", &["1"], committed));
        let other = row("9", &[], committed);
        assert!(done(&[other.clone(), shard.clone(), grown.clone()], &["2"]));
        assert!(!done(&[other.clone(), shard.clone(), grown.clone()], &["1", "2"]), "still listed");
        assert!(!done(&[parent, shard.clone(), grown.clone()], &["2"]), "its parent's row is there");
        assert!(!done(&[other.clone(), shard, young], &["2"]), "the child has nothing of its own");
        let running = row("1", &["0"], |item| item);
        assert!(!done(&[other, running, grown], &["2"]), "not consumed");
    }
}
