//! Tables in memory, with the same conditions, for simulations and tests.
//!
//! A call takes effect at one moment under one lock, which is what a single-item write is in DynamoDB. Faults are not
//! simulated here but by who wraps it (`tests/simulation/port.rs`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Condition, Item, Table, TableError, TableName, Update, Value};

type Rows = BTreeMap<String, Item>;

/// Tables in memory. Each call is atomic; nothing is ever throttled.
#[derive(Debug, Default)]
pub struct MemoryTable {
    tables: Mutex<BTreeMap<String, Rows>>,
}

impl MemoryTable {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Rows>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(
        &self,
        table: &TableName,
        key: &str,
        condition: &Condition,
        change: impl FnOnce(&mut Rows),
    ) -> Result<(), TableError> {
        let mut tables = self.lock();
        let rows = tables.entry(table.name.clone()).or_default();
        let current = rows.get(key);
        if !condition.holds(current) {
            return Err(TableError::Conflict { current: current.cloned().map(Box::new) });
        }
        change(rows);
        Ok(())
    }
}

#[async_trait::async_trait]
impl Table for MemoryTable {
    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        self.lock().entry(table.name.clone()).or_default();
        Ok(())
    }

    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        Ok(self.lock().get(&table.name).and_then(|rows| rows.get(key)).cloned())
    }

    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        let Some(key) = item.string(table.key).map(str::to_owned) else {
            return Err(TableError::Invalid(format!("item without key attribute {}", table.key)));
        };
        self.write(table, &key.clone(), &condition, |rows| {
            rows.insert(key, item);
        })
    }

    async fn update(
        &self,
        table: &TableName,
        key: &str,
        update: Update,
        condition: Condition,
    ) -> Result<(), TableError> {
        self.write(table, key, &condition, |rows| {
            let fresh = || Item::new().with(table.key, Value::string(key));
            update.apply(rows.entry(key.to_owned()).or_insert_with(fresh));
        })
    }

    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        self.write(table, key, &condition, |rows| {
            rows.remove(key);
        })
    }

    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        Ok(self.lock().get(&table.name).map(|rows| rows.values().cloned().collect()).unwrap_or_default())
    }
}
