//! One job: its stream, its trickle of records, its worker processes and what they tell.
//!
//! Here: starting, signalling, observing. Not here: what is measured ([`super::scenario`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::inspect;
use flowshift_consumer::lease::LeaseRow;
use flowshift_consumer::log::{Entry, Log, kinesis::KinesisLog};
use flowshift_consumer::run::Tables;
use flowshift_consumer::shard::Shard;
use flowshift_consumer::table::{Table, aws::DynamoTable};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Failure;
use super::protocol::{Line, Moment};
use super::services::{Endpoints, connect};

/// Pause between two records of a shard.
pub(crate) const TRICKLE: Duration = Duration::from_millis(100);
/// Nothing of what is waited for takes longer, unless it never happens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(250);
/// Seconds; a shard's owner that has read nothing for longer does not read.
const LATELY: f64 = 3.0;
/// A fleet that has not changed for this long has settled.
const SETTLED: Duration = Duration::from_secs(4);

/// What a job consists of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) workers: u32,
    pub(crate) shards: u32,
    pub(crate) seed: u64,
    pub(crate) logs: Option<PathBuf>,
}

/// Waits for a process to end; whether it did in time.
pub(crate) async fn ends(mut child: Child) -> bool {
    // `wait` closes the child's standard input, which a worker takes for its parent's death: it must outlive the wait.
    let input = child.stdin.take();
    let waiting = tokio::task::spawn_blocking(move || {
        let ended = child.wait();
        drop(input);
        ended
    });
    tokio::time::timeout(PATIENCE, waiting).await.is_ok_and(|ended| ended.is_ok_and(|status| status.is_ok()))
}

/// A worker process; it ends itself when its standard input does, so nothing is left when this program dies.
struct Process {
    id: String,
    child: Child,
    pid: Pid,
}

/// A job with its processes.
pub(crate) struct Job {
    plan: Plan,
    pub(crate) chance: SmallRng,
    endpoints: Endpoints,
    table: DynamoTable,
    tables: Tables,
    processes: Vec<Process>,
    started: u32,
    tell: mpsc::UnboundedSender<(String, Line)>,
    told: mpsc::UnboundedReceiver<(String, Line)>,
    /// The last moment at which a worker processed a record of a shard.
    pub(crate) last: BTreeMap<(String, String), Moment>,
}

impl Job {
    /// Makes the stream, starts the trickle and the workers.
    pub(crate) async fn start(plan: Plan, endpoints: Endpoints) -> Result<Self, Failure> {
        let clients = connect(&endpoints);
        let shards = i32::try_from(plan.shards)?;
        clients.kinesis.create_stream().stream_name(&plan.name).shard_count(shards).send().await?;
        let log = Arc::new(KinesisLog::new(clients.kinesis));
        let shards = log.shards(&plan.name).await?;
        tokio::spawn(trickle(log, plan.name.clone(), shards));
        let (tell, told) = mpsc::unbounded_channel();
        let mut job = Self {
            chance: SmallRng::seed_from_u64(plan.seed),
            endpoints,
            table: DynamoTable::new(clients.dynamodb),
            tables: Tables::new(plan.name.clone()),
            processes: Vec::new(),
            started: 0,
            tell,
            told,
            last: BTreeMap::new(),
            plan,
        };
        for _ in 0..job.plan.workers {
            job.start_worker()?;
        }
        Ok(job)
    }

