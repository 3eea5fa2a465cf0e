//! Tables of tests: every call goes on to another table, but for what the test is about.
//!
//! Implement [`Around`] by its path and do not import it: its calls have the names of those of [`Table`], which it
//! makes.

use std::fmt::Debug;

use super::{Condition, Item, Table, TableError, TableName, Update};

/// A table in front of another.
#[async_trait::async_trait]
pub(crate) trait Around: Send + Sync + Debug {
    /// Where calls go.
    fn inner(&self) -> &dyn Table;

    /// Happens before every call on items.
    async fn reach(&self) {}

    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        self.inner().get(table, key).await
    }

    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        self.inner().put(table, item, condition).await
    }

    async fn update(&self, table: &TableName, key: &str, update: Update, c: Condition) -> Result<(), TableError> {
        self.inner().update(table, key, update, c).await
    }

    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        self.inner().scan(table).await
    }
}

#[async_trait::async_trait]
impl<T: Around> Table for T {
    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        self.inner().ensure(table).await
    }

    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        self.reach().await;
        Around::get(self, table, key).await
    }

    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        self.reach().await;
        Around::put(self, table, item, condition).await
    }

    async fn update(&self, table: &TableName, key: &str, update: Update, c: Condition) -> Result<(), TableError> {
        self.reach().await;
        Around::update(self, table, key, update, c).await
    }

    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        self.reach().await;
        self.inner().delete(table, key, condition).await
    }

    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        self.reach().await;
        Around::scan(self, table).await
    }
}
