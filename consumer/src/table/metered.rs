//! What calls on a table cost: DynamoDB's capacity units, computed from item sizes by its documented rule.
//!
//! For cost programs and tests over any [`Table`], the one in memory above all; on AWS the service says itself what it
//! used (`aws.rs`). A write costs the larger of the item before and after, in steps of 1 KiB; a refused one what stands
//! there; a strongly consistent read steps of 4 KiB, a scan those of all items together. Nothing is below one unit.
//!
//! Invariant: a call goes to the inner table once and unchanged. The sizes before a write are those this value has
//! seen, so all writers must go through it. A call that failed otherwise than by its condition costs nothing here: put
//! faults above, not below.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Condition, Item, Table, TableError, TableName, Update, Value};

/// Bytes per write unit.
const WRITE_UNIT: usize = 1024;
/// Bytes per unit of strongly consistent reading.
const READ_UNIT: usize = 4096;
/// Storage that DynamoDB bills per item beside its attributes.
const ITEM_OVERHEAD: usize = 100;

/// Write units of an item (or the larger of two) of this many bytes.
pub fn write_units(bytes: usize) -> u64 {
    bytes.div_ceil(WRITE_UNIT).max(1) as u64
}

/// Read units of a strongly consistent read of this many bytes.
pub fn read_units(bytes: usize) -> u64 {
    bytes.div_ceil(READ_UNIT).max(1) as u64
}

/// The calls that cost capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// GetItem.
    Get,
    /// PutItem.
    Put,
    /// UpdateItem.
    Update,
    /// DeleteItem.
    Delete,
    /// Scan, all its pages.
    Scan,
}

/// What one kind of call on one table came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Calls that were answered.
    pub calls: u64,
    /// Of those, writes that their condition refused.
    pub refused: u64,
    /// Bytes of the items written or read.
    pub bytes: u64,
    /// Read capacity units.
    pub read_units: u64,
    /// Write capacity units.
    pub write_units: u64,
}

impl Usage {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            refused: self.refused + other.refused,
            bytes: self.bytes + other.bytes,
            read_units: self.read_units + other.read_units,
            write_units: self.write_units + other.write_units,
        }
    }
}

/// Sizes of an item's attributes, names included.
type Shape = BTreeMap<String, usize>;

#[derive(Debug, Default)]
struct Ledger {
    usage: BTreeMap<(String, Operation), Usage>,
    items: BTreeMap<String, BTreeMap<String, Shape>>,
}

/// A table whose calls are priced.
#[derive(Debug)]
pub struct Metered {
    inner: Arc<dyn Table>,
    ledger: Mutex<Ledger>,
}

impl Metered {
    /// Prices what is asked of `inner` from now on.
    pub fn new(inner: Arc<dyn Table>) -> Self {
        Self { inner, ledger: Mutex::default() }
    }

    /// The table behind, for looks that are not to be counted.
    pub fn inner(&self) -> &dyn Table {
        &*self.inner
    }

    /// Usage since the start or the last [`Metered::reset`], by table name and operation.
    pub fn usage(&self) -> BTreeMap<(String, Operation), Usage> {
        self.lock().usage.clone()
    }

    /// Usage over all operations, by table name.
    pub fn by_table(&self) -> BTreeMap<String, Usage> {
        let mut sums: BTreeMap<String, Usage> = BTreeMap::new();
        for ((table, _), usage) in &self.lock().usage {
            let sum = sums.entry(table.clone()).or_default();
            *sum = sum.plus(*usage);
        }
        sums
    }

    /// Starts counting anew; what is known of the items stays.
    pub fn reset(&self) {
        self.lock().usage.clear();
    }

