//! Random histories: saves, crashes at any put, owners that follow, requests that land late. Whatever happens, the
//! committed manifest restores exactly the state that was committed with it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::table::{Condition, Item, TableError};

/// A table that dies after some puts; what is put later is on its way and may land at any time.
#[derive(Debug, Default)]
struct Mortal {
    memory: MemoryTable,
    left: Mutex<usize>,
    late: Mutex<Vec<(Item, Condition)>>,
}

#[async_trait::async_trait]
impl crate::table::around::Around for Mortal {
    fn inner(&self) -> &dyn Table {
        &self.memory
    }
    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        let alive = {
            let mut left = self.left.lock().unwrap();
            let alive = *left > 0;
            *left = left.saturating_sub(1);
            alive
        };
        if alive {
            return self.memory.put(table, item, condition).await;
        }
        self.late.lock().unwrap().push((item, condition));
        Err(TableError::Unavailable("no answer".into()))
    }
}

impl Mortal {
    async fn land_one(&self, chance: &mut SmallRng) {
        let request = {
            let mut late = self.late.lock().unwrap();
            if late.is_empty() {
                return;
            }
            let pick = chance.random_range(0..late.len());
            late.swap_remove(pick)
        };
        self.memory.put(&state_table(), request.0, request.1).await.ok();
    }
}

type State = BTreeMap<String, Vec<u8>>;

struct History {
    table: Arc<Mortal>,
    chunks: Chunks,
    chance: SmallRng,
    counter: i64,
    committed: (Manifest, State),
}

impl History {
    fn new(seed: u64) -> Self {
        let table = Arc::new(Mortal::default());
        let committed = (Manifest::new("0".into(), Vec::new()), State::new());
        let (chunks, chance) = (chunks_in(table.clone()), SmallRng::seed_from_u64(seed));
        Self { table, chunks, chance, counter: 0, committed }
    }

    /// Some parts changed a little, some altogether.
    fn change(&mut self, state: &mut State) -> Vec<StatePart> {
        let mut saved = Vec::new();
        for part in 0..self.chance.random_range(0..4) {
            let key = format!("lane-{:04}", (part + self.chance.random_range(0..3)) * 5);
            let bytes = state.entry(key.clone()).or_default();
            if bytes.is_empty() || self.chance.random_bool(0.1) {
                *bytes = noise(self.chance.random(), self.chance.random_range(0..6_000));
            } else {
                let at = self.chance.random_range(0..bytes.len());
                bytes.splice(at..at, noise(self.chance.random(), 20));
            }
            saved.retain(|(saved, _)| *saved != key);
            saved.push((key, Bytes::from(bytes.clone())));
        }
        saved
    }

    /// One owner's life: saves until it dies at some put, or leaves.
    async fn owner(&mut self) -> Result<(), String> {
        self.counter += 1;
        let fence = fence(1, self.counter);
        let parts = self.chunks.parts(&self.committed.0).await.map_err(|e| e.to_string())?;
        let mut saver = Saver::new(self.chunks.clone(), "s", fence, parts, self.committed.0.directory.clone());
        let puts = self.chance.random_range(0..80);
        *self.table.left.lock().unwrap() = puts;
        let stop = CancellationToken::new();
        stop.cancel();
        loop {
            let mut state = self.committed.1.clone();
            let saved = self.change(&mut state);
            let done = saver.put("1".into(), saved, |_| true, &stop).await;
            if self.chance.random_bool(0.3) {
                self.table.land_one(&mut self.chance).await;
            }
            match done {
                // The row refuses this one: what was put is never named.
                Ok(_) if self.chance.random_bool(0.1) => {}
                Ok((manifest, _)) => {
                    saver.committed();
                    self.committed = (manifest, state);
                }
                Err(ChunkError::Cancelled) => return Ok(()),
                Err(e) => return Err(format!("the only owner alive: {e}")),
            }
            if self.chance.random_bool(0.2) {
                self.check().await?;
            }
            if *self.table.left.lock().unwrap() == 0 {
                return Ok(());
            }
        }
    }

    async fn check(&mut self) -> Result<(), String> {
        let read = restore(&self.chunks, &self.committed.0).await.map_err(|e| e.to_string())?;
        let read: State = read.into_iter().map(|(key, bytes)| (key, bytes.to_vec())).collect();
        if read == self.committed.1 { Ok(()) } else { Err("restored something else".into()) }
    }
}

#[tokio::test]
async fn any_history_of_saves_crashes_and_new_owners_restores_exactly_what_was_committed() {
    let seeds = std::env::var("FLOWSHIFT_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(30).min(1_000) {
        let mut history = History::new(seed);
        for owner in 0..8 {
            history.owner().await.unwrap_or_else(|e| panic!("seed {seed}, owner {owner}: {e}"));
            for _ in 0..3 {
                history.table.land_one(&mut history.chance).await;
            }
            history.check().await.unwrap_or_else(|e| panic!("seed {seed}, after owner {owner}: {e}"));
        }
    }
}
