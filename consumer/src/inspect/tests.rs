//! Reading beside an owner that commits at the worst moment.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::commit::{Fence, Saver};
use crate::lease::{attribute, new_row};
use crate::shard::{HashRange, Shard, ShardId};
use crate::table::memory::MemoryTable;
use crate::table::{Condition, Item, TableName, Value};

/// Bytes that have nothing in common with those of another seed.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

const FENCE: Fence = Fence { epoch: 1, counter: 1 };

fn stream() -> StreamId {
    StreamId { name: "flows".into(), created_ms: 7 }
}

fn tables() -> Tables {
    Tables::new("job")
}

/// A table whose owner commits twice before each read of a chunk, so that both places of a base are new.
#[derive(Debug)]
struct Overtaking {
    inner: Arc<MemoryTable>,
    saver: Mutex<(Saver, u8)>,
    /// Reads that are still overtaken.
    left: AtomicU32,
}

impl Overtaking {
    /// With `parts` parts committed; as many as do not fit into the row have a directory.
    async fn new(parts: usize) -> Arc<Self> {
        let inner = Arc::new(MemoryTable::default());
        let chunks = Chunks::new(inner.clone(), tables().state(), stream());
        let saver = Mutex::new((Saver::new(chunks, "s", FENCE, Vec::new(), None), 0));
        let table = Arc::new(Self { inner, saver, left: AtomicU32::new(0) });
        table.commit(parts).await;
        table
    }

    async fn commit(&self, parts: usize) {
        let (saver, seed) = &mut *self.saver.lock().await;
        *seed = seed.wrapping_add(1);
        // Nothing in common with the bytes before: a base each time.
        let bytes = |part: usize| noise(u32::from(*seed) * 1000 + u32::try_from(part).unwrap(), 200);
        let saved = (0..parts).map(|part| (format!("lane-{part:02}"), Bytes::from(bytes(part)))).collect();
        let (manifest, _) = saver.put("1".into(), saved, |_| true, &CancellationToken::new()).await.unwrap();
        saver.committed();
        let shard = Shard { id: ShardId::new("s"), parents: vec![], range: HashRange::ALL, closed: false };
        let row =
            new_row(&shard, &Checkpoint::TrimHorizon, 0).with(attribute::MANIFEST, Value::B(manifest.encode_bytes()));
        self.inner.put(&tables().leases("flows"), row, Condition::None).await.unwrap();
    }

    async fn row(&self) -> LeaseRow {
        rows(&*self.inner, &tables(), "flows").await.unwrap().remove(0)
    }

    /// From now on so many reads are overtaken.
    fn overtake(&self, reads: u32) {
        self.left.store(reads, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl crate::table::around::Around for Overtaking {
    fn inner(&self) -> &dyn Table {
        &*self.inner
    }
    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        let chunk = key.ends_with("/A/0") || key.ends_with("/B/0");
        let less = |left: u32| left.checked_sub(1);
        if chunk && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            let parts = self.saver.lock().await.0.held() as usize / 200;
            self.commit(parts).await;
            self.commit(parts).await;
        }
        self.inner.get(table, key).await
    }
}

async fn read(table: &Arc<Overtaking>, row: &LeaseRow, part: &Part) -> Result<(Part, Bytes), InspectError> {
    let seam: Arc<dyn Table> = table.clone();
    let chunks = Chunks::new(seam.clone(), tables().state(), stream());
    read_part(&seam, &tables(), &stream(), row, part, async |part: &Part| chunks.get(part).await).await
}

/// `state inspect` on a running job said \"base of generation 5, expected 3\" as if the state were damaged.
#[tokio::test]
async fn a_part_that_a_commit_overtakes_is_read_as_the_later_one() {
    let table = Overtaking::new(1).await;
    let row = table.row().await;
    let part = row.manifest.clone().unwrap().parts.remove(0);
    table.overtake(3);
    let (later, bytes) = read(&table, &row, &part).await.unwrap();
    assert!(later.generation > part.generation && bytes.len() == 200, "{later:?}");
}

/// `leases list` reads directories seconds after the rows.
#[tokio::test]
async fn a_directory_that_a_commit_overtakes_is_read_as_the_later_one() {
    let table = Overtaking::new(40).await;
    let row = table.row().await;
    assert!(row.manifest.as_ref().unwrap().directory.is_some());
    table.overtake(2);
    let seam: Arc<dyn Table> = table.clone();
    let parts = row_parts(&seam, &tables(), &stream(), &row).await.unwrap();
    assert_eq!(parts.len(), 40);
    assert!(parts.iter().all(|part| part.generation >= 3), "{parts:?}");
}

#[tokio::test]
async fn what_is_overtaken_at_every_try_is_not_called_damaged() {
    let table = Overtaking::new(1).await;
    let row = table.row().await;
    let part = row.manifest.clone().unwrap().parts.remove(0);
    table.overtake(u32::MAX);
    let told = read(&table, &row, &part).await.unwrap_err();
    assert!(matches!(&told, InspectError::Overtaken { shard } if shard == "flows/s"), "{told}");
}

#[tokio::test]
async fn what_is_damaged_while_its_row_stays_the_same_is_damage() {
    let table = Overtaking::new(1).await;
    let row = table.row().await;
    let part = row.manifest.clone().unwrap().parts.remove(0);
    let key = format!("{}/lane-00/{}/0", stream(), part.base_slot().letter());
    table.inner.delete(&tables().state(), &key, Condition::None).await.unwrap();
    let told = read(&table, &row, &part).await.unwrap_err();
    assert!(matches!(told, InspectError::Chunk(ChunkError::Missing(_))), "{told}");
}