    /// Items and bytes that stand in a table as far as they were seen, in DynamoDB's storage billing.
    pub fn stored(&self, table: &TableName) -> (usize, usize) {
        let ledger = self.lock();
        let Some(items) = ledger.items.get(&table.name) else { return (0, 0) };
        (items.len(), items.values().map(|shape| shape.values().sum::<usize>() + ITEM_OVERHEAD).sum())
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrote(
        &self,
        table: &TableName,
        operation: Operation,
        key: &str,
        outcome: &Result<(), TableError>,
        change: impl FnOnce(Option<Shape>) -> Option<Shape>,
    ) {
        let mut ledger = self.lock();
        let items = ledger.items.entry(table.name.clone()).or_default();
        let (before, after, refused) = match outcome {
            Ok(()) => {
                let before = items.remove(key);
                let size = total(before.as_ref());
                let after = change(before);
                let new_size = total(after.as_ref());
                items.extend(after.map(|shape| (key.to_owned(), shape)));
                (size, new_size, false)
            }
            Err(TableError::Conflict { current }) => {
                items.remove(key);
                items.extend(current.as_deref().map(|item| (key.to_owned(), shape(item))));
                let size = current.as_deref().map_or(0, Item::size);
                (size, size, true)
            }
            Err(_) => return,
        };
        let larger = before.max(after);
        let usage = ledger.usage.entry((table.name.clone(), operation)).or_default();
        usage.calls += 1;
        usage.refused += u64::from(refused);
        usage.bytes += larger as u64;
        usage.write_units += write_units(larger);
    }

    fn read<'a>(&self, table: &TableName, operation: Operation, items: impl Iterator<Item = &'a Item>) {
        let mut ledger = self.lock();
        let known = ledger.items.entry(table.name.clone()).or_default();
        let mut bytes = 0;
        for item in items {
            bytes += item.size();
            let key = item.string(table.key).unwrap_or_default();
            // Usually known: the table is written through here.
            if !known.contains_key(key) {
                known.insert(key.to_owned(), shape(item));
            }
        }
        let usage = ledger.usage.entry((table.name.clone(), operation)).or_default();
        usage.calls += 1;
        usage.bytes += bytes as u64;
        usage.read_units += read_units(bytes);
    }
}

fn shape(item: &Item) -> Shape {
    item.iter().map(|(name, value)| (name.to_owned(), name.len() + value.size())).collect()
}

fn total(shape: Option<&Shape>) -> usize {
    shape.map_or(0, |shape| shape.values().sum())
}

fn updated(before: Option<Shape>, table: &TableName, key: &str, update: &Update) -> Shape {
    let fresh = || shape(&Item::new().with(table.key, Value::string(key)));
    let mut after = before.unwrap_or_else(fresh);
    for (name, value) in &update.set {
        after.insert((*name).to_owned(), name.len() + value.size());
    }
    for name in &update.remove {
        after.remove(*name);
    }
    after
}

