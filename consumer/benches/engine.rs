//! What the engine adds to a plain loop over the same records: CPU time per record, as ratios of one run.
//!
//! ```text
//! cargo bench -p flowshift-consumer --bench engine
//! ```
//!
//! Every case runs on one thread, on streams and tables in memory and a paused clock, so that only work is left. The
//! cases take turns; each figure is the median of the rounds in CPU time of the thread, which a busy machine disturbs
//! little. Not here: what a commit of state costs (`benches/commit.rs`), DynamoDB's price (`examples/cost`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{BatchPart, Envelope, FeedKinds, LaneId, Lanes, Message, SourceId, Watermarks};
use flowshift_consumer::lease::WorkerId;
use flowshift_consumer::log::memory::MemoryLog;
use flowshift_consumer::log::{Entry, Log, Record, put_all};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{Tables, Worker, WorkerConfig};
use flowshift_consumer::shard::{Position, ShardId};
use flowshift_consumer::stage::{Batch, Mapped, Mapper, Reducer, ShardContext, Stage, StageError, StatePart};
use flowshift_consumer::table::memory::MemoryTable;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const INPUT: &str = "input";
const EXCHANGE: &str = "exchange";
const RECORDS: usize = 100_000;
const RECORD_BYTES: usize = 200;
const ROUNDS: usize = 7;

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Sums bytes: as little work as a job can do.
#[derive(Default)]
struct Sum {
    shard: String,
    bytes: u64,
}

impl Stage for Sum {
    fn restore(&mut self, _parts: Vec<StatePart>) -> Result<(), StageError> {
        Ok(())
    }

    fn process(&mut self, record: &Record) -> Result<(), StageError> {
        self.bytes += record.data.len() as u64;
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        Ok(vec![(self.shard.clone(), self.bytes.to_be_bytes().to_vec().into())])
    }

    fn finished(&self) -> bool {
        true
    }
}

/// Parts a batch by the first byte of its records.
struct Parting(Lanes);

impl Mapper for Parting {
    type State = i64;
    type Prepared = ();

    fn semantics(&self) -> u32 {
        1
    }

    fn prepare(&self, _snapshot: &Snapshot) -> Result<(), StageError> {
        Ok(())
    }

    fn map(&self, state: &mut i64, batch: &Batch<'_>, (): &()) -> Result<Mapped, StageError> {
        let mut sums = vec![0u64; usize::from(self.0.count())];
        for record in batch.records {
            *state = (*state).max(record.arrived_ms);
            let key = record.data.first().copied().unwrap_or_default();
            sums[usize::from(key) % usize::from(self.0.count())] += record.data.len() as u64;
        }
        let parts = self.0.all().zip(sums).filter(|(_, sum)| *sum > 0);
        let parts = parts.map(|(lane, sum)| (lane, vec![Bytes::from(sum.to_be_bytes().to_vec())])).collect();
        Ok(Mapped { parts, kinds: [!batch.records.is_empty(), false, false, false] })
    }

    fn watermarks(&self, state: &i64) -> Watermarks {
        Watermarks::from_slice(&[*state])
    }

    fn raise(&self, state: &mut i64, to: &Watermarks) {
        *state = (*state).max(to.get(0));
    }

    fn inherit(&self, parents: Vec<i64>) -> i64 {
        parents.into_iter().min().unwrap_or_default()
    }

    fn save(&self, state: &i64) -> Result<Vec<u8>, StageError> {
        Ok(state.to_be_bytes().to_vec())
    }

    fn load(&self, bytes: &Bytes) -> Result<i64, StageError> {
        let bytes = bytes.as_ref().try_into().map_err(|e| StageError::with("state", e))?;
        Ok(i64::from_be_bytes(bytes))
    }
}

#[derive(Default)]
struct Sums(u64);

impl Reducer for Sums {
    fn restore(&mut self, _lane: LaneId, _state: Option<&Bytes>) -> Result<(), StageError> {
        Ok(())
    }

    fn apply(&mut self, _lane: LaneId, payload: &Bytes) -> Result<(), StageError> {
        let sum = payload.as_ref().try_into().map_err(|e| StageError::with("sum", e))?;
        self.0 += u64::from_be_bytes(sum);
        Ok(())
    }

    fn advance(&mut self, _lane: LaneId, _watermarks: &Watermarks) -> Result<Vec<Bytes>, StageError> {
        Ok(Vec::new())
    }

    fn save(&mut self, _lane: LaneId) -> Result<Vec<u8>, StageError> {
        Ok(self.0.to_be_bytes().to_vec())
    }
}

fn entries() -> Vec<Entry> {
    let entry = |i: usize| Entry {
        partition_key: i.to_string(),
        hash_key: None,
        data: Bytes::from(vec![u8::try_from(i % 251).unwrap_or_default(); RECORD_BYTES]),
    };
    (0..RECORDS).map(entry).collect()
}

async fn filled() -> Result<Arc<MemoryLog>, Failure> {
    let log = Arc::new(MemoryLog::new(1_800_000_000_000));
    log.create(INPUT, 1);
    log.create(EXCHANGE, 1);
    put_all(&*log, INPUT, entries(), &CancellationToken::new(), |_| {}).await?;
    Ok(log)
}

