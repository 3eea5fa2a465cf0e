//! A worker's way to the world: every call may fail, be late, or lose its answer.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flowshift_consumer::log::memory::MemoryLog;
use flowshift_consumer::log::{Entry, Log, LogError, Page, ReadToken, StreamId};
use flowshift_consumer::shard::{Position, SequenceNumber, Shard, ShardId};
use flowshift_consumer::table::memory::MemoryTable;
use flowshift_consumer::table::{Condition, Item, Table, TableError, TableName, Update};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

/// A worker's way to the world.
pub(crate) struct Port {
    pub(crate) table: Arc<MemoryTable>,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) chance: Mutex<SmallRng>,
    /// Faults per thousand calls.
    pub(crate) faults: AtomicU64,
    /// Every call from now on never returns: kill -9, seen from outside.
    pub(crate) dead: AtomicBool,
    /// Every call begun before this moment takes effect only after it: a paused process, a zombie.
    pub(crate) frozen_until: Mutex<Option<Instant>>,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Port")
    }
}

enum Fate {
    Good,
    Refused,
    /// It takes effect and nobody hears of it.
    AnswerLost,
}

impl Port {
    async fn fate(&self) -> Fate {
        let frozen = *self.frozen_until.lock().unwrap();
        if let Some(until) = frozen {
            tokio::time::sleep_until(until).await;
        }
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let (roll, wait) = {
            let mut chance = self.chance.lock().unwrap();
            (chance.random_range(0..1000), chance.random_range(0..20))
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let faults = self.faults.load(Ordering::Relaxed);
        match roll {
            roll if roll < faults / 2 => Fate::Refused,
            roll if roll < faults => Fate::AnswerLost,
            _ => Fate::Good,
        }
    }

    async fn reach(&self) {
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait::async_trait]
impl Table for Port {
    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        self.table.ensure(table).await
    }
    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        match self.fate().await {
            Fate::Good => self.table.get(table, key).await,
            _ => Err(TableError::Unavailable("simulated".into())),
        }
    }
    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        match self.fate().await {
            Fate::Good => self.table.put(table, item, condition).await,
            Fate::Refused => Err(TableError::Throttled),
            Fate::AnswerLost => {
                self.table.put(table, item, condition).await.ok();
                Err(TableError::Unavailable("answer lost".into()))
            }
        }
    }
    async fn update(
        &self,
        table: &TableName,
        key: &str,
        update: Update,
        condition: Condition,
    ) -> Result<(), TableError> {
        match self.fate().await {
            Fate::Good => self.table.update(table, key, update, condition).await,
            Fate::Refused => Err(TableError::Throttled),
            Fate::AnswerLost => {
                self.table.update(table, key, update, condition).await.ok();
                Err(TableError::Unavailable("answer lost".into()))
            }
        }
    }
    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        self.reach().await;
        self.table.delete(table, key, condition).await
    }
    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        match self.fate().await {
            Fate::Good => self.table.scan(table).await,
            _ => Err(TableError::Unavailable("simulated".into())),
        }
    }
}

#[async_trait::async_trait]
impl Log for Port {
    async fn identify(&self, stream: &str) -> Result<StreamId, LogError> {
        self.log.identify(stream).await
    }
    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, LogError> {
        match self.fate().await {
            Fate::Good => self.log.shards(stream).await,
            _ => Err(LogError::Throttled),
        }
    }
    async fn seek(&self, stream: &str, shard: &ShardId, position: &Position) -> Result<ReadToken, LogError> {
        self.reach().await;
        self.log.seek(stream, shard, position).await
    }
    async fn read(&self, stream: &str, token: &ReadToken) -> Result<Page, LogError> {
        match self.fate().await {
            Fate::Good => self.log.read(stream, token).await,
            Fate::Refused => Err(LogError::Throttled),
            Fate::AnswerLost => Err(LogError::Expired),
        }
    }
    async fn append(&self, stream: &str, entries: &[Entry]) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError> {
        match self.fate().await {
            Fate::Good => self.log.append(stream, entries).await,
            Fate::AnswerLost => {
                self.log.append(stream, entries).await?;
                Err(LogError::Unavailable("answer lost".into()))
            }
            Fate::Refused => {
                // Part of the request is refused: the accepted records stand in front of their neighbours' repeats.
                let taken: Vec<bool> = {
                    let mut chance = self.chance.lock().unwrap();
                    entries.iter().map(|_| chance.random_bool(0.5)).collect()
                };
                let mut answers = Vec::new();
                for (entry, taken) in entries.iter().zip(taken) {
                    answers.push(match taken {
                        true => self.log.append(stream, std::slice::from_ref(entry)).await?.remove(0),
                        false => Err(LogError::Throttled),
                    });
                }
                Ok(answers)
            }
        }
    }
}
