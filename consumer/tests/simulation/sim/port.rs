//! A worker's way to the world: every call may fail, be late, lose its answer, or take effect long after it was given
//! up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use flowshift_consumer::exchange::{Envelope, Message};
use flowshift_consumer::lease::attribute;
use flowshift_consumer::log::memory::MemoryLog;
use flowshift_consumer::log::{ConsumerId, Entry, Log, LogError, Page, ReadToken, Record, StreamId, Subscription};
use flowshift_consumer::shard::{Position, SequenceNumber, Shard, ShardId};
use flowshift_consumer::table::{Condition, Item, Table, TableError, TableName, Update};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::ambush::{self, Ambush, Moment, Strike};
use super::push::Pushed;
use super::world::INPUT;

/// A rate of faults at which every call is refused without effect.
pub(crate) const ALL_REFUSED: u64 = 3_000;

/// A rate of faults at which about half of the records that are put are taken, and the others never.
pub(crate) const HALF_REFUSED: u64 = 2_000;

/// Faults per thousand calls, hop by hop.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) leases: u64,
    pub(crate) state: u64,
    /// Reads and puts, of the streams input, exchange and evidence.
    pub(crate) reads: [u64; 3],
    pub(crate) puts: [u64; 3],
}

impl Faults {
    /// Some hops are calm, some fail now and then, one may fail often.
    pub(crate) fn draw(chance: &mut SmallRng) -> Self {
        let mut rate = || match chance.random_range(0..10) {
            0..3 => 0,
            3..9 => chance.random_range(5..50),
            _ => chance.random_range(100..250),
        };
        Self { leases: rate(), state: rate(), reads: [rate(), rate(), rate()], puts: [rate(), rate(), rate()] }
    }
}

/// Where the streams input, exchange and evidence begin by now, epoch milliseconds.
pub(crate) type Horizons = Arc<[AtomicI64; 3]>;

/// What is wrong with the reads of a shard of the input, whoever reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hindrance {
    Fails,
    /// Each record takes so long, unless it is the last. Subscriptions are not slowed down.
    Slow(Duration),
}

/// The shards of the input whose reads are hindered.
pub(crate) type Hindered = Arc<Mutex<BTreeMap<ShardId, Hindrance>>>;

/// Until when the puts of source sets for lanes that lost records are held up.
pub(crate) type HeldUp = Arc<Mutex<Option<Instant>>>;

/// A worker's way to the world.
pub(crate) struct Port {
    pub(crate) table: Arc<dyn Table>,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) streams: [&'static str; 3],
    pub(crate) chance: Mutex<SmallRng>,
    pub(crate) faults: Faults,
    /// Records of a stream that arrived before this (epoch milliseconds) have expired.
    pub(crate) horizons: Horizons,
    pub(crate) hindered: Hindered,
    pub(crate) held_up: HeldUp,
    /// Every call from now on never returns: kill -9, seen from outside.
    pub(crate) dead: AtomicBool,
    /// Every call begun before this moment takes effect only after it: a paused process, a zombie.
    pub(crate) frozen_until: Mutex<Option<Instant>>,
    /// Where faults are placed.
    pub(crate) ambush: Option<Arc<Ambush>>,
    /// For subscriptions, which outlive the call that began them.
    pub(crate) itself: Weak<Self>,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Port")
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    Good,
    Refused,
    /// It takes effect and nobody hears of it.
    AnswerLost,
    /// It is given up, and takes effect so much later all the same.
    Late(Duration),
}