fn worker(log: &Arc<MemoryLog>) -> Result<Worker, Failure> {
    let config = WorkerConfig::new(WorkerId::new("worker"), Tables::new("bench"));
    let metrics = EngineMetrics::register(&prometheus::Registry::new(), "bench")?;
    let now = Arc::clone(log);
    let clock = WallClock::new(move || now.now_ms());
    Ok(Worker::new(config, Arc::new(MemoryTable::default()), Arc::clone(log) as _, clock, metrics))
}

/// Runs a job over all that is in the input; its end is now.
async fn to_the_end(worker: Worker) -> Result<Duration, Failure> {
    let (_ends, end_input) = watch::channel(Some(Instant::now()));
    let began = cpu();
    worker.run(CancellationToken::new(), end_input).await?;
    Ok(cpu() - began)
}

async fn plain_loop() -> Result<Duration, Failure> {
    let log = filled().await?;
    let (mut stage, began) = (Sum::default(), cpu());
    let shard = ShardId::new("shardId-000000000000");
    let mut token = log.seek(INPUT, &shard, &Position::TrimHorizon).await?;
    loop {
        let page = log.read(INPUT, &token).await?;
        page.records.iter().try_for_each(|record| stage.process(record))?;
        match page.next {
            Some(next) if !page.records.is_empty() => token = next,
            _ => return Ok(cpu() - began),
        }
    }
}

async fn stage() -> Result<Duration, Failure> {
    let log = filled().await?;
    let sum = |context: &ShardContext, _| Sum { shard: context.shard.to_string(), bytes: 0 };
    to_the_end(worker(&log)?.stage(INPUT, sum)).await
}

async fn map_reduce() -> Result<Duration, Failure> {
    let log = filled().await?;
    let (lanes, kinds) = (Lanes::new(64)?, FeedKinds::new(1));
    let (_, snapshot) = watch::channel(Snapshot::new("bench"));
    let job = worker(&log)?.map(INPUT, EXCHANGE, lanes, kinds, snapshot, Parting(lanes)).reduce(
        EXCHANGE,
        None,
        lanes,
        kinds,
        |_| Sums::default(),
    );
    to_the_end(job).await
}

async fn put() -> Result<Duration, Failure> {
    let log = MemoryLog::new(1_800_000_000_000);
    log.create(INPUT, 1);
    let (entries, began) = (entries(), cpu());
    put_all(&log, INPUT, entries, &CancellationToken::new(), |_| {}).await?;
    Ok(cpu() - began)
}

async fn append() -> Result<Duration, Failure> {
    let log = MemoryLog::new(1_800_000_000_000);
    log.create(INPUT, 1);
    let (entries, began) = (entries(), cpu());
    for request in entries.chunks(500) {
        for answer in log.append(INPUT, request).await? {
            answer?;
        }
    }
    Ok(cpu() - began)
}

async fn messages() -> Result<Vec<Message>, Failure> {
    let source =
        SourceId { stream: filled().await?.identify(INPUT).await?, shard: ShardId::new("shardId-000000000000") };
    let part = |n: usize| BatchPart {
        source: source.clone(),
        epoch: 1,
        n: n as u64 + 1,
        part: 0,
        parts: 1,
        watermarks: Watermarks::from_slice(&[1_800_000_000_000]),
        end: false,
        children: Vec::new(),
        expired: 0,
        diverged: false,
        trimmed: false,
        payload: Bytes::from(vec![7; RECORD_BYTES]),
    };
    Ok((0..RECORDS).map(|n| Message::Batch(part(n))).collect())
}

async fn encode() -> Result<Duration, Failure> {
    let messages = messages().await?;
    let began = cpu();
    let bytes: usize = messages.iter().map(|message| Envelope::encode(message).len()).sum();
    std::hint::black_box(bytes);
    Ok(cpu() - began)
}

async fn decode() -> Result<Duration, Failure> {
    let encoded: Vec<Bytes> = messages().await?.iter().map(Envelope::encode).collect();
    let began = cpu();
    for bytes in &encoded {
        std::hint::black_box(Envelope::decode(bytes)?);
    }
    Ok(cpu() - began)
}

async fn one(case: usize) -> Result<Duration, Failure> {
    match case {
        0 => plain_loop().await,
        1 => stage().await,
        2 => map_reduce().await,
        3 => append().await,
        4 => put().await,
        5 => encode().await,
        _ => decode().await,
    }
}

/// Name, and the case its ratio is against.
const CASES: [(&str, usize); 7] = [
    ("read and sum, no engine", 0),
    ("Stage: read, sum, commit", 0),
    ("Mapper -> 64 lanes -> Reducer", 0),
    ("append in requests of 500, no engine", 3),
    ("put_all", 3),
    ("encode an envelope of 200 B", 0),
    ("decode and prove it", 0),
];

fn main() -> Result<(), Failure> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); CASES.len()];
    for _ in 0..ROUNDS {
        for (case, times) in times.iter_mut().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
            times.push(runtime.block_on(one(case))?);
        }
    }
    times.iter_mut().for_each(|times| times.sort());
    let median = |case: usize| times[case][ROUNDS / 2].as_secs_f64();
    println!("{RECORDS} records of {RECORD_BYTES} B, {ROUNDS} rounds, CPU time");
    println!("| case | ns per record | records/s of one core | times the baseline |\n|---|---|---|---|");
    for (case, (name, baseline)) in CASES.iter().enumerate() {
        let (own, base) = (median(case), median(*baseline));
        let each = own / RECORDS as f64;
        println!("| {name} | {:.0} | {:.2} M | {:.2} |", each * 1e9, 1e-6 / each, own / base);
    }
    Ok(())
}
