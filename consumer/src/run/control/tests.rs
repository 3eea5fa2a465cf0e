//! The source set of a large fleet: what a pass costs must not grow with the square of its sources.

use super::idle::Out;
use super::*;
use crate::commit::Cut;
use crate::lease::new_row;
use crate::log::memory::MemoryLog;
use crate::run::Tables;
use crate::shard::{HashRange, Shard, ShardId};
use crate::table::Update;
use crate::table::memory::MemoryTable;
use crate::table::metered::{Metered, Operation};

mod garbled;
mod heirs;
mod narrow;

const IDLE_AFTER: Duration = Duration::from_secs(30);

/// DynamoDB as it answers within a region.
#[derive(Debug)]
struct Slow(Arc<Metered>);

#[async_trait::async_trait]
impl crate::table::around::Around for Slow {
    fn inner(&self) -> &dyn Table {
        &*self.0
    }
    async fn reach(&self) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A leader's view of a fleet of sources, each with a cut whose watermark is its number.
struct Fleet {
    meter: Arc<Metered>,
    control: SourceControl,
    leases: TableName,
    state: TableName,
}

impl Fleet {
    async fn new(sources: i64, change: impl Fn(i64, Item) -> Item) -> Self {
        let (log, meter) = (MemoryLog::new(0), Arc::new(Metered::new(Arc::new(MemoryTable::default()))));
        log.create("exchange", 1);
        let tables = Tables::new("test");
        let (leases, state) = (tables.leases("flows"), tables.state());
        for number in 0..sources {
            let id = ShardId::new(format!("shardId-{number:012}"));
            let shard = Shard { id, parents: vec![], range: HashRange::ALL, closed: false };
            let cut = Cut { epoch: 1, n: 1, watermarks: vec![number], ..Cut::default() };
            let row = new_row(&shard, &Checkpoint::TrimHorizon, 0)
                .with(attribute::CUT, Value::B(cut.encode_bytes()))
                .with(attribute::DATA[0], Value::number(1))
                .with(attribute::TIP, Value::number(1));
            meter.put(&leases, change(number, row), Condition::None).await.unwrap();
        }
        let plan = ControlPlan {
            input: "flows".into(),
            exchange: "exchange".into(),
            lanes: Lanes::new(2).unwrap(),
            kinds: FeedKinds::new(1),
            idle_after: IDLE_AFTER,
            stuck_after: Duration::from_secs(600),
        };
        let metrics = EngineMetrics::register(&prometheus::Registry::new(), "test").unwrap();
        let (table, log) = (Arc::new(Slow(Arc::clone(&meter))), Arc::new(log));
        let stream = StreamId { name: "flows".into(), created_ms: 1_700_000_000_000 };
        let control = SourceControl::new(plan, table, log, leases.clone(), state.clone(), metrics, stream);
        Self { meter, control, leases, state }
    }

    async fn rows(&self) -> Vec<LeaseRow> {
        let items = self.meter.inner().scan(&self.leases).await.unwrap();
        items.iter().map(|item| LeaseRow::read(item).unwrap().unwrap()).collect()
    }

    /// Every owner makes a cut without records.
    async fn beat(&self, n: u64) {
        for row in self.rows().await {
            let cut = Cut { n, ..row.cut.unwrap() };
            let beat = Update::new().set(attribute::CUT, Value::B(cut.encode_bytes()));
            self.meter.update(&self.leases, row.shard.as_str(), beat, Condition::None).await.unwrap();
        }
    }

    async fn tick(&mut self) {
        self.control.tick(&self.rows().await, &BTreeSet::new(), &CancellationToken::new()).await.unwrap();
    }

    /// Two sources of which the second asks to come back, its row changed by `change`, and the rows; the set that says
    /// so is committed.
    async fn asking(change: impl Fn(Item) -> Item) -> (Self, Vec<LeaseRow>) {
        let asks = |row: Item| change(row.with(attribute::STATUS[0], Value::number(Status::Return.code())));
        let mut fleet = Self::new(2, |number, row| if number == 1 { asks(row) } else { row }).await;
        let rows = fleet.rows().await;
        let set = fleet.control.set(&rows, &BTreeSet::new());
        fleet.control.commit(set).await.unwrap();
        (fleet, rows)
    }

    /// Gives a floor while the row of who asks is changed; its status then.
    async fn let_back_while(&mut self, rows: &[LeaseRow], change: Update) -> Status {
        let (meter, leases) = (Arc::clone(&self.meter), self.leases.clone());
        let meanwhile = async {
            // After the scan, which is answered at 5 ms, and before the write, which lands at 20 ms.
            tokio::time::sleep(Duration::from_millis(7)).await;
            meter.update(&leases, rows[1].shard.as_str(), change, Condition::None).await.unwrap();
        };
        let (done, ()) = tokio::join!(self.control.let_back(rows), meanwhile);
        done.unwrap();
        self.rows().await[1].status[0]
    }

