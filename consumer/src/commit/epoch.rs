//! Epochs that outlive lease rows: the highest one ever used per source or lane.
//!
//! Raised by a conditional update before the first cut or chunk is put under a row without a valid cut of its own, so
//! a row that was deleted and made again can never speak with an old number.

use std::sync::Arc;

use crate::log::StreamId;
use crate::table::{Condition, Table, TableError, TableName, Update, Value};

const ATTRIBUTE: &str = "epoch";
/// 1 once a source has cut, or was about to cut, its first batch.
const SPOKEN: &str = "spoken";

/// The epochs of one stream.
#[derive(Debug, Clone)]
pub struct Epochs {
    table: Arc<dyn Table>,
    name: TableName,
    stream: StreamId,
}

impl Epochs {
    /// Epochs of `stream` in the state table `name`.
    pub fn new(table: Arc<dyn Table>, name: TableName, stream: StreamId) -> Self {
        Self { table, name, stream }
    }

    fn key(&self, part: &str) -> String {
        format!("{}/{part}/epoch", self.stream)
    }

    /// Whether a source may have cut a batch, under whatever epoch and row.
    ///
    /// # Errors
    /// The table failed.
    pub async fn has_spoken(&self, part: &str) -> Result<bool, TableError> {
        let item = self.table.get(&self.name, &self.key(part)).await?;
        Ok(item.and_then(|i| i.number(SPOKEN)) == Some(1))
    }

    /// Notes that a source is about to cut its first batch.
    ///
    /// # Errors
    /// The table failed.
    pub async fn speaks(&self, part: &str) -> Result<(), TableError> {
        let update = Update::new().set(SPOKEN, Value::number(1));
        self.table.update(&self.name, &self.key(part), update, Condition::None).await
    }

    /// Raises all of `parts` to one epoch above every epoch they and `floor` ever had, and returns it.
    ///
    /// # Errors
    /// The table failed.
    pub async fn raise(&self, parts: &[String], floor: u64) -> Result<u64, TableError> {
        let mut highest = floor;
        for part in parts {
            let item = self.table.get(&self.name, &self.key(part)).await?;
            let epoch = item.and_then(|i| i.number(ATTRIBUTE)).and_then(|e| u64::try_from(e).ok());
            highest = highest.max(epoch.unwrap_or_default());
        }
        'all: loop {
            let epoch = i64::try_from(highest + 1).unwrap_or(i64::MAX);
            for part in parts {
                let update = Update::new().set(ATTRIBUTE, Value::number(epoch));
                let lower = Condition::Any(vec![Condition::Absent(ATTRIBUTE), Condition::Below(ATTRIBUTE, epoch)]);
                match self.table.update(&self.name, &self.key(part), update, lower).await {
                    Ok(()) => {}
                    Err(TableError::Conflict { .. }) => {
                        highest += 1;
                        continue 'all;
                    }
                    Err(e) => return Err(e),
                }
            }
            return Ok(highest + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::STATE_KEY;
    use crate::table::memory::MemoryTable;

    #[tokio::test]
    async fn an_epoch_is_never_used_twice_even_by_parts_that_start_apart() {
        let stream = StreamId { name: "flows".into(), created_ms: 7 };
        let name = TableName { name: "state".into(), key: STATE_KEY };
        let epochs = Epochs::new(Arc::new(MemoryTable::default()), name, stream);
        let (a, b) = ("lane-a".to_owned(), "lane-b".to_owned());
        assert_eq!(epochs.raise(std::slice::from_ref(&a), 0).await.unwrap(), 1);
        assert_eq!(epochs.raise(std::slice::from_ref(&a), 0).await.unwrap(), 2);
        assert_eq!(epochs.raise(&[a.clone(), b.clone()], 0).await.unwrap(), 3);
        assert_eq!(epochs.raise(&[b], 9).await.unwrap(), 10);
        assert_eq!(epochs.raise(&[a], 0).await.unwrap(), 4);
    }
}
