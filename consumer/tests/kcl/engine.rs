//! flowshift's engine with the simplest of stages: it writes down what it is given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::lease::{LeaseTimes, WorkerId};
use flowshift_consumer::log::Record;
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{StateMismatch, Tables, Timing, Worker, WorkerConfig, WorkerError};
use flowshift_consumer::stage::{Stage, StageError, StatePart};
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

/// A worker on the lease table `leases`.
pub(crate) fn worker(
    services: &Services,
    table: Arc<dyn Table>,
    leases: &str,
    name: &str,
) -> (Worker, Arc<Mutex<Given>>) {
    let config = WorkerConfig {
        worker: WorkerId::new(name),
        tables: Tables::new("job").with_leases(STREAM, leases),
        timing: Timing {
            lease: LeaseTimes { renewal: Duration::from_secs(1), failover: Duration::from_secs(4) },
            commit: Duration::from_millis(200),
            leader_lock: Duration::from_secs(2),
            leader_beat: Duration::from_millis(500),
            assign: Duration::from_millis(500),
            shard_sync: Duration::from_secs(1),
            ..Timing::default()
        },
        alone: false,
        state_mismatch: StateMismatch::Fail,
    };
    let metrics = EngineMetrics::register(&prometheus::Registry::new(), "kcl").unwrap();
    let given = Arc::new(Mutex::new(Given::new()));
    let notes = Arc::clone(&given);
    let worker = Worker::new(config, table, services.log(), WallClock::system(), metrics);
    let worker = worker.stage(STREAM, move |context, _lease| Notes {
        shard: context.shard.as_str().to_owned(),
        given: Arc::clone(&notes),
        count: 0,
    });
    (worker, given)
}

/// Runs a worker until everything that is in the stream now is processed and committed.
pub(crate) async fn consume(
    services: &Services,
    table: Arc<dyn Table>,
    leases: &str,
    name: &str,
) -> Result<Given, WorkerError> {
    let (worker, given) = worker(services, table, leases, name);
    let (_ends, end_input) = watch::channel(Some(Instant::now()));
    let running = worker.run(CancellationToken::new(), end_input);
    tokio::time::timeout(Duration::from_secs(120), running).await.expect("consumed within two minutes")?;
    Ok(Arc::into_inner(given).unwrap().into_inner().unwrap())
}
