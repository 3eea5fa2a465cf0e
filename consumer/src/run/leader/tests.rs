//! The fleet as a whole: workers on tables and streams in memory, under a paused clock, at the default times.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::lease::{Checkpoint, attribute, new_row};
use crate::log::memory::MemoryLog;
use crate::log::{Entry, Record};
use crate::run::{Tables, Timing, Worker};
use crate::shard::ShardId;
use crate::stage::{ShardContext, Stage, StageError, StatePart};
use crate::table::memory::MemoryTable;
use crate::table::{Condition, Item, TableError, Update, Value};

mod outage;
mod start;
mod struck;

const EPOCH_MS: i64 = 1_800_000_000_000;

/// A worker's way to the tables, which a kill cuts.
#[derive(Debug)]
struct Port {
    table: Arc<MemoryTable>,
    dead: AtomicBool,
    /// Calls return only when it wakes.
    asleep: AtomicBool,
    scans: AtomicU64,
}

#[async_trait::async_trait]
impl crate::table::around::Around for Port {
    fn inner(&self) -> &dyn Table {
        &*self.table
    }
    async fn reach(&self) {
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        while self.asleep.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        self.table.scan(table).await
    }
}

/// What was read: by whom, of which shard, when, and the record's text.
type Reads = Arc<Mutex<Vec<(String, String, Instant, String)>>>;

struct Reader {
    worker: String,
    shard: String,
    reads: Reads,
}

impl Stage for Reader {
    fn restore(&mut self, _parts: Vec<StatePart>) -> Result<(), StageError> {
        Ok(())
    }
    fn process(&mut self, record: &Record) -> Result<(), StageError> {
        let text = String::from_utf8_lossy(&record.data).into_owned();
        self.reads.lock().unwrap().push((self.worker.clone(), self.shard.clone(), Instant::now(), text));
        Ok(())
    }
    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        Ok(vec![(self.shard.clone(), Bytes::from_static(b"read"))])
    }
}

struct Process {
    id: String,
    port: Arc<Port>,
    leave: CancellationToken,
    metrics: prometheus::Registry,
    handle: JoinHandle<()>,
}

struct Site {
    table: Arc<MemoryTable>,
    log: Arc<MemoryLog>,
    reads: Reads,
    starts: Option<StartPosition>,
    /// Streams of the job in which nothing comes.
    quiet: &'static [&'static str],
    /// What comes of listing shards.
    listing: Arc<Mutex<outage::Answer>>,
}

impl Site {
    fn new(shards: u32) -> Self {
        let log = Arc::new(MemoryLog::new(EPOCH_MS));
        log.create("flows", shards);
        Self { table: Arc::default(), log, reads: Reads::default(), starts: None, quiet: &[], listing: Arc::default() }
    }

    fn start(&self, id: &str) -> Process {
        let port = Arc::new(Port {
            table: self.table.clone(),
            dead: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            scans: AtomicU64::new(0),
        });
        let timing = Timing { commit: Duration::from_secs(1), ..Timing::default() };
        let config = WorkerConfig { timing, ..crate::run::test_config(id) };
        let registry = prometheus::Registry::new();
        let metrics = EngineMetrics::register(&registry, "test").unwrap();
        let (log, reads, worker) = (self.log.clone(), self.reads.clone(), id.to_owned());
        let clock = WallClock::new(move || log.now_ms());
        let listing = Arc::new(outage::Listing { log: self.log.clone(), answer: self.listing.clone() });
        let stage = move |context: &ShardContext, _| {
            let shard = context.shard.as_str().to_owned();
            Reader { worker: worker.clone(), shard, reads: reads.clone() }
        };
        let mut job = Worker::new(config, port.clone(), listing, clock, metrics).stage("flows", stage.clone());
        for stream in self.quiet {
            job = job.stage(stream, stage.clone());
        }
        if let Some(start) = self.starts {
            job = job.start_at("flows", start);
        }
        let leave = CancellationToken::new();
        let token = leave.clone();
        let handle = tokio::spawn(async move {
            let (_ends, end_input) = watch::channel(None);
            job.run(token, end_input).await.unwrap();
        });
        Process { id: id.to_owned(), port, leave, metrics: registry, handle }
    }

