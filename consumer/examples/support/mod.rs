//! What surrounds the stage of an example: services, input from standard input, a worker, and the totals at the end.
//!
//! Nothing of this is special to a program of yours but [`run`]'s middle: clients, [`Worker`], `stage`, `run`.

mod services;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::inspect;
use flowshift_consumer::lease::WorkerId;
use flowshift_consumer::log::{Entry, Log, kinesis::KinesisLog, put_all};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{Handle, Tables, Timing, Worker, WorkerConfig};
use flowshift_consumer::stage::{ShardContext, Stage, StageError};
use flowshift_consumer::table::{Table, aws::DynamoTable};
use services::Services;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Anything that ends an example early.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

const STREAM: &str = "words";

/// Says what ended an example early, in its own words.
pub(crate) fn ended(outcome: Result<(), Failure>) -> std::process::ExitCode {
    let Err(error) = outcome else { return std::process::ExitCode::SUCCESS };
    eprintln!("error: {error}");
    std::process::ExitCode::FAILURE
}

/// Puts the lines of standard input into the stream, counts all that is in it, and prints the committed totals.
pub(crate) async fn run<S: Stage>(
    stage: impl Fn(&ShardContext, Handle) -> S + Send + Sync + 'static,
) -> Result<(), Failure> {
    let services = Services::start(std::env::args().nth(1)).await?;
    services.create_stream(STREAM).await?;
    let log: Arc<dyn Log> = Arc::new(KinesisLog::new(services.kinesis.clone()));
    let table: Arc<dyn Table> = Arc::new(DynamoTable::new(services.dynamodb.clone()));
    put_lines(&*log).await?;

    // Another one at every start: a restarted process is another worker.
    let worker = WorkerId::new(format!("{}-{}", std::process::id(), WallClock::system().now_ms()));
    let config = WorkerConfig {
        timing: Timing { commit: Duration::from_millis(500), ..Timing::default() },
        alone: services.embedded(),
        ..WorkerConfig::new(worker, Tables::new("word-count"))
    };
    let tables = config.tables.clone();
    let metrics = EngineMetrics::register(&prometheus::Registry::new(), "word_count")?;
    // The input ended with the last line: the worker returns once everything up to now is counted and committed.
    let (_ends, end_input) = watch::channel(Some(Instant::now()));
    let worker = Worker::new(config, Arc::clone(&table), Arc::clone(&log), WallClock::system(), metrics);
    let worker = worker.stage(STREAM, stage);
    let stream = log.identify(STREAM).await?;
    let totals = || async { Ok::<_, Failure>(sum(&inspect::parts(&table, &tables, &stream).await?)?) };
    let mut running = tokio::spawn(worker.run(CancellationToken::new(), end_input));
    loop {
        match tokio::time::timeout(Duration::from_secs(1), &mut running).await {
            Ok(ended) => break ended??,
            // Before the first pass of the leader there is no table to read yet.
            Err(_) => eprintln!("committed: {:?}", totals().await.unwrap_or_default()),
        }
    }
    totals().await?.iter().for_each(|(word, n)| println!("{word} {n}"));
    Ok(())
}

async fn put_lines(log: &dyn Log) -> Result<(), Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let entries: Vec<Entry> = text.lines().zip(0u32..).map(|(line, n)| entry(line, n)).collect();
    let lines = entries.len();
    put_all(log, STREAM, entries, &CancellationToken::new(), |_| {}).await?;
    eprintln!("put {lines} lines");
    Ok(())
}

fn entry(line: &str, n: u32) -> Entry {
    // Keys of a small set spread the lines over the shards.
    Entry { partition_key: (n % 100).to_string(), hash_key: None, data: Bytes::from(line.to_owned()) }
}

/// Counts over all shards.
fn sum(parts: &[(String, Bytes)]) -> Result<BTreeMap<String, u64>, StageError> {
    let mut sum = BTreeMap::new();
    for (_, bytes) in parts {
        for (word, n) in decode(bytes)? {
            *sum.entry(word).or_default() += n;
        }
    }
    Ok(sum)
}

/// Counts as `word n` lines.
pub(crate) fn encode(counts: &BTreeMap<String, u64>) -> Bytes {
    counts.iter().map(|(word, n)| format!("{word} {n}\n")).collect::<String>().into()
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &Bytes) -> Result<BTreeMap<String, u64>, StageError> {
    let text = String::from_utf8_lossy(bytes);
    let line = |line: &str| {
        let (word, n) = line.split_once(' ').ok_or_else(|| StageError::new(format!("no count in line {line:?}")))?;
        let n = n.parse().map_err(|e| StageError::with(format!("count {n:?}"), e))?;
        Ok((word.to_owned(), n))
    };
    text.lines().map(line).collect()
}
