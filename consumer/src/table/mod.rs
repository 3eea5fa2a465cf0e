//! The key-value seam: making a table (CreateTable, DescribeTable) and the five calls on its items that the engine
//! needs, and nothing else of DynamoDB.
//!
//! Everything the engine promises rests on one property of this seam: a write with a [`Condition`] is atomic per item
//! and, when it is refused, says what stands there ([`TableError::Conflict`]). No transactions, no counters, no TTL.
//! [`aws::DynamoTable`] speaks to DynamoDB; [`memory::MemoryTable`] is the same rules in memory for simulations;
//! [`metered::Metered`] says what calls on any of them cost.

#[cfg(test)]
pub(crate) mod around;
pub mod aws;
mod condition;
pub mod memory;
pub mod metered;
mod value;

use std::fmt;

pub use condition::{Condition, Update};
pub use value::{Item, Value};

/// One table: its name and the name of its (only) key attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// Table name in DynamoDB.
    pub name: String,
    /// Hash key attribute, always a string; there is no range key.
    pub key: &'static str,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why a call on a table failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TableError {
    /// The condition did not hold; `current` is the item as it stands (none: there is no such item).
    #[error("condition refused the write")]
    Conflict {
        /// What stood there when the write was refused.
        current: Option<Box<Item>>,
    },
    /// The table refused for capacity. Nothing was written.
    #[error("throttled by the table")]
    Throttled,
    /// No answer, or an answer of 5xx: the write may or may not have been applied.
    #[error("table unavailable: {0}")]
    Unavailable(String),
    /// There is no such table.
    #[error("no such table: {0}")]
    NotFound(String),
    /// The request is wrong and will stay wrong.
    #[error("table refused the request: {0}")]
    Invalid(String),
}

impl TableError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable(_))
    }
}

/// The calls the engine makes. Reads are strongly consistent.
#[async_trait::async_trait]
pub trait Table: Send + Sync + fmt::Debug {
    /// Makes the table if it does not exist (on-demand billing) and waits until it is usable.
    async fn ensure(&self, table: &TableName) -> Result<(), TableError>;
    /// The item under `key`, if there is one.
    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError>;
    /// Replaces the whole item when `condition` holds of the one that stands there.
    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError>;
    /// Changes named attributes (making the item if it is absent and the condition allows it).
    async fn update(
        &self,
        table: &TableName,
        key: &str,
        update: Update,
        condition: Condition,
    ) -> Result<(), TableError>;
    /// Removes the item when `condition` holds.
    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError>;
    /// All items, in no particular order. Cost: reads the whole table; meant for lease tables.
    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError>;
}