    /// Starts one more worker process and returns its id.
    pub(crate) fn start_worker(&mut self) -> Result<String, Failure> {
        self.started += 1;
        let id = format!("{}-w{}", self.plan.name, self.started);
        let errors = match &self.plan.logs {
            None => Stdio::null(),
            Some(folder) => {
                std::fs::create_dir_all(folder)?;
                std::fs::File::create(folder.join(format!("{id}.log")))?.into()
            }
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--worker", &self.endpoints.kinesis, &self.endpoints.dynamodb, &self.plan.name, &id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()?;
        let pid = Pid::from_child(&child);
        let out = child.stdout.take().ok_or("a worker has no standard output")?;
        let (tell, teller) = (self.tell.clone(), id.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok).filter_map(|text| Line::parse(&text)) {
                if tell.send((teller.clone(), line)).is_err() {
                    return;
                }
            }
        });
        self.processes.push(Process { id: id.clone(), child, pid });
        Ok(id)
    }

    /// Ids of the workers that were not stopped.
    pub(crate) fn workers(&self) -> Vec<String> {
        self.processes.iter().map(|p| p.id.clone()).collect()
    }

    /// Sends a signal and returns the moment just before it; the worker no longer counts as one of the job's.
    pub(crate) fn signal(&mut self, id: &str, signal: Signal) -> Result<(Moment, Child), Failure> {
        let index = self.processes.iter().position(|p| p.id == id).ok_or_else(|| format!("no worker {id}"))?;
        let process = self.processes.remove(index);
        let at = Moment::now();
        kill_process(process.pid, signal)?;
        Ok((at, process.child))
    }

    /// The next line of any worker, or none by `until`.
    pub(crate) async fn next(&mut self, until: Instant) -> Option<(String, Line)> {
        let told = tokio::time::timeout_at(until, self.told.recv()).await.ok().flatten()?;
        if let (id, Line::Read(shard, at)) = &told {
            self.last.insert((shard.clone(), id.clone()), *at);
        }
        Some(told)
    }

    pub(crate) async fn rows(&self) -> Result<Vec<LeaseRow>, Failure> {
        let rows = inspect::rows(&self.table, &self.tables, &self.plan.name).await?;
        Ok(rows)
    }

    /// The worker that holds the leader's lock.
    pub(crate) async fn leader(&self) -> Result<Option<String>, Failure> {
        let lock = self.table.get(&self.tables.state(), "leader").await?;
        Ok(lock.and_then(|item| item.string("owner").map(str::to_owned)))
    }

    /// Waits until every shard is read by its row's owner, a worker leads, and nothing has moved for a while.
    pub(crate) async fn settle(&mut self) -> Result<(), Failure> {
        let patience = Instant::now() + PATIENCE;
        let mut seen: (Vec<Option<String>>, Option<String>) = Default::default();
        let mut since = Instant::now();
        while Instant::now() < patience {
            let look = Instant::now() + LOOK;
            while self.next(look).await.is_some() {}
            // Before the first pass there are no tables.
            let Ok(rows) = self.rows().await else { continue };
            let now = (rows.iter().map(|r| r.owner.clone()).collect(), self.leader().await?);
            let live: BTreeSet<String> = self.workers().into_iter().collect();
            let all_read = rows.len() == self.plan.shards as usize && rows.iter().all(|row| self.is_read(row));
            let led = now.1.as_ref().is_some_and(|leader| live.contains(leader));
            if now != seen || !all_read || !led {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= SETTLED {
                return Ok(());
            }
        }
        Err(format!("{}: not settled after {PATIENCE:?}: {seen:?}", self.plan.name).into())
    }

    /// Whether a living worker has just processed a record of each of these shards.
    pub(crate) fn all_read(&self, shards: &BTreeSet<String>) -> bool {
        let fresh = |at: Option<&Moment>| at.is_some_and(|at| Moment::now().seconds_since(*at) < 1.0);
        let last = |shard: &String, id: &String| self.last.get(&(shard.clone(), id.clone()));
        shards.iter().all(|shard| self.processes.iter().any(|p| fresh(last(shard, &p.id))))
    }

    /// Whether the row's owner lives and has processed a record lately.
    fn is_read(&self, row: &LeaseRow) -> bool {
        let Some(owner) = row.owner.as_ref().filter(|o| self.processes.iter().any(|p| p.id == **o)) else {
            return false;
        };
        let last = self.last.get(&(row.shard.as_str().to_owned(), owner.clone()));
        row.checkpoint_owner.is_none() && last.is_some_and(|at| Moment::now().seconds_since(*at) < LATELY)
    }
}

/// One record into every shard, again and again.
async fn trickle(log: Arc<KinesisLog>, stream: String, shards: Vec<Shard>) {
    let entries: Vec<Entry> = shards
        .iter()
        .map(|shard| Entry {
            partition_key: shard.id.as_str().to_owned(),
            hash_key: Some(shard.range.start),
            data: Bytes::from_static(b"tick"),
        })
        .collect();
    let mut tick = tokio::time::interval(TRICKLE);
    loop {
        tick.tick().await;
        if let Err(e) = log.append(&stream, &entries).await {
            eprintln!("{stream}: trickle: {e}");
        }
    }
}
