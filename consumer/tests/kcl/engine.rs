//! flowshift's engine with the simplest of jobs: a stage that writes down what it is given, a mapper that sends it on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{FeedKinds, Lanes, Watermarks};
use flowshift_consumer::lease::{LeaseTimes, WorkerId};
use flowshift_consumer::log::Record;
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{StateMismatch, Tables, Timing, Worker, WorkerConfig, WorkerError};
use flowshift_consumer::stage::{Batch, Mapped, Mapper, Stage, StageError, StatePart};
use flowshift_consumer::table::Table;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::services::{STREAM, Services};

/// What a worker's stages were given, by shard, in order: sequence numbers and texts.
pub(crate) type Given = BTreeMap<String, Vec<(String, String)>>;

struct Notes {
    shard: String,
    given: Arc<Mutex<Given>>,
    count: u64,
}

impl Stage for Notes {
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
        for (key, count) in parts {
            if key == self.shard {
                self.count = u64::from_be_bytes(count.as_ref().try_into().unwrap());
            }
        }
        Ok(())
    }

    fn process(&mut self, record: &Record) -> Result<(), StageError> {
        let text = String::from_utf8(record.data.to_vec()).unwrap();
        let mut given = self.given.lock().unwrap();
        given.entry(self.shard.clone()).or_default().push((record.sequence.to_string(), text));
        self.count += 1;
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        Ok(vec![(self.shard.clone(), Bytes::copy_from_slice(&self.count.to_be_bytes()))])
    }

    fn keeps(&self, key: &str) -> bool {
        key == self.shard
    }

    fn finished(&self) -> bool {
        true
    }
}

/// A job of the engine over the stream, on the lease table `leases`.
pub(crate) struct Job<'a> {
    pub(crate) services: &'a Services,
    pub(crate) table: Arc<dyn Table>,
    pub(crate) leases: &'static str,
    pub(crate) state_mismatch: StateMismatch,
    pub(crate) failover: Duration,
}

impl<'a> Job<'a> {
    pub(crate) fn new(services: &'a Services, leases: &'static str) -> Self {
        let (state_mismatch, failover) = (StateMismatch::Fail, Duration::from_secs(4));
        Self { services, table: services.table(), leases, state_mismatch, failover }
    }

    /// A worker of the job, without a role.
    pub(crate) fn worker(&self, name: &str) -> Worker {
        let tables = Tables::new(format!("{}-job", self.leases)).with_leases(STREAM, self.leases);
        let config = WorkerConfig {
            timing: Timing {
                lease: LeaseTimes { renewal: Duration::from_secs(1), failover: self.failover },
                commit: Duration::from_millis(200),
                batch: Duration::from_millis(200),
                // No empty batch comes between those that a test makes.
                heartbeat: Duration::from_secs(3600),
                leader_lock: Duration::from_secs(2),
                leader_beat: Duration::from_millis(500),
                assign: Duration::from_millis(500),
                shard_sync: Duration::from_secs(1),
                foreign_watch: self.failover,
                ..Timing::default()
            },
            state_mismatch: self.state_mismatch,
            ..WorkerConfig::new(WorkerId::new(name), tables)
        };
        let metrics = EngineMetrics::register(&prometheus::Registry::new(), "kcl").unwrap();
        Worker::new(config, Arc::clone(&self.table), self.services.log(), WallClock::system(), metrics)
    }

    /// Runs a worker with a stage until everything that is in the stream now is processed and committed.
    pub(crate) async fn consume(&self, name: &str) -> Result<Given, WorkerError> {
        let given = Arc::new(Mutex::new(Given::new()));
        let notes = Arc::clone(&given);
        let worker = self.worker(name).stage(STREAM, move |context, _lease| Notes {
            shard: context.shard.as_str().to_owned(),
            given: Arc::clone(&notes),
            count: 0,
        });
        let (_ends, end_input) = watch::channel(Some(Instant::now()));
        let running = worker.run(CancellationToken::new(), end_input);
        tokio::time::timeout(Duration::from_secs(120), running).await.expect("consumed within two minutes")?;
        Ok(Arc::into_inner(given).unwrap().into_inner().unwrap())
    }

    /// Runs a worker that maps the stream into `exchange`.
    pub(crate) fn map(&self, name: &str, exchange: &str) -> Mapping {
        let (lanes, kinds) = (Lanes::new(4).unwrap(), FeedKinds::new(1));
        let (snapshots, snapshot) = watch::channel(Snapshot::new(Bytes::new()));
        let worker = self.worker(name).map(STREAM, exchange, lanes, kinds, snapshot, Lines(lanes));
        let leave = CancellationToken::new();
        let left = leave.clone();
        let running = tokio::spawn(async move {
            let (_snapshots, (_ends, end_input)) = (snapshots, watch::channel(None));
            worker.run(left, end_input).await
        });
        Mapping { leave, running }
    }
}

/// A worker at work; dropped, it dies without any clean-up that waits.
pub(crate) struct Mapping {
    leave: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), WorkerError>>,
}

impl Mapping {
    /// Asks it to leave and waits until it has.
    pub(crate) async fn leave(mut self) {
        self.leave.cancel();
        (&mut self.running).await.unwrap().unwrap();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Sends every record on, to the lane of its partition key.
struct Lines(Lanes);

impl Mapper for Lines {
    type State = u64;
    type Prepared = ();

    fn semantics(&self) -> u32 {
        1
    }

    fn prepare(&self, _: &Snapshot) -> Result<(), StageError> {
        Ok(())
    }

    fn map(&self, state: &mut u64, batch: &Batch<'_>, (): &()) -> Result<Mapped, StageError> {
        *state += batch.records.len() as u64;
        let mut mapped = Mapped { kinds: [!batch.records.is_empty(), false, false, false], ..Mapped::default() };
        for record in batch.records {
            let lane = self.0.of(record.partition_key.as_bytes());
            mapped.parts.entry(lane).or_default().push(record.data.clone());
        }
        Ok(mapped)
    }

    fn watermarks(&self, _: &u64) -> Watermarks {
        Watermarks::NONE
    }

    fn raise(&self, _: &mut u64, _: &Watermarks) {}

    fn inherit(&self, parents: Vec<u64>) -> u64 {
        parents.into_iter().sum()
    }

    fn save(&self, state: &u64) -> Result<Vec<u8>, StageError> {
        Ok(state.to_be_bytes().to_vec())
    }

    fn load(&self, bytes: &Bytes) -> Result<u64, StageError> {
        Ok(u64::from_be_bytes(bytes.as_ref().try_into().unwrap()))
    }
}
