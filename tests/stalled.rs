//! A stage that computes for a minute on every thread its worker has, on a machine whose cores are all taken, loses no
//! lease: renewals run on a thread of their own.
//!
//! DynamoDB is dynoxide, on a runtime of its own and spoken to by the SDK: renewals go through real sockets. A second
//! worker of the job stands by to take what expires.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::inspect;
use flowshift_consumer::lease::{Checkpoint, WorkerId};
use flowshift_consumer::log::{Entry, Log, Record, memory::MemoryLog, put_all};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{RenewalThread, Tables, Timing, Worker, WorkerConfig};
use flowshift_consumer::stage::{Stage, StageError, StatePart};
use flowshift_consumer::table::{Table, aws::DynamoTable};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const STREAM: &str = "words";
const SHARDS: u32 = 4;
/// Threads of the stalled worker's runtime.
const THREADS: usize = 2;
/// How long a stage computes without a pause.
const STALL: Duration = Duration::from_secs(60);
/// How long it must compute to lose its leases where renewals have no thread of their own.
const SHORT_STALL: Duration = Duration::from_secs(25);
/// Spinning threads for each core.
const SPINNERS: usize = 2;
/// The longest wait for anything else on a machine that is as busy as this test makes it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Computes without a pause when a record says so.
struct Stalling {
    worker: &'static str,
    stall: Duration,
    finished: Arc<AtomicUsize>,
}

impl Stage for Stalling {
    fn restore(&mut self, _parts: Vec<StatePart>) -> Result<(), StageError> {
        Ok(())
    }

