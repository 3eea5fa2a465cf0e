//! A worker's way to tables and streams: every call takes a while, and none returns once the worker was killed.
//!
//! It also sorts the state table's items by what they are for, so that each kind's cost stands by itself: the meter
//! sees `STATE#beats` and the like. Nothing reads that table as a whole, so parting it changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flowshift_consumer::log::{Entry, Log, LogError, Page, ReadToken, StreamId};
use flowshift_consumer::shard::{Position, SequenceNumber, Shard, ShardId};
use flowshift_consumer::table::{Condition, Item, Table, TableError, TableName, Update};

/// One answer of DynamoDB.
const TABLE: Duration = Duration::from_millis(5);
/// What a scan takes longer for every thousand rows (about a page of 1 MB).
const SCAN_PER_1000: Duration = Duration::from_millis(40);
/// One answer of Kinesis.
const LOG: Duration = Duration::from_millis(15);

/// One worker's way.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) table: Arc<dyn Table>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) state: TableName,
    /// Calls never return from now on: kill -9, seen from outside.
    pub(crate) dead: AtomicBool,
}

impl Port {
    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// The part of the state table an item belongs to.
    fn part(&self, table: &TableName, key: &str) -> TableName {
        if *table != self.state {
            return table.clone();
        }
        let kind = match key.split('/').next().unwrap_or_default() {
            "leader" | "worker" | "workers" | "fleet" => "beats",
            "control" => "control",
            "snapshot" => "once",
            _ if key.ends_with("/epoch") => "once",
            _ => chunk(key),
        };
        TableName { name: format!("{}#{kind}", table.name), key: table.key }
    }
}

/// What a chunk belongs to, and whether it is a delta: `…/PART/PLACE/INDEX`.
fn chunk(key: &str) -> &'static str {
    let mut names = key.rsplit('/').skip(1);
    let (place, part) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    match (part.split(['-', '@']).next().unwrap_or_default(), place.starts_with('d')) {
        ("lane", true) => "chunks lane delta",
        ("lane", false) => "chunks lane base",
        ("marks", true) => "chunks marks delta",
        ("marks", false) => "chunks marks base",
        ("directory", _) => "chunks directory",
        ("shardId", _) => "chunks source",
        _ => "chunks other",
    }
}

/// Every kind of [`chunk`].
pub(crate) const CHUNKS: [&str; 7] = [
    "chunks lane delta",
    "chunks lane base",
    "chunks marks delta",
    "chunks marks base",
    "chunks directory",
    "chunks source",
    "chunks other",
];

#[async_trait::async_trait]
impl Table for Port {
    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        self.table.ensure(table).await
    }

    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        self.wait(TABLE).await;
        self.table.get(&self.part(table, key), key).await
    }

    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        self.wait(TABLE).await;
        let table = self.part(table, item.string(table.key).unwrap_or_default());
        self.table.put(&table, item, condition).await
    }

    async fn update(
        &self,
        table: &TableName,
        key: &str,
        update: Update,
        condition: Condition,
    ) -> Result<(), TableError> {
        self.wait(TABLE).await;
        self.table.update(&self.part(table, key), key, update, condition).await
    }

    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        self.wait(TABLE).await;
        self.table.delete(&self.part(table, key), key, condition).await
    }

    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        let items = self.table.scan(table).await?;
        let thousands = u32::try_from(items.len() / 1000).unwrap_or(u32::MAX);
        self.wait(TABLE + SCAN_PER_1000 * thousands).await;
        Ok(items)
    }
}

#[async_trait::async_trait]
impl Log for Port {
    async fn identify(&self, stream: &str) -> Result<StreamId, LogError> {
        self.log.identify(stream).await
    }

    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, LogError> {
        self.wait(LOG).await;
        self.log.shards(stream).await
    }

    async fn seek(&self, stream: &str, shard: &ShardId, position: &Position) -> Result<ReadToken, LogError> {
        self.wait(LOG).await;
        self.log.seek(stream, shard, position).await
    }

    async fn read(&self, stream: &str, token: &ReadToken) -> Result<Page, LogError> {
        self.wait(LOG).await;
        self.log.read(stream, token).await
    }

    async fn append(&self, stream: &str, entries: &[Entry]) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError> {
        self.wait(LOG).await;
        self.log.append(stream, entries).await
    }
}
