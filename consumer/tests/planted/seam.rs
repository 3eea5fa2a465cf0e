//! Bugs planted between the workers and their tables.

use std::sync::Arc;

use flowshift_consumer::commit::Manifest;
use flowshift_consumer::lease::attribute;
use flowshift_consumer::table::{Condition, Item, Table, TableError, TableName, Update, Value};

#[derive(Debug, Clone, Copy)]
enum Bug {
    /// A commit is written whoever owns the row by now.
    NoFence,
    /// A commit of an input shard moves the state and leaves the checkpoint where it was.
    NoCheckpoint,
}

#[derive(Debug)]
struct Seam {
    table: Arc<dyn Table>,
    bug: Bug,
}

pub(crate) fn without_fence(table: Arc<dyn Table>) -> Arc<dyn Table> {
    Arc::new(Seam { table, bug: Bug::NoFence })
}

pub(crate) fn without_checkpoint(table: Arc<dyn Table>) -> Arc<dyn Table> {
    Arc::new(Seam { table, bug: Bug::NoCheckpoint })
}

impl Seam {
    /// The commit as the bug writes it: consistent in itself, so that no check of the reader sees it.
    async fn leave_checkpoint(&self, table: &TableName, key: &str, update: &mut Update) -> Result<(), TableError> {
        let row = self.table.get(table, key).await?;
        let stands = row.as_ref().and_then(|row| row.string(attribute::CHECKPOINT)).unwrap_or_default().to_owned();
        let moved = |name: &str, value: &Value| name == attribute::CHECKPOINT && *value == Value::string("SHARD_END");
        if !table.name.ends_with("-input") || update.set.iter().any(|(name, value)| moved(name, value)) {
            return Ok(());
        }
        for (name, value) in &mut update.set {
            match value {
                Value::S(_) if *name == attribute::CHECKPOINT => *value = Value::string(stands.clone()),
                Value::B(bytes) if *name == attribute::MANIFEST => {
                    let mut manifest = Manifest::decode(bytes).unwrap();
                    manifest.checkpoint.clone_from(&stands);
                    *value = Value::B(manifest.encode_bytes());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Table for Seam {
    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        self.table.ensure(table).await
    }
    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        self.table.get(table, key).await
    }
    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        self.table.put(table, item, condition).await
    }
    async fn update(
        &self,
        table: &TableName,
        key: &str,
        mut update: Update,
        mut condition: Condition,
    ) -> Result<(), TableError> {
        let commits = update.set.iter().any(|(name, _)| *name == attribute::MANIFEST);
        match self.bug {
            Bug::NoFence if commits => condition = Condition::Exists(attribute::KEY),
            Bug::NoCheckpoint if commits => self.leave_checkpoint(table, key, &mut update).await?,
            _ => {}
        }
        self.table.update(table, key, update, condition).await
    }
    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        self.table.delete(table, key, condition).await
    }
    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        self.table.scan(table).await
    }
}
