//! How far lanes may have closed by the word of sources whose rows are gone.
//!
//! A source that comes back when nobody is live must not speak of what lanes have closed, and the one that went
//! furthest may have ended and been cleaned up since. Its watermarks are noted before its row is deleted; they only
//! grow. Not here: what a floor is made of ([`super::back`]).

use crate::lease::LeaseRow;
use crate::table::{Condition, Table, TableError, TableName, Update, Value};

/// The item of the state table.
const KEY: &str = "passed";
/// The furthest watermark by feed kind, event time in milliseconds.
const WATERMARKS: [&str; 4] = ["w0", "w1", "w2", "w3"];

/// Notes how far a source went whose row is about to go.
pub(crate) async fn note(table: &dyn Table, state: &TableName, row: &LeaseRow) -> Result<(), TableError> {
    for (kind, name) in WATERMARKS.into_iter().enumerate() {
        let cut = row.cut.as_ref().and_then(|cut| cut.watermarks.get(kind).copied());
        let Some(mark) = cut.max(row.floor[kind]).filter(|mark| *mark > i64::MIN) else { continue };
        let further = Condition::Any(vec![Condition::Absent(name), Condition::Below(name, mark)]);
        match table.update(state, KEY, Update::new().set(name, Value::number(mark)), further).await {
            Ok(()) | Err(TableError::Conflict { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The furthest watermark noted, by feed kind.
pub(super) async fn read(table: &dyn Table, state: &TableName) -> Result<[Option<i64>; 4], TableError> {
    let item = table.get(state, KEY).await?;
    Ok(WATERMARKS.map(|name| item.as_ref().and_then(|item| item.number(name))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Cut;
    use crate::lease::{Checkpoint, attribute, new_row};
    use crate::run::Tables;
    use crate::shard::{HashRange, Shard, ShardId};
    use crate::table::memory::MemoryTable;

    fn row(watermarks: Vec<i64>, floor: Option<i64>) -> LeaseRow {
        let shard = Shard { id: ShardId::new("0"), parents: vec![], range: HashRange::ALL, closed: true };
        let cut = Cut { epoch: 1, n: 3, end: true, watermarks, ..Cut::default() };
        let mut item = new_row(&shard, &Checkpoint::ShardEnd, 0).with(attribute::CUT, Value::B(cut.encode_bytes()));
        if let Some(floor) = floor {
            item.set(attribute::FLOOR[1], Value::number(floor));
        }
        LeaseRow::read(&item).unwrap().unwrap()
    }

    #[tokio::test]
    async fn what_was_noted_only_grows_by_kind() {
        let (table, state) = (MemoryTable::default(), Tables::new("test").state());
        assert_eq!(read(&table, &state).await.unwrap(), [None; 4]);
        note(&table, &state, &row(vec![70, i64::MIN], None)).await.unwrap();
        assert_eq!(read(&table, &state).await.unwrap(), [Some(70), None, None, None]);
        note(&table, &state, &row(vec![50, 20], Some(30))).await.unwrap();
        note(&table, &state, &row(vec![60, 10], None)).await.unwrap();
        assert_eq!(read(&table, &state).await.unwrap(), [Some(70), Some(30), None, None]);
    }
}