#[async_trait::async_trait]
impl Table for Metered {
    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        self.inner.ensure(table).await
    }

    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        let item = self.inner.get(table, key).await?;
        self.read(table, Operation::Get, item.iter());
        Ok(item)
    }

    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        let (key, after) = (item.string(table.key).unwrap_or_default().to_owned(), shape(&item));
        let outcome = self.inner.put(table, item, condition).await;
        self.wrote(table, Operation::Put, &key, &outcome, |_| Some(after));
        outcome
    }

    async fn update(
        &self,
        table: &TableName,
        key: &str,
        update: Update,
        condition: Condition,
    ) -> Result<(), TableError> {
        let outcome = self.inner.update(table, key, update.clone(), condition).await;
        self.wrote(table, Operation::Update, key, &outcome, |before| Some(updated(before, table, key, &update)));
        outcome
    }

    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        let outcome = self.inner.delete(table, key, condition).await;
        self.wrote(table, Operation::Delete, key, &outcome, |_| None);
        outcome
    }

    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        let items = self.inner.scan(table).await?;
        self.read(table, Operation::Scan, items.iter());
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::table::memory::MemoryTable;

    fn name() -> TableName {
        TableName { name: "t".into(), key: "k" }
    }

    fn metered() -> Metered {
        Metered::new(Arc::new(MemoryTable::default()))
    }

    /// An item of exactly this many bytes: key attribute "k" with a one-letter key, and "d".
    fn item(bytes: usize) -> Item {
        Item::new().with("k", Value::string("x")).with("d", Value::B(Bytes::from(vec![0; bytes - 3])))
    }

    fn units(metered: &Metered, operation: Operation) -> (u64, u64) {
        let usage = metered.usage().get(&("t".to_owned(), operation)).copied().unwrap_or_default();
        (usage.read_units, usage.write_units)
    }

    #[test]
    fn sizes_are_those_dynamodb_documents() {
        for (value, size) in [
            (Value::string("äb"), 3),
            (Value::number(0), 1),
            (Value::number(7), 2),
            (Value::number(12_345), 4),
            (Value::number(1_200), 2),
            (Value::number(-42), 3),
            (Value::B(Bytes::from_static(&[1, 2, 3])), 3),
            (Value::Ss(["ab".to_owned(), "cde".to_owned()].into()), 5),
        ] {
            assert_eq!(value.size(), size, "{value:?}");
        }
        assert_eq!(item(1_000).size(), 1_000);
    }

    #[tokio::test]
    async fn a_write_costs_the_larger_of_before_and_after() {
        let metered = metered();
        metered.put(&name(), item(1_024), Condition::None).await.unwrap();
        assert_eq!(units(&metered, Operation::Put), (0, 1));
        metered.put(&name(), item(1_025), Condition::None).await.unwrap();
        assert_eq!(units(&metered, Operation::Put), (0, 1 + 2));
        metered.put(&name(), item(10), Condition::None).await.unwrap();
        assert_eq!(units(&metered, Operation::Put), (0, 1 + 2 + 2), "shrinking costs what the old one did");
        let small = Update::new().set("n", Value::number(1));
        metered.put(&name(), item(3_000), Condition::None).await.unwrap();
        metered.update(&name(), "x", small, Condition::None).await.unwrap();
        assert_eq!(units(&metered, Operation::Update), (0, 3), "an update costs the whole item");
        metered.delete(&name(), "x", Condition::None).await.unwrap();
        assert_eq!(units(&metered, Operation::Delete), (0, 3));
        assert_eq!(metered.stored(&name()), (0, 0));
    }

    #[tokio::test]
    async fn a_refused_write_costs_what_stands_there_and_at_least_one_unit() {
        let metered = metered();
        metered.put(&name(), item(2_500), Condition::Absent("k")).await.unwrap();
        metered.reset();
        assert!(metered.put(&name(), item(10), Condition::Absent("k")).await.is_err());
        assert_eq!(units(&metered, Operation::Put), (0, 3));
        assert!(metered.update(&name(), "other", Update::new(), Condition::Exists("k")).await.is_err());
        assert_eq!(units(&metered, Operation::Update), (0, 1));
        assert_eq!(metered.by_table()["t"].refused, 2);
    }

    #[tokio::test]
    async fn reads_cost_steps_of_four_kib_and_a_scan_those_of_the_sum() {
        let metered = metered();
        assert_eq!(metered.get(&name(), "x").await.unwrap(), None);
        assert_eq!(units(&metered, Operation::Get), (1, 0), "nothing there costs one");
        metered.put(&name(), item(4_097), Condition::None).await.unwrap();
        metered.get(&name(), "x").await.unwrap();
        assert_eq!(units(&metered, Operation::Get), (1 + 2, 0));
        for key in ["a", "b", "c"] {
            let row = Item::new().with("k", Value::string(key)).with("d", Value::B(Bytes::from(vec![0; 997])));
            metered.put(&name(), row, Condition::None).await.unwrap();
        }
        metered.scan(&name()).await.unwrap();
        assert_eq!(units(&metered, Operation::Scan), (2, 0), "7,097 bytes");
        assert_eq!(metered.stored(&name()), (4, 4_097 + 3 * 1_000 + 4 * ITEM_OVERHEAD));
    }
}
