//! Watches every write that takes effect: a row is committed by its owner alone, and its numbers only grow.
//!
//! Below the faults, so that what it sees is what stands in the table. The memory table never yields inside a call, so
//! reading before and after a write is one step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use flowshift_consumer::commit::{Chunks, Part};
use flowshift_consumer::exchange::Status;
use flowshift_consumer::lease::{Checkpoint, LeaseRow, attribute};
use flowshift_consumer::log::memory::MemoryLog;
use flowshift_consumer::log::{Log, StreamId};
use flowshift_consumer::shard::ShardId;
use flowshift_consumer::table::memory::MemoryTable;
use flowshift_consumer::table::{Condition, Item, Table, TableError, TableName, Update};

use super::Violations;
use super::account::{Floor, Floors};
use super::job::KINDS;
use super::world::{EPOCH_MS, INPUT, tables};

/// What outlives rows.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The last cut ever seen of a shard, by (table, shard): epoch, number, bytes.
    cuts: BTreeMap<(String, String), (u64, u64, Vec<u8>)>,
    /// The last committed generation of a part, by (table, part): epoch, counter, generation, checksum.
    parts: BTreeMap<(String, String), (u64, i64, u64, u32)>,
    /// Shards that were read to their end, by (table, shard). A first row whose put lands late makes none of them
    /// young.
    ended: BTreeSet<(String, String)>,
    /// Floors that sources of the input were given.
    pub(crate) floors: Floors,
    /// Sources of the input that the leader put out, with the kind, one for each time.
    pub(crate) put_out: Vec<(ShardId, usize)>,
}

/// One worker's view of the tables, watched.
#[derive(Debug)]
pub(crate) struct Audited {
    pub(crate) table: Arc<MemoryTable>,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) worker: String,
    pub(crate) violations: Violations,
    pub(crate) books: Books,
}

/// The books of all workers.
pub(crate) type Books = Arc<Mutex<Ledger>>;

fn rank(checkpoint: &Checkpoint) -> (u8, Option<&flowshift_consumer::shard::SequenceNumber>) {
    match checkpoint {
        Checkpoint::At(sequence) => (1, Some(sequence)),
        Checkpoint::ShardEnd => (2, None),
        _ => (0, None),
    }
}

fn book(table: &TableName, row: &LeaseRow) -> (String, String) {
    (table.name.clone(), row.shard.as_str().to_owned())
}

impl Audited {
    async fn look(&self, table: &TableName, key: &str) -> Option<Item> {
        self.table.get(table, key).await.ok().flatten()
    }

    async fn compare(&self, table: &TableName, key: &str, before: Option<Item>) {
        let Some(after) = self.look(table, key).await else { return };
        let said = if table.key == attribute::KEY {
            self.row(table, before.as_ref(), &after).await
        } else {
            chunk(before.as_ref(), &after)
        };
        if let Err(what) = said {
            self.violations.note(format!("{} wrote {key} of {table}: {what}", self.worker));
        }
    }

    async fn row(&self, table: &TableName, before: Option<&Item>, after: &Item) -> Result<(), String> {
        let read = |item: &Item| LeaseRow::read(item).map_err(|e| e.to_string());
        let Some(new) = read(after)? else { return Ok(()) };
        let Some(old) = before.map(read).transpose()?.flatten() else { return Ok(()) };
        if new.counter < old.counter {
            return Err(format!("counter went from {} to {}", old.counter, new.counter));
        }
        if table.name == tables().leases(INPUT).name {
            self.claim(table, &old, &new).await?;
            let given = Floor::of_write(&old, &new);
            let out = |kind: &usize| old.status[*kind] == Status::Live && new.status[*kind] == Status::Idle;
            let mut ledger = self.books.lock().unwrap();
            ledger.floors.entry(new.shard.clone()).or_default().extend(given);
            ledger.put_out.extend((0..KINDS).filter(out).map(|kind| (new.shard.clone(), kind)));
        }
        let committed = [attribute::CHECKPOINT, attribute::MANIFEST, attribute::CUT, attribute::PENDING];
        let committed = committed.iter().any(|name| before.and_then(|b| b.get(name)) != after.get(name));
        if !committed {
            return Ok(());
        }
        let owner = old.checkpoint_owner.as_ref().or(old.owner.as_ref());
        if owner.map(String::as_str) != Some(self.worker.as_str()) {
            return Err(format!("commits while the owner is {owner:?}"));
        }
        if new.counter == old.counter {
            return Err("commits without raising the counter".into());
        }
        if rank(&new.checkpoint) < rank(&old.checkpoint) {
            return Err(format!("checkpoint went from {} back to {}", old.checkpoint, new.checkpoint));
        }
        for parent in &new.parents {
            let item = self.look(table, parent.as_str()).await;
            let parent = item.as_ref().map(read).transpose()?.flatten();
            let open = |p: &LeaseRow| p.checkpoint != Checkpoint::ShardEnd && !self.has_ended(table, p);
            if let Some(parent) = parent.filter(open) {
                return Err(format!("commits before its parent {} has ended", parent.shard));
            }
        }
        if new.checkpoint == Checkpoint::ShardEnd {
            self.books.lock().unwrap().ended.insert(book(table, &new));
        }
        if let Some(manifest) = &new.manifest {
            let named = self.chunks(table).parts(manifest).await;
            self.parts(table, &named.map_err(|e| format!("its directory cannot be read: {e}"))?)?;
        }
        self.cut(table, &new)
    }

