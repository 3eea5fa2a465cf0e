//! A worker process: the engine with a stage that tells what it processed.
//!
//! SIGTERM makes it leave as a service would; the end of its standard input (its parent is gone) ends it at once.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use flowshift_consumer::clock::WallClock;
use flowshift_consumer::lease::WorkerId;
use flowshift_consumer::log::{Record, kinesis::KinesisLog};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{Tables, Worker, WorkerConfig};
use flowshift_consumer::stage::{Stage, StageError, StatePart};
use flowshift_consumer::table::aws::DynamoTable;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::protocol::{Line, Moment};
use super::services::{Endpoints, connect};

/// Counts records and tells each.
struct Probe {
    shard: String,
    count: u64,
}

fn tell(line: &Line) -> Result<(), StageError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| StageError::with("standard output", e))
}

impl Stage for Probe {
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
        for (_, bytes) in parts {
            let count = bytes.as_ref().try_into().map_err(|e| StageError::with("stored count", e))?;
            self.count += u64::from_be_bytes(count);
        }
        tell(&Line::Restored(self.shard.clone(), Moment::now()))
    }

    fn process(&mut self, _record: &Record) -> Result<(), StageError> {
        self.count += 1;
        tell(&Line::Read(self.shard.clone(), Moment::now()))
    }

    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        Ok(vec![(self.shard.clone(), self.count.to_be_bytes().to_vec().into())])
    }
}

/// Runs until a signal; `words` are the endpoints of Kinesis and DynamoDB, the job and the worker's id.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let [kinesis, dynamodb, job, id] = words else { return Err("a worker takes four words".into()) };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    std::thread::spawn(|| {
        let end = std::io::stdin().read_to_end(&mut Vec::new());
        tracing::warn!(?end, "the parent is gone");
        std::process::exit(1);
    });
    let endpoints = Endpoints { kinesis: kinesis.clone(), dynamodb: dynamodb.clone() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(&endpoints, job, id))
}

async fn serve(endpoints: &Endpoints, job: &str, id: &str) -> Result<(), Failure> {
    let clients = connect(endpoints);
    let config = WorkerConfig::new(WorkerId::new(id), Tables::new(job));
    let metrics = EngineMetrics::register(&prometheus::Registry::new(), "hand_over")?;
    let (table, log) = (Arc::new(DynamoTable::new(clients.dynamodb)), Arc::new(KinesisLog::new(clients.kinesis)));
    let probe = |shard: &str| Probe { shard: shard.to_owned(), count: 0 };
    let worker = Worker::new(config, table, log, WallClock::system(), metrics);
    let worker = worker.stage(job, move |context, _lease| probe(context.shard.as_str()));
    let leave = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let asked = leave.clone();
    tokio::spawn(async move {
        if terminate.recv().await.is_some() {
            tracing::info!("asked to leave");
            asked.cancel();
        }
    });
    tell(&Line::Ready)?;
    let (_ends, end_input) = watch::channel(None);
    worker.run(leave, end_input).await?;
    tracing::info!("left");
    Ok(())
}
