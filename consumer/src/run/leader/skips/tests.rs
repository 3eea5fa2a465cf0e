//! One leader after the other over rows that stand still or move.

use super::*;
use crate::exchange::LaneId;
use crate::lease::new_row;
use crate::log::memory::MemoryLog;
use crate::log::{Entry, Record};
use crate::shard::{HashRange, Shard};
use crate::skip::SkipRecord;
use crate::table::memory::MemoryTable;

const STREAM: &str = "evidence";
const STUCK_AFTER: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);

struct Site {
    table: Arc<MemoryTable>,
    log: Arc<MemoryLog>,
}

impl Site {
    fn new() -> Self {
        let log = Arc::new(MemoryLog::new(0));
        log.create(STREAM, 1);
        Self { table: Arc::default(), log }
    }

    fn leader(&self) -> SkipControl {
        // Steps of 10 ms; the second kind is not judged.
        let record = |lane: LaneId, kind: usize, moment_ms: i64| {
            let until_ms = moment_ms / 10 * 10;
            let data = format!("{lane} {until_ms}").into();
            let entry = Entry { partition_key: lane.to_string(), hash_key: None, data };
            (kind == 0).then_some(SkipRecord { until_ms, entry })
        };
        let (stream, lanes, stuck_after) = (STREAM.to_owned(), Lanes::new(4).unwrap(), STUCK_AFTER);
        let plan = SkipPlan { stream, lanes, stuck_after, records: SkipRecords::new(record) };
        let metrics = EngineMetrics::register(&prometheus::Registry::new(), "test").unwrap();
        let state = crate::run::test_config("a").tables.state();
        SkipControl::new(plan, self.table.clone(), self.log.clone(), state, metrics)
    }

    fn put(&self) -> Vec<String> {
        let text = |record: &Record| String::from_utf8_lossy(&record.data).into_owned();
        let mut put: Vec<String> = self.log.dump(STREAM).iter().map(text).collect();
        put.sort();
        put
    }
}

/// The rows of two shards with two lanes each: their checkpoints and how far they have come.
fn rows(shards: [(&str, i64); 2]) -> Vec<LeaseRow> {
    let half = u128::MAX / 2;
    let ranges = [HashRange { start: 0, end: half }, HashRange { start: half + 1, end: u128::MAX }];
    let rows = shards.into_iter().zip(ranges).enumerate().map(|(index, ((checkpoint, reached), range))| {
        let shard = Shard { id: ShardId::new(index.to_string()), parents: vec![], range, closed: false };
        let row = new_row(&shard, &Checkpoint::parse(checkpoint).unwrap(), 0);
        let row = LeaseRow::read(&row).unwrap().unwrap();
        LeaseRow { reached: [Some(reached), Some(reached), None, None], ..row }
    });
    rows.collect()
}

async fn tick(leader: &mut SkipControl, shards: [(&str, i64); 2]) {
    leader.tick(&rows(shards), &CancellationToken::new()).await.unwrap();
}

/// Ticks every minute for longer than `stuck_after`: the first shard stands still, the second moves.
async fn until_stuck(leader: &mut SkipControl) {
    for minute in 0..=11 {
        tick(leader, [("5", 47), (&(100 + minute).to_string(), 90 + minute)]).await;
        tokio::time::advance(MINUTE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_stands_still_is_skipped_up_to_where_the_others_are_and_further_with_them() {
    let site = Site::new();
    let mut leader = site.leader();
    leader.begin().await.unwrap();
    until_stuck(&mut leader).await;
    assert_eq!(site.put(), ["0 100", "1 100"], "its two lanes, whole steps, the judged kind");
    tick(&mut leader, [("5", 47), ("120", 109)]).await;
    assert_eq!(site.put().len(), 2, "no new step, nothing new to say");
    tick(&mut leader, [("5", 47), ("121", 112)]).await;
    assert_eq!(site.put(), ["0 100", "0 110", "1 100", "1 110"]);
    // It is back and catches up: everybody waits for it again.
    for reached in [60, 70, 80] {
        tick(&mut leader, [(&reached.to_string(), reached), ("122", 190)]).await;
    }
    assert_eq!(site.put().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_goes_on_at_once_and_puts_again_what_was_committed() {
    let site = Site::new();
    let mut first = site.leader();
    first.begin().await.unwrap();
    until_stuck(&mut first).await;
    let mut next = site.leader();
    next.begin().await.unwrap();
    tick(&mut next, [("5", 47), ("130", 101)]).await;
    assert_eq!(site.put(), ["0 100", "0 100", "1 100", "1 100"], "again, in case the first had died before its put");
    tick(&mut next, [("5", 47), ("131", 121)]).await;
    assert_eq!(site.put().len(), 6);
    // The first one does not know that it leads no more: what it has to say was said.
    tick(&mut first, [("5", 47), ("131", 121)]).await;
    tick(&mut first, [("5", 47), ("131", 121)]).await;
    assert!(site.put().iter().all(|record| ["0 100", "1 100", "0 120", "1 120"].contains(&record.as_str())));
    // Behind a leader under whom it moved, it is waited for.
    tick(&mut next, [("6", 50), ("132", 131)]).await;
    let mut third = site.leader();
    third.begin().await.unwrap();
    let before = site.put().len();
    tick(&mut third, [("6", 50), ("133", 141)]).await;
    assert_eq!(site.put().len(), before);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_skipped_at_the_tip_or_when_all_stand_still() {
    let site = Site::new();
    let mut leader = site.leader();
    leader.begin().await.unwrap();
    // One at its tip, as far as the other; then both without a commit, one behind.
    for minute in 0..30 {
        tick(&mut leader, [("5", 90), (&(100 + minute).to_string(), 90)]).await;
        tokio::time::advance(MINUTE).await;
    }
    for _ in 0..30 {
        tick(&mut leader, [("6", 90), ("200", 110)]).await;
        tokio::time::advance(MINUTE).await;
    }
    // What it says is not known, and the end of time is no step.
    for minute in 0..30 {
        tick(&mut leader, [("6", 90), (&(300 + minute).to_string(), i64::MAX)]).await;
        tokio::time::advance(MINUTE).await;
    }
    assert_eq!(site.put(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_a_standby_saw_counts_when_it_leads() {
    let site = Site::new();
    let mut standby = site.leader();
    for minute in 0..=11 {
        standby.observe(&rows([("5", 47), (&(100 + minute).to_string(), 90)]));
        tokio::time::advance(MINUTE).await;
    }
    standby.begin().await.unwrap();
    tick(&mut standby, [("5", 47), ("200", 95)]).await;
    assert_eq!(site.put(), ["0 90", "1 90"]);
}
