//! Reading the fleet: who is on the list, and who takes the leases of a worker that leaves.
//!
//! Liveness takes watching, which only the leader and its standby do; the leader publishes whom it sees alive in one
//! item, so that a leaving worker finds its successors in three round trips. What it reads may be a little old: a lease
//! given to a worker that just died expires and is assigned anew. Read next: [`super::leader`] (who watches).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::WorkerConfig;
use super::beat::ring;
use super::items::{WORKERS, worker_key};
use super::retention::Retentions;
use crate::exchange::ShardCounts;
use crate::lease::{Checkpoint, LeaseRow};
use crate::table::{Condition, Item, Table, TableError, Update, Value};

/// The item in which the leader names the workers it sees alive, counts the shards, and says how long streams keep
/// records.
const FLEET: &str = "fleet";
/// For how long one look at the fleet serves the leases that are given away.
const FRESH: Duration = Duration::from_secs(5);
/// Items read at once.
const READS: usize = 16;

/// One worker's item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) id: String,
    pub(super) beat: i64,
    /// Streams whose leases it takes.
    pub(super) roles: BTreeSet<String>,
}

/// The listed workers that have a beat, by id; without a beat a worker has left, or is leaving.
pub(super) async fn seats(table: &dyn Table, config: &WorkerConfig) -> Result<Vec<Seat>, TableError> {
    let list = table.get(&config.tables.state(), WORKERS).await?;
    seats_of(table, config, list.map(|item| item.strings("ids")).unwrap_or_default()).await
}

async fn seats_of(table: &dyn Table, config: &WorkerConfig, ids: BTreeSet<String>) -> Result<Vec<Seat>, TableError> {
    let state = &config.tables.state();
    let keys: Vec<String> = ids.iter().map(|id| worker_key(id)).collect();
    let reads: Vec<_> = keys.iter().map(|key| table.get(state, key)).collect();
    let read: Vec<Result<Option<Item>, TableError>> = futures::stream::iter(reads).buffered(READS).collect().await;
    let seat = |(id, item): (String, Option<Item>)| {
        let item = item?;
        Some(Seat { id, beat: item.number("beat").unwrap_or_default(), roles: item.strings("roles") })
    };
    let items: Vec<Option<Item>> = read.into_iter().collect::<Result<_, _>>()?;
    Ok(ids.into_iter().zip(items).filter_map(seat).collect())
}

/// Publishes whom the leader sees alive.
pub(super) async fn publish(
    table: &dyn Table,
    config: &WorkerConfig,
    live: &BTreeSet<String>,
) -> Result<(), TableError> {
    if live.is_empty() {
        return Ok(());
    }
    let update = Update::new().set("live", Value::Ss(live.clone()));
    table.update(&config.tables.state(), FLEET, update, Condition::None).await
}

/// Publishes how many shards are open on both sides of the exchange, so that every mapper waits for as long.
pub(super) async fn publish_counts(
    table: &dyn Table,
    config: &WorkerConfig,
    counts: ShardCounts,
) -> Result<(), TableError> {
    let update =
        Update::new().set("input", Value::number(counts.input)).set("exchange", Value::number(counts.exchange));
    table.update(&config.tables.state(), FLEET, update, Condition::None).await
}

/// Publishes how long the streams keep their records: `milliseconds stream` each.
pub(super) async fn publish_retention(
    table: &dyn Table,
    config: &WorkerConfig,
    kept: &Retentions,
) -> Result<(), TableError> {
    let texts: BTreeSet<String> = kept.iter().map(|(stream, kept)| format!("{} {stream}", kept.as_millis())).collect();
    // An empty set cannot be stored.
    let update = if texts.is_empty() {
        Update::new().remove("retention")
    } else {
        Update::new().set("retention", Value::Ss(texts))
    };
    table.update(&config.tables.state(), FLEET, update, Condition::None).await
}

/// What the leader last published for all workers.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    /// The shards it counted; none: it has not counted any yet, or is of a version that does not.
    pub(super) counts: Option<ShardCounts>,
    /// How long streams keep their records, as far as it knows.
    pub(super) retention: Retentions,
}

/// Reads what the leader published for all workers.
pub(super) async fn fleet(table: &dyn Table, config: &WorkerConfig) -> Result<Fleet, TableError> {
    let Some(fleet) = table.get(&config.tables.state(), FLEET).await? else { return Ok(Fleet::default()) };
    let count = |name| fleet.number(name).and_then(|n| u64::try_from(n).ok());
    let counts = count("input").zip(count("exchange")).map(|(input, exchange)| ShardCounts { input, exchange });
    let kept = |text: String| {
        let (millis, stream) = text.split_once(' ')?;
        Some((stream.to_owned(), Duration::from_millis(millis.parse().ok()?)))
    };
    Ok(Fleet { counts, retention: fleet.strings("retention").into_iter().filter_map(kept).collect() })
}

/// Whom the last leader saw alive.
pub(super) async fn published(table: &dyn Table, config: &WorkerConfig) -> Result<BTreeSet<String>, TableError> {
    let fleet = table.get(&config.tables.state(), FLEET).await?;
    Ok(fleet.map(|item| item.strings("live")).unwrap_or_default())
}

/// Leases per worker, of one stream and of all.
#[derive(Debug, Default)]
struct Loads {
    /// By stream: the workers that take its leases, with how many they have.
    streams: BTreeMap<String, BTreeMap<String, usize>>,
    total: BTreeMap<String, usize>,
}

