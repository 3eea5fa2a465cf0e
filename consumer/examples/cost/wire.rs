//! The same job over the real wire for a while, its units counted twice: by our size rule, and by the service.
//!
//! Real time, SDK clients, DynamoDB's `ConsumedCapacity` as the embedded service reports it. Invariant: both accounts
//! see the same calls, because one wraps the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{FeedKinds, Lanes};
use flowshift_consumer::lease::WorkerId;
use flowshift_consumer::log::{Log, kinesis::KinesisLog};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{Tables, Worker, WorkerConfig};
use flowshift_consumer::table::{aws::DynamoTable, metered::Metered};
use prometheus::Registry;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::job::{Evidence, Parting, Windows, record};
use super::services;
use super::world::{EVIDENCE, EXCHANGE, INPUT, Size, TOUCHED_PER_SECOND};

/// Both accounts of one table, in units since the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    pub(crate) ours: (u64, u64),
    pub(crate) theirs: (f64, f64),
}

/// Runs one worker for `time` and returns both accounts by table.
pub(crate) async fn run(size: Size, time: Duration) -> Result<BTreeMap<String, Account>, Failure> {
    let (_emulator, endpoints) = services::start().await?;
    let clients = services::connect(&endpoints);
    for (name, shards) in [(INPUT, size.shards), (EXCHANGE, size.exchange), (EVIDENCE, 1)] {
        let shards = i32::try_from(shards)?;
        clients.kinesis.create_stream().stream_name(name).shard_count(shards).send().await?;
    }
    let registry = Registry::new();
    let metrics = EngineMetrics::register(&registry, "wire")?;
    let dynamo = DynamoTable::new(clients.dynamodb.clone()).with_metrics(metrics.clone());
    let meter = Arc::new(Metered::new(Arc::new(dynamo)));
    let log: Arc<dyn Log> = Arc::new(KinesisLog::new(clients.kinesis.clone()));
    let (lanes, kinds) = (Lanes::new(size.lanes)?, FeedKinds::new(1));
    let config = WorkerConfig::new(WorkerId::new("worker"), Tables::new("cost"));
    let (_, snapshot) = watch::channel(Snapshot::new("topology"));
    let worker = Worker::new(config, Arc::clone(&meter) as _, Arc::clone(&log), WallClock::system(), metrics)
        .map(INPUT, EXCHANGE, lanes, kinds, snapshot, Parting { lanes })
        .reduce(EXCHANGE, Some(EVIDENCE), lanes, kinds, |_| Windows::default())
        .stage(EVIDENCE, |context, _| Evidence::new(context));
    let (leave, (_ends, end_input)) = (CancellationToken::new(), watch::channel(None));
    let running = tokio::spawn(worker.run(leave.clone(), end_input));
    let over = Instant::now() + time;
    let shards = log.shards(INPUT).await?;
    let mut chance = SmallRng::seed_from_u64(1);
    while Instant::now() < over {
        for shard in &shards {
            let count = size.pairs as usize * TOUCHED_PER_SECOND / 1000 / shards.len();
            let pairs: Vec<u32> = (0..count.max(1)).map(|_| chance.random_range(0..size.pairs)).collect();
            log.append(INPUT, &[record(&shard.id, shard.range.start, &pairs)]).await?;
        }
        sleep(Duration::from_secs(1)).await;
    }
    leave.cancel();
    running.await??;
    Ok(accounts(&meter, &registry))
}

fn accounts(meter: &Metered, registry: &Registry) -> BTreeMap<String, Account> {
    let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
    for (table, usage) in meter.by_table() {
        accounts.entry(table).or_default().ours = (usage.read_units, usage.write_units);
    }
    for family in registry.gather() {
        for metric in family.get_metric() {
            let Some(table) = metric.get_label().iter().find(|label| label.name() == "table") else { continue };
            let units = metric.get_counter().get_value();
            let account = accounts.entry(table.value().to_owned()).or_default();
            match family.name() {
                name if name.ends_with("dynamodb_read_units_total") => account.theirs.0 += units,
                name if name.ends_with("dynamodb_write_units_total") => account.theirs.1 += units,
                _ => {}
            }
        }
    }
    accounts
}

/// Prints both accounts of one size.
pub(crate) fn print(size: Size, time: Duration, accounts: &BTreeMap<String, Account>) {
    println!(
        "| {} shards, {} s: table | write units by our rule | by the service | read units by our rule | by the service |",
        size.shards,
        time.as_secs()
    );
    println!("|---|---|---|---|---|");
    for (table, account) in accounts {
        let Account { ours: (read, written), theirs: (their_read, their_written) } = account;
        println!("| {table} | {written} | {their_written:.1} | {read} | {their_read:.1} |");
    }
    println!();
}