    /// Who starts an epoch is out only where lanes may have gone past what it starts with: lanes that never heard of it
    /// wait at its parents' ends.
    async fn claim(&self, table: &TableName, old: &LeaseRow, new: &LeaseRow) -> Result<(), String> {
        let left = |kind: &usize| old.status[*kind] == Status::Live && new.status[*kind] == Status::Idle;
        let Some(kind) = (0..KINDS).find(left).filter(|_| new.epoch != old.epoch) else { return Ok(()) };
        for parent in &new.parents {
            let item = self.look(table, parent.as_str()).await;
            let parent = item.and_then(|item| LeaseRow::read(&item).ok().flatten());
            if parent.is_some_and(|parent| parent.status[kind] != Status::Live) {
                return Ok(());
            }
        }
        match self.books.lock().unwrap().cuts.contains_key(&book(table, new)) {
            true => Ok(()),
            false => Err(format!("it goes out for kind {kind} and has never cut a batch")),
        }
    }

    /// A row goes only when the stream no longer has the shard and every child has what it needs.
    async fn deleted(&self, table: &TableName, row: &Item) -> Result<(), String> {
        let read = |item: &Item| LeaseRow::read(item).map_err(|e| e.to_string());
        let Some(row) = read(row)? else { return Ok(()) };
        let again = row.owner.is_none() && row.manifest.is_none() && self.has_ended(table, &row);
        if row.checkpoint != Checkpoint::ShardEnd && !again {
            return Err(format!("it was read up to {}", row.checkpoint));
        }
        let stream = table.name.rsplit('-').next().unwrap_or_default();
        if self.log.shards(stream).await.map_err(|e| e.to_string())?.iter().any(|shard| shard.id == row.shard) {
            return Err("the stream still has it".into());
        }
        for item in self.table.scan(table).await.map_err(|e| e.to_string())? {
            let Some(child) = read(&item)?.filter(|child| child.parents.contains(&row.shard)) else { continue };
            if child.manifest.is_none() || stream == INPUT && child.cut.is_none() {
                return Err(format!("its child {} has no state of its own", child.shard));
            }
        }
        Ok(())
    }

    fn has_ended(&self, table: &TableName, row: &LeaseRow) -> bool {
        self.books.lock().unwrap().ended.contains(&book(table, row))
    }

    fn chunks(&self, leases: &TableName) -> Chunks {
        let name = leases.name.rsplit('-').next().unwrap_or_default().to_owned();
        let table: Arc<dyn Table> = self.table.clone();
        Chunks::new(table, tables().state(), StreamId { name, created_ms: EPOCH_MS })
    }

    /// A lane's generation is committed once, with one content, under fences that only grow.
    fn parts(&self, table: &TableName, named: &[Part]) -> Result<(), String> {
        let mut ledger = self.books.lock().unwrap();
        for part in named {
            let now = (part.epoch, part.counter, part.generation, part.crc);
            let last = ledger.parts.insert((table.name.clone(), part.key.clone()), now);
            let Some(last) = last else { continue };
            let order = |p: (u64, i64, u64, u32)| (p.0, p.1, p.2);
            if order(now) < order(last) || order(now) == order(last) && now.3 != last.3 {
                return Err(format!("part {} of fence and generation {now:?} committed after {last:?}", part.key));
            }
        }
        Ok(())
    }

    /// Numbers of an epoch come one by one, each with one content; an epoch that is over never speaks again.
    fn cut(&self, table: &TableName, row: &LeaseRow) -> Result<(), String> {
        let Some(cut) = &row.cut else { return Ok(()) };
        let bytes = cut.encode_bytes().to_vec();
        let mut ledger = self.books.lock().unwrap();
        let key = book(table, row);
        let last = ledger.cuts.insert(key, (cut.epoch, cut.n, bytes.clone()));
        let Some((epoch, n, before)) = last else { return Ok(()) };
        match () {
            () if cut.epoch == epoch && cut.n == n && bytes != before => Err(format!("batch {n} was cut twice")),
            () if cut.epoch == epoch && cut.n != n && cut.n != n + 1 => Err(format!("batch {} cut after {n}", cut.n)),
            () if cut.epoch > epoch && cut.n != 1 => Err(format!("epoch {} begins with batch {}", cut.epoch, cut.n)),
            () if cut.epoch < epoch => Err(format!("epoch {} speaks after epoch {epoch}", cut.epoch)),
            () => Ok(()),
        }
    }
}

/// A chunk's fence (epoch, counter) and generation only grow.
fn chunk(before: Option<&Item>, after: &Item) -> Result<(), String> {
    let fence = |item: &Item| Some((item.number("e")?, item.number("c")?, item.number("g")?));
    match (before.and_then(fence), fence(after)) {
        (Some(old), Some(new)) if new < old => Err(format!("fence and generation went from {old:?} to {new:?}")),
        _ => Ok(()),
    }
}

#[async_trait::async_trait]
impl Table for Audited {
    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        self.table.ensure(table).await
    }
    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        self.table.get(table, key).await
    }
    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        let key = item.string(table.key).unwrap_or_default().to_owned();
        let before = self.look(table, &key).await;
        self.table.put(table, item, condition).await?;
        self.compare(table, &key, before).await;
        Ok(())
    }
    async fn update(
        &self,
        table: &TableName,
        key: &str,
        update: Update,
        condition: Condition,
    ) -> Result<(), TableError> {
        let before = self.look(table, key).await;
        self.table.update(table, key, update, condition).await?;
        self.compare(table, key, before).await;
        Ok(())
    }
    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        let before = self.look(table, key).await;
        self.table.delete(table, key, condition).await?;
        if let (Some(before), true) = (before, table.key == attribute::KEY)
            && let Err(what) = self.deleted(table, &before).await
        {
            self.violations.note(format!("{} deleted {key} of {table}: {what}", self.worker));
        }
        Ok(())
    }
    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        self.table.scan(table).await
    }
}
