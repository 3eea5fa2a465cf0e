//! Tables that a killed worker can no longer reach.

use std::sync::Arc;

use flowshift_consumer::table::memory::MemoryTable;
use flowshift_consumer::table::{Condition, Item, Table, TableError, TableName, Update};
use tokio_util::sync::CancellationToken;

/// A worker's way to the tables, which ends with it: kill -9, seen from outside. Without it a dead worker's leader and
/// beats would go on.
#[derive(Debug)]
pub(crate) struct Mortal {
    pub(crate) table: Arc<MemoryTable>,
    pub(crate) dead: CancellationToken,
}

impl Mortal {
    async fn alive(&self) {
        if self.dead.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait::async_trait]
impl Table for Mortal {
    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        self.alive().await;
        self.table.ensure(table).await
    }
    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        self.alive().await;
        self.table.get(table, key).await
    }
    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        self.alive().await;
        self.table.put(table, item, condition).await
    }
    async fn update(&self, table: &TableName, key: &str, update: Update, when: Condition) -> Result<(), TableError> {
        self.alive().await;
        self.table.update(table, key, update, when).await
    }
    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        self.alive().await;
        self.table.delete(table, key, condition).await
    }
    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        self.alive().await;
        self.table.scan(table).await
    }
}
