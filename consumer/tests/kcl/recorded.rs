//! The table seam, with every version of a lease row that a write made kept: a look from outside would miss some.

use std::sync::{Arc, Mutex};

use flowshift_consumer::lease::attribute;
use flowshift_consumer::table::{Condition, Item, Table, TableError, TableName, Update};

use super::rows::{self, Versions};
use super::services::Services;

/// DynamoDB, recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    inner: Arc<dyn Table>,
    dynamodb: aws_sdk_dynamodb::Client,
    versions: Arc<Mutex<Versions>>,
}

impl Recorded {
    /// Records all lease rows written through it.
    pub(crate) fn new(services: &Services, versions: Arc<Mutex<Versions>>) -> Self {
        Self { inner: services.table(), dynamodb: services.dynamodb.clone(), versions }
    }

    async fn note(&self, table: &TableName, key: &str) {
        if table.key == attribute::KEY {
            let key = aws_sdk_dynamodb::types::AttributeValue::S(key.to_owned());
            let read = self.dynamodb.get_item().table_name(&table.name).key(attribute::KEY, key);
            let read = read.consistent_read(true).send().await.unwrap();
            read.item.into_iter().for_each(|item| rows::note(&self.versions, rows::to_row(item)));
        }
    }
}

#[async_trait::async_trait]
impl Table for Recorded {
    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        self.inner.ensure(table).await
    }

    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        self.inner.get(table, key).await
    }

    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        let key = item.string(table.key).unwrap_or_default().to_owned();
        self.inner.put(table, item, condition).await?;
        self.note(table, &key).await;
        Ok(())
    }

    async fn update(&self, table: &TableName, key: &str, update: Update, when: Condition) -> Result<(), TableError> {
        self.inner.update(table, key, update, when).await?;
        self.note(table, key).await;
        Ok(())
    }

    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        self.inner.delete(table, key, condition).await
    }

    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        self.inner.scan(table).await
    }
}