impl Port {
    async fn fate(&self, faults: u64, at: &[Moment]) -> Fate {
        let strike = self.ambush.as_ref().and_then(|a| a.strike(at, &mut self.chance.lock().unwrap()));
        match strike {
            Some(Strike::DieBefore) => self.dead.store(true, Ordering::Relaxed),
            Some(Strike::Sleep(pause)) => *self.frozen_until.lock().unwrap() = Some(Instant::now() + pause),
            _ => {}
        }
        let frozen = *self.frozen_until.lock().unwrap();
        if let Some(until) = frozen {
            tokio::time::sleep_until(until).await;
        }
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let (roll, wait, late) = {
            let mut chance = self.chance.lock().unwrap();
            (chance.random_range(0..1000), chance.random_range(0..20), chance.random_range(1..60_000))
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        match strike {
            Some(Strike::DieAfter) => {
                // It takes effect, and the next call never returns.
                self.dead.store(true, Ordering::Relaxed);
                return Fate::AnswerLost;
            }
            Some(Strike::AnswerLost) => return Fate::AnswerLost,
            Some(Strike::Late(after)) => return Fate::Late(after),
            _ => {}
        }
        match roll {
            roll if roll < faults / 3 => Fate::Refused,
            roll if roll < faults * 2 / 3 => Fate::AnswerLost,
            roll if roll < faults => Fate::Late(Duration::from_millis(late)),
            _ => Fate::Good,
        }
    }

    async fn table_fate(&self, table: &TableName, at: &[Moment]) -> Fate {
        self.fate(if table.key == attribute::KEY { self.faults.leases } else { self.faults.state }, at).await
    }

    fn of(&self, stream: &str, rates: [u64; 3]) -> u64 {
        self.streams.iter().position(|s| *s == stream).map_or(0, |index| rates[index])
    }

    /// What becomes of a read.
    pub(crate) async fn read_fate(&self, stream: &str) -> Fate {
        self.fate(self.of(stream, self.faults.reads), &[]).await
    }

    /// Whether the stream still has a record.
    pub(crate) fn holds(&self, stream: &str, record: &Record) -> bool {
        let index = self.streams.iter().position(|s| *s == stream);
        index.is_none_or(|index| record.arrived_ms >= self.horizons[index].load(Ordering::Relaxed))
    }

    /// Takes the records that a look at their bytes says, whoever puts them and however often.
    async fn append_half(
        &self,
        stream: &str,
        entries: &[Entry],
    ) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError> {
        self.fate(0, &[]).await;
        let mut answers = Vec::new();
        for entry in entries {
            let sum: u64 = entry.data.iter().map(|byte| u64::from(*byte)).sum();
            let taken = sum.is_multiple_of(2);
            let answer =
                if taken { Some(self.log.append(stream, std::slice::from_ref(entry)).await?.remove(0)) } else { None };
            answers.push(answer.unwrap_or(Err(LogError::Throttled)));
        }
        Ok(answers)
    }

    /// What hinders reads of this shard.
    pub(crate) fn hindrance(&self, stream: &str, shard: &ShardId) -> Option<Hindrance> {
        if stream == INPUT { self.hindered.lock().unwrap().get(shard).copied() } else { None }
    }

    /// Reads behind what hinders.
    async fn hindered_read(&self, stream: &str, token: &ReadToken) -> Result<Page, LogError> {
        // As the memory log writes it.
        let place = token.as_str().split_once(':').and_then(|(s, at)| Some((s.parse().ok()?, at.parse().ok()?)));
        let (index, offset): (usize, usize) = place.ok_or_else(|| LogError::Invalid(token.as_str().to_owned()))?;
        let hindrance = self.hindrance(stream, &ShardId::new(format!("shardId-{index:012}")));
        if hindrance == Some(Hindrance::Fails) {
            return Err(LogError::Unavailable("the shard cannot be read".into()));
        }
        let mut page = self.log.read(stream, token).await?;
        if let Some(Hindrance::Slow(pause)) = hindrance
            && page.records.len() > 1
        {
            tokio::time::sleep(pause).await;
            page.records.truncate(1);
            page.behind_ms = page.behind_ms.max(1);
            page.next = Some(ReadToken::new(format!("{index}:{}", offset + 1)));
        }
        Ok(page)
    }

    fn lost<T>() -> Result<T, TableError> {
        Err(TableError::Unavailable("answer lost".into()))
    }
}

fn catches_up(entry: &Entry) -> bool {
    matches!(Envelope::decode(&entry.data), Ok(Message::Control(control)) if control.catch_up)
}

/// Does a write later, whoever asked for it is gone or not.
fn later(after: Duration, write: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        write.await;
    });
}

#[async_trait::async_trait]
impl Table for Port {
    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        self.table.ensure(table).await
    }
    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        match self.table_fate(table, &[]).await {
            Fate::Good => self.table.get(table, key).await,
            Fate::Refused => Err(TableError::Throttled),
            _ => Self::lost(),
        }
    }
    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        match self.table_fate(table, &ambush::of_put(table, &item)).await {
            Fate::Good => self.table.put(table, item, condition).await,
            Fate::Refused => Err(TableError::Throttled),
            Fate::AnswerLost => {
                self.table.put(table, item, condition).await.ok();
                Self::lost()
            }
            Fate::Late(after) => {
                let (inner, name) = (Arc::clone(&self.table), table.clone());
                later(after, async move { drop(inner.put(&name, item, condition).await) });
                Self::lost()
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
        let row = self.table.get(table, key).await.ok().flatten();
        match self.table_fate(table, &ambush::of_update(table, row.as_ref(), &update)).await {
            Fate::Good => self.table.update(table, key, update, condition).await,
            Fate::Refused => Err(TableError::Throttled),
            Fate::AnswerLost => {
                self.table.update(table, key, update, condition).await.ok();
                Self::lost()
            }
            Fate::Late(after) => {
                let (inner, name, key) = (Arc::clone(&self.table), table.clone(), key.to_owned());
                later(after, async move { drop(inner.update(&name, &key, update, condition).await) });
                Self::lost()
            }
        }
    }
    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        match self.table_fate(table, &[Moment::Inheritance]).await {
            Fate::Good => self.table.delete(table, key, condition).await,
            Fate::Refused => Err(TableError::Throttled),
            Fate::AnswerLost => {
                self.table.delete(table, key, condition).await.ok();
                Self::lost()
            }
            Fate::Late(after) => {
                let (inner, name, key) = (Arc::clone(&self.table), table.clone(), key.to_owned());
                later(after, async move { drop(inner.delete(&name, &key, condition).await) });
                Self::lost()
            }
        }
    }
    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        match self.table_fate(table, &[]).await {
            Fate::Good => self.table.scan(table).await,
            Fate::Refused => Err(TableError::Throttled),
            _ => Self::lost(),
        }
    }
}