impl Loads {
    /// The least loaded worker of the stream, which is taken to have one lease more from now on.
    fn next(&mut self, stream: &str) -> Option<String> {
        let (streams, total) = (&mut self.streams, &mut self.total);
        let workers = streams.get_mut(stream)?;
        let all = |id: &String| total.get(id).copied().unwrap_or_default();
        let (id, count) = workers.iter_mut().min_by_key(|(id, count)| (**count, all(id), (*id).clone()))?;
        *count += 1;
        *total.entry(id.clone()).or_default() += 1;
        Some(id.clone())
    }
}

/// Finds successors for the leases of this worker when it leaves.
#[derive(Debug)]
pub(super) struct Successors {
    table: Arc<dyn Table>,
    config: WorkerConfig,
    streams: Vec<String>,
    /// As read, and counted on since; read again when it is too old to be true.
    loads: Mutex<Option<(Instant, Loads)>>,
}

impl Successors {
    /// For the leases of these streams.
    pub(super) fn new(table: Arc<dyn Table>, config: WorkerConfig, streams: Vec<String>) -> Self {
        Self { table, config, streams, loads: Mutex::default() }
    }

    /// Who should get a lease of this stream; none: nobody else lives.
    pub(super) async fn next(&self, stream: &str) -> Option<String> {
        let mut loads = self.loads.lock().await;
        if loads.as_ref().is_none_or(|(at, _)| at.elapsed() >= FRESH) {
            match self.read().await {
                Ok(read) => *loads = Some((Instant::now(), read)),
                Err(e) => tracing::warn!(stream, error = %e, "fleet cannot be read, the lease has no successor"),
            }
        }
        loads.as_mut().and_then(|(_, loads)| loads.next(stream))
    }

    /// Tells the new owner; what is not heard now is found by its own look at the table.
    pub(super) async fn ring(&self, worker: &str) {
        if let Err(e) = ring(&*self.table, &self.config.tables.state(), worker).await {
            tracing::debug!(worker, error = %e, "new owner of a lease not told");
        }
    }

    /// Whether a worker is still on the list with a beat.
    pub(super) async fn seated(&self, worker: &str) -> bool {
        let item = self.table.get(&self.config.tables.state(), &worker_key(worker)).await;
        // Not knowing is no reason to overrule the leader.
        item.map_or(true, |item| item.is_some())
    }

    async fn read(&self) -> Result<Loads, TableError> {
        let mut live = published(&*self.table, &self.config).await?;
        live.remove(self.config.worker.as_str());
        let seats = seats_of(&*self.table, &self.config, live).await?;
        let mut loads = Loads::default();
        for stream in &self.streams {
            let takers = seats.iter().filter(|seat| seat.roles.contains(stream));
            let mut counts: BTreeMap<String, usize> = takers.map(|seat| (seat.id.clone(), 0)).collect();
            if counts.is_empty() {
                continue;
            }
            for item in self.table.scan(&self.config.tables.leases(stream)).await? {
                let Ok(Some(row)) = LeaseRow::read(&item) else { continue };
                let owner = row.owner.filter(|_| row.checkpoint != Checkpoint::ShardEnd);
                if let Some(count) = owner.as_ref().and_then(|owner| counts.get_mut(owner)) {
                    *count += 1;
                }
            }
            for (id, count) in &counts {
                *loads.total.entry(id.clone()).or_default() += count;
            }
            loads.streams.insert(stream.clone(), counts);
        }
        Ok(loads)
    }
}

#[cfg(test)]
mod tests {
    use super::super::beat::enlist;
    use super::*;
    use crate::lease::{WorkerId, attribute, new_row};
    use crate::run::test_config;
    use crate::shard::{HashRange, Shard, ShardId};
    use crate::table::memory::MemoryTable;

    async fn owned(table: &MemoryTable, config: &WorkerConfig, shard: &str, owner: &str) {
        let shard = Shard { id: ShardId::new(shard), parents: vec![], range: HashRange::ALL, closed: false };
        let row = new_row(&shard, &Checkpoint::TrimHorizon, 0).with(attribute::OWNER, Value::string(owner));
        table.put(&config.tables.leases("flows"), row, Condition::None).await.unwrap();
    }

    #[tokio::test]
    async fn the_leases_of_a_leaver_go_to_the_least_loaded_of_the_living() {
        let (table, config) = (Arc::new(MemoryTable::default()), test_config("a"));
        let live: BTreeSet<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        for id in ["a", "b", "c", "d"] {
            let config = WorkerConfig { worker: WorkerId::new(id), ..config.clone() };
            let role = if id == "d" { "evidence" } else { "flows" };
            enlist(&*table, &config, &BTreeSet::from([role.to_owned()])).await.unwrap();
        }
        publish(&*table, &config, &live).await.unwrap();
        for (shard, owner) in [("0", "a"), ("1", "a"), ("2", "a"), ("3", "b"), ("4", "b"), ("5", "b"), ("6", "c")] {
            owned(&table, &config, shard, owner).await;
        }
        // b has three, c has one; d serves another stream, and e left after it was last seen alive.
        let successors = Successors::new(table, config, vec!["flows".into()]);
        let mut taken = Vec::new();
        for _ in 0..4 {
            taken.push(successors.next("flows").await.unwrap());
        }
        assert_eq!(taken, ["c", "c", "b", "c"]);
    }

    #[tokio::test]
    async fn the_last_worker_has_no_successor() {
        let (table, config) = (Arc::new(MemoryTable::default()), test_config("a"));
        enlist(&*table, &config, &BTreeSet::from(["flows".to_owned()])).await.unwrap();
        publish(&*table, &config, &BTreeSet::from(["a".to_owned()])).await.unwrap();
        assert_eq!(Successors::new(table, config, vec!["flows".into()]).next("flows").await, None);
    }
}