    fn process(&mut self, record: &Record) -> Result<(), StageError> {
        if record.data == "stall" {
            eprintln!("{} computes", self.worker);
            spin(|| false, self.stall);
            self.finished.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        Ok(Vec::new())
    }
}

fn spin(stop: impl Fn() -> bool, longest: Duration) {
    let began = Instant::now();
    while !stop() && began.elapsed() < longest {
        for round in 0..100_000_u64 {
            std::hint::black_box(round);
        }
    }
}

fn runtime(threads: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

/// A client whose connections live on the runtime that first uses it.
fn table(endpoint: &str) -> Arc<dyn Table> {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .build();
    Arc::new(DynamoTable::new(aws_sdk_dynamodb::Client::from_conf(config)))
}

/// What both workers share.
struct Site {
    endpoint: String,
    log: Arc<MemoryLog>,
    /// Each stage that was made: its worker and its shard.
    made: Arc<Mutex<Vec<(&'static str, String)>>>,
    finished: Arc<AtomicUsize>,
    stall: Duration,
    /// Whether renewals run on a thread of their own.
    own_thread: bool,
}

impl Site {
    fn start(&self, name: &'static str, threads: usize) -> Runtime {
        let runtime = runtime(threads);
        let config = WorkerConfig::new(WorkerId::new(name), Tables::new("stalled"));
        let metrics = EngineMetrics::register(&prometheus::Registry::new(), "stalled").unwrap();
        let log: Arc<dyn Log> = self.log.clone();
        let (made, finished) = (Arc::clone(&self.made), Arc::clone(&self.finished));
        let engine = Worker::new(config, table(&self.endpoint), log, WallClock::system(), metrics);
        let renewing = self.own_thread.then(|| RenewalThread::start("renewals").unwrap());
        let engine = match &renewing {
            Some(thread) => engine.renewals_on(thread.handle(), table(&self.endpoint)),
            None => engine,
        };
        let stall = self.stall;
        let running = engine.stage(STREAM, move |shard, _lease| {
            made.lock().unwrap().push((name, shard.shard.as_str().to_owned()));
            Stalling { worker: name, stall, finished: Arc::clone(&finished) }
        });
        runtime.spawn(async move {
            // The sender must live: its end is no end of the input.
            let (_ends, end_input) = watch::channel(None);
            running.run(CancellationToken::new(), end_input).await.unwrap();
            drop(renewing);
        });
        runtime
    }
}

#[test]
fn a_worker_under_full_load_whose_stages_stall_for_a_minute_loses_no_lease() {
    assert_eq!(stalls(true, STALL), Ok(()));
}

#[test]
fn without_a_thread_for_renewals_the_same_stall_loses_them() {
    // The proof that the other test can fail, and what it was: renewals waited behind the computing stage.
    let lost = stalls(false, SHORT_STALL);
    assert!(lost.is_err(), "no lease was lost, so nothing is proved");
}

/// Lets every stage of one of two workers compute for `stall` at once, on taken cores; an error says what went wrong.
fn stalls(own_thread: bool, stall: Duration) -> Result<(), String> {
    let services = runtime(1);
    let listener = services.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    services.spawn(dynoxide::server::serve_on(listener, dynoxide::Database::memory().unwrap()));
    let log = services.block_on(async { Arc::new(MemoryLog::new(WallClock::system().now_ms())) });
    log.create(STREAM, SHARDS);
    let site =
        Site { endpoint: endpoint.clone(), log, made: Arc::default(), finished: Arc::default(), stall, own_thread };

    let observer = table(&endpoint);
    let rows = || -> BTreeMap<String, (Option<String>, Checkpoint)> {
        let rows = services.block_on(inspect::rows(&*observer, &Tables::new("stalled"), STREAM)).unwrap_or_default();
        rows.into_iter().map(|row| (row.shard.as_str().to_owned(), (row.owner, row.checkpoint))).collect()
    };
    let owners = || rows().into_iter().map(|(shard, (owner, _))| (shard, owner)).collect::<BTreeMap<_, _>>();

    let victim = site.start("victim", THREADS);
    until("every shard is owned", || owners().len() == SHARDS as usize && owners().values().all(Option::is_some));
    let rival = site.start("rival", 1);
    // Whatever the leader wants to move to the second worker has moved when nothing moves for several passes.
    let (mut settled, mut since) = (owners(), Instant::now());
    until("the leases have settled", || {
        let now = owners();
        if now != settled {
            (settled, since) = (now, Instant::now());
        }
        since.elapsed() > Timing::default().assign * 4
    });
    let before = site.made.lock().unwrap().clone();
    let stalled: Vec<&String> =
        settled.iter().filter(|(_, owner)| owner.as_deref() == Some("victim")).map(|(shard, _)| shard).collect();
    assert!(stalled.len() >= THREADS, "{settled:?}");
    eprintln!("settled: {settled:?}");

    let stop = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism().unwrap().get();
    let spinners: Vec<_> = (0..cores * SPINNERS)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || spin(|| stop.load(Ordering::Relaxed), Duration::MAX))
        })
        .collect();
    // The middle of a shard's hash range: one record for each shard of the stalled worker.
    let step = u128::MAX / u128::from(SHARDS);
    let entries = (0..SHARDS).filter(|n| stalled.iter().any(|shard| shard.ends_with(&format!("{n:012}"))));
    let entries = entries.map(|n| Entry {
        partition_key: "stall".into(),
        hash_key: Some(step * u128::from(n) + step / 2),
        data: Bytes::from_static(b"stall"),
    });
    let began = Instant::now();
    services.block_on(put_all(&*site.log, STREAM, entries.collect(), &CancellationToken::new(), |_| {})).unwrap();
    let mut outcome = Ok(());
    until("what the stages computed is committed", || {
        let now = owners();
        if now != settled {
            outcome = Err(format!("after {:?}: {settled:?} became {now:?}", began.elapsed()));
        }
        let committed = |(shard, (_, checkpoint)): (&String, &(Option<String>, Checkpoint))| {
            !stalled.contains(&shard) || matches!(checkpoint, Checkpoint::At(_))
        };
        outcome.is_err() || site.finished.load(Ordering::SeqCst) >= stalled.len() && rows().iter().all(committed)
    });
    let computed = site.finished.load(Ordering::SeqCst);
    if outcome.is_ok() && (began.elapsed() < stall || computed != stalled.len() || *site.made.lock().unwrap() != before)
    {
        outcome = Err(format!("computed {computed} times for {} shards, or by a stage made anew", stalled.len()));
    }
    stop.store(true, Ordering::Relaxed);
    spinners.into_iter().for_each(|spinner| spinner.join().unwrap());
    for runtime in [victim, rival, services] {
        runtime.shutdown_background();
    }
    outcome
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + STALL * 2 + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(200));
    }
}