#[async_trait::async_trait]
impl Log for Port {
    async fn identify(&self, stream: &str) -> Result<StreamId, LogError> {
        self.log.identify(stream).await
    }
    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, LogError> {
        match self.read_fate(stream).await {
            Fate::Good => self.log.shards(stream).await,
            _ => Err(LogError::Throttled),
        }
    }
    async fn seek(&self, stream: &str, shard: &ShardId, position: &Position) -> Result<ReadToken, LogError> {
        match self.read_fate(stream).await {
            Fate::Good => self.log.seek(stream, shard, position).await,
            Fate::Refused => Err(LogError::Throttled),
            _ => Err(LogError::Unavailable("answer lost".into())),
        }
    }
    async fn read(&self, stream: &str, token: &ReadToken) -> Result<Page, LogError> {
        match self.read_fate(stream).await {
            Fate::Good => {
                let mut page = self.hindered_read(stream, token).await?;
                page.records.retain(|record| self.holds(stream, record));
                Ok(page)
            }
            Fate::Refused => Err(LogError::Throttled),
            Fate::AnswerLost => Err(LogError::Expired),
            Fate::Late(_) => Err(LogError::Unavailable("answer lost".into())),
        }
    }
    async fn register(&self, stream: &str, consumer: &str) -> Result<ConsumerId, LogError> {
        match self.read_fate(stream).await {
            Fate::Good => self.log.register(stream, consumer).await,
            Fate::Refused => Err(LogError::Throttled),
            _ => Err(LogError::Unavailable("answer lost".into())),
        }
    }
    async fn subscribe(
        &self,
        consumer: &ConsumerId,
        shard: &ShardId,
        position: &Position,
    ) -> Result<Box<dyn Subscription>, LogError> {
        let stream = consumer.stream().to_owned();
        let fate = self.read_fate(&stream).await;
        if matches!(fate, Fate::Refused) {
            return Err(LogError::Throttled);
        }
        // One that began and nobody heard of is in the way of the next.
        let inner = self.log.subscribe(consumer, shard, position).await?;
        let Fate::Good = fate else { return Err(LogError::Unavailable("answer lost".into())) };
        let port = self.itself.upgrade().ok_or(LogError::Expired)?;
        Ok(Box::new(Pushed { port, stream, shard: shard.clone(), inner }))
    }
    async fn append(&self, stream: &str, entries: &[Entry]) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError> {
        let rate = self.of(stream, self.faults.puts);
        if rate == HALF_REFUSED {
            return self.append_half(stream, entries).await;
        }
        let held_up = *self.held_up.lock().unwrap();
        if let Some(until) = held_up.filter(|_| entries.iter().any(catches_up)) {
            tokio::time::sleep_until(until).await;
        }
        let fate = self.fate(rate, &ambush::of_append(entries)).await;
        // The records of one request take their places in any order.
        let (order, taken) = {
            let mut chance = self.chance.lock().unwrap();
            let mut order: Vec<usize> = (0..entries.len()).collect();
            order.shuffle(&mut *chance);
            let never = rate >= ALL_REFUSED;
            let partly = |chance: &mut SmallRng| !never && chance.random();
            let taken: Vec<bool> =
                order.iter().map(|_| !matches!(fate, Fate::Refused) || partly(&mut chance)).collect();
            (order, taken)
        };
        let shuffled: Vec<Entry> = order.iter().map(|index| entries[*index].clone()).collect();
        match fate {
            Fate::Good | Fate::Refused => {
                // Of a request that is partly refused the accepted records stand in front of their neighbours' repeats.
                let mut answers: Vec<_> = entries.iter().map(|_| Err(LogError::Throttled)).collect();
                for ((entry, index), taken) in shuffled.iter().zip(&order).zip(taken) {
                    if taken {
                        answers[*index] = self.log.append(stream, std::slice::from_ref(entry)).await?.remove(0);
                    }
                }
                Ok(answers)
            }
            Fate::AnswerLost => {
                self.log.append(stream, &shuffled).await?;
                Err(LogError::Unavailable("answer lost".into()))
            }
            Fate::Late(after) => {
                let (log, stream) = (Arc::clone(&self.log), stream.to_owned());
                later(after, async move { drop(log.append(&stream, &shuffled).await) });
                Err(LogError::Unavailable("answer lost".into()))
            }
        }
    }
}