    /// Puts a record into every open shard, as often as `times` says, twice a second.
    async fn produce(&self, times: usize) {
        for _ in 0..times {
            for shard in self.log.shards("flows").await.unwrap().iter().filter(|s| !s.closed) {
                let text = format!("{} {}", shard.id, self.log.now_ms());
                let data = Bytes::from(text);
                let entry = Entry { partition_key: "k".into(), hash_key: Some(shard.range.start), data };
                self.log.append("flows", &[entry]).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn leader(&self) -> String {
        let name = TableName { name: "test-state".into(), key: crate::commit::STATE_KEY };
        let lock = self.table.get(&name, "leader").await.unwrap().unwrap();
        lock.string("owner").unwrap().to_owned()
    }

    async fn rows(&self) -> Vec<LeaseRow> {
        let items = self.table.scan(&leases()).await.unwrap();
        items.iter().map(|item| LeaseRow::read(item).unwrap().unwrap()).collect()
    }

    async fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for row in self.rows().await.into_iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd) {
            *counts.entry(row.owner.unwrap_or_default()).or_default() += 1;
        }
        counts
    }

    /// The longest time after `since` until a shard that `gone` read last was read by another.
    fn longest_gap(&self, gone: &str, since: Instant) -> Duration {
        let reads = self.reads.lock().unwrap();
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        for (worker, shard, _, _) in reads.iter().filter(|read| read.2 <= since) {
            last.insert(shard, worker);
        }
        let orphans: Vec<&str> =
            last.into_iter().filter(|(_, worker)| *worker == gone).map(|(shard, _)| shard).collect();
        assert!(!orphans.is_empty(), "{gone} read nothing");
        let next = |shard: &str| {
            let read = reads.iter().find(|read| read.2 > since && read.1 == shard && read.0 != gone);
            read.map_or(Duration::MAX, |read| read.2.duration_since(since))
        };
        orphans.into_iter().map(next).max().unwrap()
    }

    /// Every record that was read, sorted.
    fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.reads.lock().unwrap().iter().map(|read| read.3.clone()).collect();
        texts.sort();
        texts
    }

    fn put_texts(&self) -> Vec<String> {
        let mut texts: Vec<String> =
            self.log.dump("flows").iter().map(|r| String::from_utf8_lossy(&r.data).into_owned()).collect();
        texts.sort();
        texts
    }
}

fn leases() -> TableName {
    Tables::new("test").leases("flows")
}

impl Process {
    fn kill(self) {
        self.port.dead.store(true, Ordering::Relaxed);
        self.handle.abort();
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().filter(|f| f.name() == format!("test_{name}"));
        family.flat_map(|f| f.get_metric()).map(|m| m.get_counter().get_value()).sum()
    }
}