    fn scans(&self) -> u64 {
        self.meter.usage().iter().filter(|((_, o), _)| *o == Operation::Scan).map(|(_, usage)| usage.calls).sum()
    }
}

/// A lane that takes up the committed set after a loss would count such a child as ended, and close what it has to say.
#[tokio::test(start_paused = true)]
async fn a_set_names_the_children_of_a_consumed_shard_before_their_rows_are_made() {
    let ended = |number: i64, row: Item| match number {
        0 => row.with(attribute::CHECKPOINT, Value::string("SHARD_END")).with(
            attribute::CHILDREN,
            Value::Ss(["shardId-000000000001", "shardId-000000000007"].map(Into::into).into()),
        ),
        _ => row,
    };
    let mut fleet = Fleet::new(2, ended).await;
    fleet.tick().await;
    let set = fleet.control.committed.clone().unwrap().sources;
    let names: Vec<&str> = set.keys().map(|id| id.shard.as_str()).collect();
    assert_eq!(names, ["shardId-000000000001", "shardId-000000000007"]);
}

/// Its records are still to come: lanes would have closed what they belong to.
#[tokio::test(start_paused = true)]
async fn a_stuck_source_is_put_out_unless_records_it_cut_may_not_be_emitted() {
    let pending = |number: i64, row: Item| {
        let cut = Cut { epoch: 1, n: 1, records: u64::from(number != 2), watermarks: vec![number], ..Cut::default() };
        let row = row.with(attribute::CUT, Value::B(cut.encode_bytes())).with(attribute::TIP, Value::number(0));
        if number == 0 { row } else { row.with(attribute::PENDING, Value::string("7")) }
    };
    let mut fleet = Fleet::new(3, pending).await;
    fleet.tick().await;
    tokio::time::sleep(Duration::from_secs(599)).await;
    fleet.tick().await;
    assert!(fleet.rows().await.iter().all(|row| row.status[0] == Status::Live), "too early");
    tokio::time::sleep(Duration::from_secs(2)).await;
    fleet.tick().await;
    let statuses: Vec<Status> = fleet.rows().await.iter().map(|row| row.status[0]).collect();
    assert_eq!(statuses, [Status::Idle, Status::Live, Status::Idle], "settled, cut, heartbeat");
}

/// It always has a batch of another kind that may not be emitted.
#[tokio::test(start_paused = true)]
async fn a_silent_kind_of_a_busy_source_is_put_out() {
    let mut fleet = Fleet::new(1, |_, row| row.with(attribute::STATUS[1], Value::number(Status::Live.code()))).await;
    fleet.control.plan.kinds = FeedKinds::new(2);
    for n in 2..20 {
        fleet.tick().await;
        let row = &fleet.rows().await[0];
        let cut = Cut { epoch: 1, n, records: 5, watermarks: vec![0, 0], ..Cut::default() };
        let busy = Update::new()
            .set(attribute::CUT, Value::B(cut.encode_bytes()))
            .set(attribute::DATA[0], Value::number(n))
            .set(attribute::PENDING, Value::string(n.to_string()));
        fleet.meter.update(&fleet.leases, row.shard.as_str(), busy, Condition::None).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(fleet.rows().await[0].status[..2], [Status::Live, Status::Idle]);
}

/// It was one whole scan of the table for each of them: after an idle night a leader of 1,000 sources scanned 1,000
/// times.
#[tokio::test(start_paused = true)]
async fn all_sources_that_come_back_together_share_one_look_at_the_rows() {
    let returning = |number: i64, row: Item| {
        let status = if number < 3 { Status::Live } else { Status::Return };
        row.with(attribute::STATUS[0], Value::number(status.code()))
    };
    let mut fleet = Fleet::new(200, returning).await;
    let began = Instant::now();
    fleet.tick().await;
    assert_eq!(fleet.scans(), 1);
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    for row in fleet.rows().await {
        let asked = row.shard.as_str() > "shardId-000000000002";
        assert_eq!((row.status[0], row.floor[0]), (Status::Live, asked.then_some(0)), "{}", row.shard);
    }
    fleet.tick().await;
    assert_eq!(fleet.scans(), 1, "nobody asks");
}

#[tokio::test(start_paused = true)]
async fn with_nobody_live_all_come_back_where_the_furthest_stood() {
    let mut fleet = Fleet::new(20, |_, row| row.with(attribute::STATUS[0], Value::number(Status::Return.code()))).await;
    fleet.tick().await;
    assert!(fleet.rows().await.iter().all(|row| row.status[0] == Status::Live && row.floor[0] == Some(19)));
}

/// A leader that slept between its look and its write: meanwhile another let the source back, it cut data, went idle
/// and asked again of lanes that are past the old floor.
#[tokio::test(start_paused = true)]
async fn a_floor_is_not_written_over_data_cut_since_it_was_found() {
    let (mut fleet, rows) = Fleet::asking(|row| row).await;
    let cut = Update::new().set(attribute::DATA[0], Value::number(2));
    assert_eq!(fleet.let_back_while(&rows, cut).await, Status::Return);
    fleet.control.let_back(&fleet.rows().await).await.unwrap();
    assert_eq!(fleet.rows().await[1].status[0], Status::Live, "the next look finds it as it is");
}

/// One after the other they took 1,000 answers' time inside one pass, longer than the leader's lock lasts.
#[tokio::test(start_paused = true)]
async fn a_fleet_that_falls_silent_is_put_out_in_one_short_pass() {
    let mut fleet = Fleet::new(1_000, |_, row| row).await;
    fleet.tick().await;
    tokio::time::sleep(IDLE_AFTER).await;
    fleet.beat(2).await;
    let began = Instant::now();
    fleet.tick().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(fleet.rows().await.iter().all(|row| row.status[0] == Status::Idle));
}

/// Its reads failed, or it had no owner, for `idle_after`: it was put out as idle, and all that lay in its shard was
/// late.
#[tokio::test(start_paused = true)]
async fn a_source_nobody_hears_of_is_not_idle() {
    let mut fleet = Fleet::new(2, |_, row| row).await;
    fleet.tick().await;
    tokio::time::sleep(IDLE_AFTER * 4).await;
    fleet.tick().await;
    assert!(fleet.rows().await.iter().all(|row| row.status[0] == Status::Live));
    // Back, and nothing there: that it was silent before counts as little.
    fleet.beat(2).await;
    fleet.tick().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    fleet.beat(3).await;
    fleet.tick().await;
    assert!(fleet.rows().await.iter().all(|row| row.status[0] == Status::Idle));
}

/// Lanes stood still for as long as the parent's backlog took, and after `stuck_after` the child was put out, so that
/// all since the reshard was late.
#[tokio::test(start_paused = true)]
async fn a_child_is_in_no_set_and_never_stuck_before_its_parents_end() {
    let child = |number: i64, mut row: Item| {
        if number == 1 {
            row.set(attribute::PARENTS, Value::Ss(["shardId-000000000000"].map(String::from).into()));
            [attribute::CUT, attribute::DATA[0]].into_iter().for_each(|name| row.remove(name));
        }
        row
    };
    let mut fleet = Fleet::new(2, child).await;
    for n in 2..200 {
        fleet.tick().await;
        let named = fleet.control.committed.as_ref().map(|set| set.sources.len());
        assert_eq!(named, Some(1));
        tokio::time::sleep(Duration::from_secs(4)).await;
        let parent = &fleet.rows().await[0];
        let cut = Cut { n, ..parent.cut.clone().unwrap() };
        let beat = Update::new().set(attribute::CUT, Value::B(cut.encode_bytes()));
        fleet.meter.update(&fleet.leases, parent.shard.as_str(), beat, Condition::None).await.unwrap();
    }
    assert_eq!(fleet.rows().await[1].status[0], Status::Live);
    let end = Update::new().set(attribute::CHECKPOINT, Value::string("SHARD_END"));
    fleet.meter.update(&fleet.leases, "shardId-000000000000", end, Condition::None).await.unwrap();
    fleet.tick().await;
    let set = fleet.control.committed.clone().unwrap().sources;
    let names: Vec<&str> = set.keys().map(|id| id.shard.as_str()).collect();
    assert_eq!(names, ["shardId-000000000001"]);
}

/// Above some 5,700 sources no source set fitted the item, and none was ever committed again.
#[tokio::test(start_paused = true)]
async fn the_source_set_of_ten_thousand_sources_fits_its_item() {
    let mut fleet = Fleet::new(10_000, |_, row| row).await;
    fleet.tick().await;
    let item = fleet.meter.inner().get(&fleet.state, KEY).await.unwrap().unwrap();
    println!("{} bytes", item.size());
    assert!(item.size() < 400 * 1024, "{} bytes", item.size());
    let committed = fleet.control.committed.clone();
    fleet.control.begin().await.unwrap();
    assert_eq!(fleet.control.committed, committed, "a new leader reads it");
    assert_eq!(committed.map(|control| control.sources.len()), Some(10_000));
}

/// A leader's write that landed a minute late let the source back at the floor of an earlier time it asked; meanwhile
/// it had lost its state to a new owner, was told out, and lanes had closed what it then spoke of.
#[tokio::test(start_paused = true)]
async fn a_floor_answers_the_time_the_source_asked_and_no_later_one() {
    let (mut fleet, rows) = Fleet::asking(|row| row.with(attribute::ASKED, Value::number(4))).await;
    let again = Update::new().set(attribute::ASKED, Value::number(5));
    assert_eq!(fleet.let_back_while(&rows, again).await, Status::Return);
    fleet.control.let_back(&fleet.rows().await).await.unwrap();
    assert_eq!(fleet.rows().await[1].status[0], Status::Live, "the next look finds it as it is");
}

/// One that slept and is no leader any more knows of no set since its own, by which lanes may have gone on.
#[tokio::test(start_paused = true)]
async fn no_floor_is_given_on_the_word_of_a_set_that_is_not_the_latest() {
    let (mut fleet, rows) = Fleet::asking(|row| row).await;
    let ours = fleet.control.committed.clone();
    let set = ours.clone().unwrap().sources;
    let told = set.into_keys().map(|id| (id, vec![Status::Idle])).collect();
    fleet.control.commit(told).await.unwrap();
    fleet.control.committed = ours;
    fleet.control.let_back(&rows).await.unwrap();
    assert_eq!(fleet.rows().await[1].status[0], Status::Return);
    assert_eq!(fleet.control.committed.as_ref().map(|set| set.number), Some(2), "it knows now");
}

/// The leader's write landed after its END; its children had counted by then, and lanes now went past them.
#[tokio::test(start_paused = true)]
async fn nobody_is_put_out_or_let_back_after_its_end_or_in_another_epoch() {
    let pending = |value: &str| Update::new().set(attribute::PENDING, Value::string(value));
    let epoch = Update::new().set(attribute::EPOCH, Value::number(9));
    let end = Update::new().set(attribute::CHECKPOINT, Value::string("SHARD_END"));
    for meanwhile in [pending("SHARD_END"), epoch, end] {
        let (fleet, rows) = Fleet::asking(|row| row).await;
        let (meter, leases) = (Arc::clone(&fleet.meter), fleet.leases.clone());
        for row in &rows {
            meter.update(&leases, row.shard.as_str(), meanwhile.clone(), Condition::None).await.unwrap();
        }
        for stuck in [false, true] {
            fleet.control.put_out(&rows[0], Out { kind: 0, stuck }).await.unwrap();
        }
        fleet.control.floor_for(&rows[1], 0, 5).await.unwrap();
        let statuses: Vec<Status> = fleet.rows().await.iter().map(|row| row.status[0]).collect();
        assert_eq!(statuses, [Status::Live, Status::Return], "{meanwhile:?}");
    }
    // As it was read, both are done; also while it goes on with other kinds, but then it is not stuck.
    let (fleet, rows) = Fleet::asking(|row| row).await;
    for row in &rows {
        fleet.meter.update(&fleet.leases, row.shard.as_str(), pending("77"), Condition::None).await.unwrap();
    }
    fleet.control.put_out(&rows[0], Out { kind: 0, stuck: true }).await.unwrap();
    assert_eq!(fleet.rows().await[0].status[0], Status::Live);
    fleet.control.put_out(&rows[0], Out { kind: 0, stuck: false }).await.unwrap();
    fleet.control.floor_for(&rows[1], 0, 5).await.unwrap();
    let statuses: Vec<Status> = fleet.rows().await.iter().map(|row| row.status[0]).collect();
    assert_eq!(statuses, [Status::Idle, Status::Live]);
}

/// A lane that caught up by such a set would have counted it as ended, and dropped all it had to say once its row was
/// mended.
#[tokio::test(start_paused = true)]
async fn a_source_whose_row_cannot_be_read_stays_in_the_set() {
    let mut fleet = Fleet::new(2, |_, row| row).await;
    fleet.tick().await;
    let before = fleet.control.committed.clone();
    let mut rows = fleet.rows().await;
    let unreadable = BTreeSet::from([rows.remove(0).shard]);
    fleet.control.tick(&rows, &unreadable, &CancellationToken::new()).await.unwrap();
    assert_eq!(fleet.control.committed, before);
    fleet.control.tick(&rows, &BTreeSet::new(), &CancellationToken::new()).await.unwrap();
    assert_eq!(fleet.control.committed.as_ref().map(|set| set.sources.len()), Some(1));
}