/// Three settled workers on six shards; the one that leads is the last.
async fn settled(site: &Site) -> Vec<Process> {
    let mut fleet: Vec<Process> = ["a", "b", "c"].iter().map(|id| site.start(id)).collect();
    site.produce(80).await;
    assert!(site.counts().await.values().all(|count| *count == 2), "{:?}", site.counts().await);
    let leader = site.leader().await;
    fleet.sort_by_key(|process| process.id == leader);
    fleet
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_of_the_leader_its_shards_are_read_by_others_within_twenty_seconds() {
    let mut gaps = Vec::new();
    for trial in 0..4 {
        let site = Site::new(6);
        let mut fleet = settled(&site).await;
        tokio::time::sleep(Duration::from_millis(trial * 1011)).await;
        let (leader, since) = (fleet.pop().unwrap(), Instant::now());
        let id = leader.id.clone();
        leader.kill();
        site.produce(60).await;
        gaps.push(site.longest_gap(&id, since));
    }
    gaps.sort();
    eprintln!("kill of the leader to next read: median {:?}, longest {:?}", gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    assert!(gaps[gaps.len() - 1] < Duration::from_secs(20), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_of_another_worker_its_shards_are_read_by_others_within_twenty_seconds() {
    let mut gaps = Vec::new();
    for trial in 0..4 {
        let site = Site::new(6);
        let mut fleet = settled(&site).await;
        tokio::time::sleep(Duration::from_millis(trial * 1011)).await;
        let (victim, since) = (fleet.remove(0), Instant::now());
        let id = victim.id.clone();
        victim.kill();
        site.produce(60).await;
        gaps.push(site.longest_gap(&id, since));
    }
    gaps.sort();
    eprintln!("kill of a worker to next read: median {:?}, longest {:?}", gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    assert!(gaps[gaps.len() - 1] < Duration::from_secs(20), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leaving_worker_hands_its_shards_on_within_two_seconds_and_nothing_is_read_twice() {
    for leader_leaves in [false, true] {
        let site = Site::new(6);
        let mut fleet = settled(&site).await;
        let leaver = fleet.remove(if leader_leaves { 2 } else { 0 });
        let since = Instant::now();
        leaver.leave.cancel();
        let (left, ()) = tokio::join!(leaver.handle, site.produce(40));
        left.unwrap();
        let gap = site.longest_gap(&leaver.id, since);
        eprintln!("leave (leader: {leader_leaves}) to next read: {gap:?}");
        assert!(gap < Duration::from_secs(2), "{gap:?}");
        assert_eq!(site.counts().await.into_values().collect::<Vec<_>>(), [3, 3]);
        assert_eq!(site.texts(), site.put_texts());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_to_a_worker_while_it_leaves_goes_on_to_another_at_once() {
    // It had an owner that was gone, and waited for the failover time.
    let site = Site::new(2);
    let (a, _b) = (site.start("a"), site.start("b"));
    site.produce(40).await;
    let row = site.rows().await.into_iter().find(|row| row.owner.as_deref() == Some("b")).unwrap();
    a.leave.cancel();
    let given =
        Update::new().set(attribute::OWNER, Value::string("a")).set(attribute::COUNTER, Value::number(row.counter + 1));
    site.table.update(&leases(), row.shard.as_str(), given, Condition::None).await.unwrap();
    a.handle.await.unwrap();
    let owners: BTreeSet<Option<String>> = site.rows().await.into_iter().map(|row| row.owner).collect();
    assert_eq!(owners, BTreeSet::from([Some("b".to_owned())]));
}

#[tokio::test(start_paused = true)]
async fn a_leader_new_to_its_office_gives_nothing_to_those_who_died_long_before() {
    // The dead stay on the list for a while. A leader that had watched nobody took them for alive, and their new leases
    // stood still until they expired: 12 s in every rolling restart.
    let site = Site::new(6);
    let mut fleet = settled(&site).await;
    let (leader, standby, dead) = (fleet.pop().unwrap(), fleet.pop().unwrap(), fleet.pop().unwrap());
    dead.kill();
    site.produce(60).await;
    let _fresh = site.start("d");
    site.produce(20).await;
    for leaver in [leader, standby] {
        let (id, since) = (leaver.id.clone(), Instant::now());
        leaver.leave.cancel();
        let (left, ()) = tokio::join!(leaver.handle, site.produce(2));
        left.unwrap();
        site.produce(4).await;
        let gap = site.longest_gap(&id, since);
        assert!(gap < Duration::from_secs(2), "{id}: {gap:?}");
    }
    site.produce(10).await;
    assert_eq!(site.counts().await, BTreeMap::from([("d".to_owned(), 6)]));
    assert_eq!(site.texts(), site.put_texts());
}

#[tokio::test(start_paused = true)]
async fn a_joining_worker_gets_its_share_by_hand_over_and_nothing_is_read_twice() {
    let site = Site::new(8);
    let first = site.start("a");
    site.produce(10).await;
    let second = site.start("b");
    site.produce(60).await;
    assert_eq!(site.counts().await, BTreeMap::from([("a".to_owned(), 4), ("b".to_owned(), 4)]));
    assert_eq!(site.texts(), site.put_texts());
    for worker in [first, second] {
        assert_eq!(worker.metric("leases_lost_total"), 0.0);
        assert_eq!(worker.metric("lease_expirations_total"), 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_at_rest_moves_nothing_and_scans_little() {
    let site = Site::new(6);
    let fleet = settled(&site).await;
    let owners = |rows: Vec<LeaseRow>| rows.into_iter().map(|row| (row.shard, row.owner)).collect::<Vec<_>>();
    let before = owners(site.rows().await);
    let scans = |process: &Process| process.port.scans.load(Ordering::Relaxed);
    let begun: Vec<u64> = fleet.iter().map(scans).collect();
    site.produce(600).await;
    assert_eq!(owners(site.rows().await), before);
    let mut made: Vec<u64> = fleet.iter().zip(begun).map(|(process, begun)| scans(process) - begun).collect();
    made.sort_unstable();
    // 300 s: one scan each 10 s as a safety net, and the leader's and its standby's passes each 2 s.
    assert!(made[0] <= 31 && made[1] <= 182 && made[2] <= 182, "{made:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_whose_old_owner_renews_for_ever_is_finished_by_the_leader() {
    // KCL left such a lease to its old owner for ever (its pull request 1743).
    let site = Site::new(1);
    let shard = &site.log.shards("flows").await.unwrap()[0];
    let row = new_row(shard, &Checkpoint::TrimHorizon, EPOCH_MS)
        .with(attribute::OWNER, Value::string("a"))
        .with(attribute::ASSIGNED, Value::string("a"))
        .with(attribute::CHECKPOINT_OWNER, Value::string("stubborn"));
    site.table.put(&leases(), row, Condition::None).await.unwrap();
    let (table, key) = (site.table.clone(), shard.id.as_str().to_owned());
    let renewing = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let item = table.get(&leases(), &key).await.unwrap().unwrap();
            let counter = item.number(attribute::COUNTER).unwrap();
            let still = Condition::All(vec![
                Condition::Equals(attribute::COUNTER, Value::number(counter)),
                Condition::Exists(attribute::CHECKPOINT_OWNER),
            ]);
            let renewal = Update::new().set(attribute::COUNTER, Value::number(counter + 1));
            if table.update(&leases(), &key, renewal, still).await.is_err() {
                return;
            }
        }
    });
    let _worker = site.start("a");
    site.produce(50).await;
    assert!(site.reads.lock().unwrap().is_empty(), "the old owner may still commit");
    site.produce(30).await;
    renewing.await.unwrap();
    assert_eq!(site.texts(), site.put_texts());
}
