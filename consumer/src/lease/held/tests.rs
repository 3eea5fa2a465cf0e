//! What a holder can rely on, and what it must notice.

use super::*;
use crate::lease::{Checkpoint, new_row};
use crate::shard::{HashRange, Shard, ShardId};
use crate::table::memory::MemoryTable;
use crate::table::{TableError, Value};

const TIMES: LeaseTimes = LeaseTimes { renewal: Duration::from_secs(3), failover: Duration::from_secs(10) };

fn table() -> TableName {
    TableName { name: "leases".into(), key: attribute::KEY }
}

async fn assigned(owner: &str) -> Arc<MemoryTable> {
    let memory = Arc::new(MemoryTable::default());
    let shard = Shard { id: ShardId::new("s"), parents: vec![], range: HashRange::ALL, closed: false };
    let row = new_row(&shard, &Checkpoint::TrimHorizon, 0).with(attribute::OWNER, Value::string(owner));
    memory.put(&table(), row, Condition::None).await.unwrap();
    memory
}

async fn acquire(memory: &Arc<MemoryTable>, worker: &str) -> Result<HeldLease, LeaseError> {
    acquire_until(memory, worker, CancellationToken::new()).await
}

async fn acquire_until(
    memory: &Arc<MemoryTable>,
    worker: &str,
    stop: CancellationToken,
) -> Result<HeldLease, LeaseError> {
    HeldLease::acquire(place(memory.clone(), worker), "s", stop).await
}

fn place(over: Arc<dyn Table>, worker: &str) -> LeasePlace {
    LeasePlace {
        stream: "flows".into(),
        table: over,
        name: table(),
        worker: WorkerId::new(worker),
        times: TIMES,
        runs_on: None,
        metrics: EngineMetrics::register(&prometheus::Registry::new(), "test").unwrap(),
    }
}

async fn begin_hand_over(memory: &MemoryTable, from: &str, to: &str) {
    let update =
        Update::new().set(attribute::OWNER, Value::string(to)).set(attribute::CHECKPOINT_OWNER, Value::string(from));
    memory.update(&table(), "s", update, Condition::None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_zombie_cannot_commit_after_its_lease_moved() {
    let memory = assigned("a").await;
    let zombie = acquire(&memory, "a").await.unwrap();
    let steal = Update::new().set(attribute::OWNER, Value::string("b")).set(attribute::COUNTER, Value::number(9));
    memory.update(&table(), "s", steal, Condition::None).await.unwrap();
    let commit = Update::new().set(attribute::CHECKPOINT, Value::string("5"));
    assert!(matches!(zombie.write(commit, Condition::None).await, Err(LeaseError::Lost)));
    assert!(zombie.lost().is_cancelled());
    let row = memory.get(&table(), "s").await.unwrap().unwrap();
    assert_eq!(row.string(attribute::CHECKPOINT), Some("TRIM_HORIZON"));
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_lost_is_recognised_and_not_applied_twice() {
    let memory = assigned("a").await;
    let lease = acquire(&memory, "a").await.unwrap();
    let counter = lease.row().await.unwrap().counter;
    let commit = Update::new().set(attribute::CHECKPOINT, Value::string("5"));
    // The write went through, its answer did not: the row is one ahead of what the holder knows.
    let lost = commit.clone().set(attribute::COUNTER, Value::number(counter + 1));
    memory.update(&table(), "s", lost, Condition::None).await.unwrap();
    lease.write(commit, Condition::None).await.unwrap();
    let row = lease.row().await.unwrap();
    assert_eq!((row.counter, row.checkpoint.to_string().as_str()), (counter + 1, "5"));
}

#[tokio::test(start_paused = true)]
async fn a_foreign_commit_under_our_name_is_a_lost_lease() {
    let memory = assigned("a").await;
    let lease = acquire(&memory, "a").await.unwrap();
    let foreign = Update::new()
        .set(attribute::CHECKPOINT, Value::string("77"))
        .set(attribute::COUNTER, Value::number(lease.row().await.unwrap().counter + 1));
    memory.update(&table(), "s", foreign, Condition::None).await.unwrap();
    assert!(matches!(lease.renew().await, Err(LeaseError::Lost)));
}

#[tokio::test(start_paused = true)]
async fn a_lease_not_renewed_for_the_failover_time_is_given_up_by_its_holder() {
    let memory = assigned("a").await;
    let lease = acquire(&memory, "a").await.unwrap();
    tokio::time::advance(TIMES.failover + Duration::from_millis(1)).await;
    assert!(matches!(lease.renew().await, Err(LeaseError::Lost)));
}

#[tokio::test(start_paused = true)]
async fn an_extra_condition_refuses_without_losing_the_lease() {
    let memory = assigned("a").await;
    let lease = acquire(&memory, "a").await.unwrap();
    let idle = Update::new().set(attribute::STATUS[0], Value::number(1));
    memory.update(&table(), "s", idle, Condition::None).await.unwrap();
    let live = Condition::Absent(attribute::STATUS[0]);
    assert!(matches!(lease.write(Update::new(), live).await, Err(LeaseError::Refused)));
    assert_eq!(lease.row().await.unwrap().status[0], crate::exchange::Status::Idle);
    lease.renew().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_next_write_of_an_old_owner_learns_of_the_hand_over_and_still_commits() {
    let memory = assigned("a").await;
    let stop = CancellationToken::new();
    let old = acquire_until(&memory, "a", stop.clone()).await.unwrap();
    begin_hand_over(&memory, "a", "b").await;
    assert!(!stop.is_cancelled());
    assert!(matches!(acquire(&memory, "b").await, Err(LeaseError::Lost)), "the old owner may still commit");
    let commit = Update::new().set(attribute::CHECKPOINT, Value::string("5"));
    old.write(commit, Condition::None).await.unwrap();
    assert!(stop.is_cancelled());
    assert_eq!(old.next_owner().as_deref(), Some("b"));
    let before = old.row().await.unwrap();
    assert_eq!(old.hand_on(None).await.unwrap().as_deref(), Some("b"), "the leader's choice stands");
    assert!(old.lost().is_cancelled());
    let row = acquire(&memory, "b").await.unwrap().row().await.unwrap();
    assert_eq!((row.checkpoint.to_string().as_str(), row.checkpoint_owner), ("5", None));
    assert_eq!((row.counter, row.switches), (before.counter + 2, before.switches + 1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_away_has_an_owner_at_once_and_the_giver_can_write_no_more() {
    let memory = assigned("a").await;
    let lease = acquire(&memory, "a").await.unwrap();
    assert_eq!(lease.hand_on(Some("b")).await.unwrap().as_deref(), Some("b"));
    assert!(matches!(lease.renew().await, Err(LeaseError::Lost)));
    acquire(&memory, "b").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_away_to_nobody_has_no_owner() {
    let memory = assigned("a").await;
    let lease = acquire(&memory, "a").await.unwrap();
    assert_eq!(lease.hand_on(None).await.unwrap(), None);
    let row = memory.get(&table(), "s").await.unwrap().unwrap();
    assert_eq!(row.string(attribute::OWNER), None);
}

#[tokio::test(start_paused = true)]
async fn giving_away_with_a_lost_answer_is_recognised() {
    let memory = assigned("a").await;
    let lease = acquire(&memory, "a").await.unwrap();
    let row = lease.row().await.unwrap();
    // The write went through, its answer did not.
    let given = Update::new()
        .set(attribute::OWNER, Value::string("b"))
        .set(attribute::ASSIGNED, Value::string("b"))
        .set(attribute::SWITCHES, Value::number(row.switches + 1))
        .set(attribute::COUNTER, Value::number(row.counter + 1));
    memory.update(&table(), "s", given, Condition::None).await.unwrap();
    assert_eq!(lease.hand_on(Some("b")).await.unwrap().as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn an_old_owner_whose_hand_over_was_cut_short_cannot_commit() {
    // KCL left checkpointOwner for ever when the old owner went on renewing; the leader takes it away by force.
    let memory = assigned("a").await;
    let old = acquire(&memory, "a").await.unwrap();
    begin_hand_over(&memory, "a", "b").await;
    old.renew().await.unwrap();
    let force = Update::new()
        .set(attribute::COUNTER, Value::number(old.row().await.unwrap().counter + 1))
        .remove(attribute::CHECKPOINT_OWNER);
    memory.update(&table(), "s", force, Condition::None).await.unwrap();
    let commit = Update::new().set(attribute::CHECKPOINT, Value::string("9"));
    assert!(matches!(old.write(commit, Condition::None).await, Err(LeaseError::Lost)));
    acquire(&memory, "b").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn throughput_rides_on_a_renewal() {
    let memory = assigned("a").await;
    let lease = acquire(&memory, "a").await.unwrap();
    lease.delivered(3 * 2048);
    tokio::time::advance(TIMES.renewal).await;
    lease.renew().await.unwrap();
    assert_eq!(lease.row().await.unwrap().bytes_per_second, 2048);
}

/// Applies what it is told to, and the answer of one update does not come.
#[derive(Debug)]
struct Deaf(Arc<MemoryTable>, std::sync::atomic::AtomicBool);

#[async_trait::async_trait]
impl crate::table::around::Around for Deaf {
    fn inner(&self) -> &dyn Table {
        &*self.0
    }
    async fn update(&self, table: &TableName, key: &str, update: Update, c: Condition) -> Result<(), TableError> {
        self.0.update(table, key, update, c).await?;
        if !self.1.swap(false, std::sync::atomic::Ordering::Relaxed) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        Err(TableError::Unavailable("no answer".into()))
    }
}

/// A renewal of which no answer came was found applied when it was repeated, and dated then: seconds after the others
/// saw its counter, so that webhooks were still sent under a lease that was another's.
#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_was_lost_is_as_old_as_its_first_write() {
    let deaf = Arc::new(Deaf(assigned("a").await, false.into()));
    let lease = HeldLease::acquire(place(deaf.clone(), "a"), "s", CancellationToken::new()).await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    deaf.1.store(true, std::sync::atomic::Ordering::Relaxed);
    let began = tokio::time::Instant::now();
    lease.renew().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(4));
    assert_eq!(*lease.renewed().borrow(), Some(began));
    // What began when it was repeated is as good as any other.
    let again = tokio::time::Instant::now();
    lease.renew().await.unwrap();
    assert_eq!(*lease.renewed().borrow(), Some(again));
}

/// Hangs on every update until it is told to go on.
#[derive(Debug)]
struct Gate(Arc<MemoryTable>, tokio::sync::Semaphore);

#[async_trait::async_trait]
impl crate::table::around::Around for Gate {
    fn inner(&self) -> &dyn Table {
        &*self.0
    }
    async fn update(&self, table: &TableName, key: &str, update: Update, c: Condition) -> Result<(), TableError> {
        self.1.acquire().await.unwrap().forget();
        self.0.update(table, key, update, c).await
    }
}

#[test]
fn a_commit_caught_by_a_blocked_runtime_does_not_hold_up_the_renewals() {
    // Both ran on the stages' runtime before: a stage that computed for longer than failover lost every lease.
    let memory = Arc::new(MemoryTable::default());
    let gate = Arc::new(Gate(memory, tokio::sync::Semaphore::new(1)));
    let thread = crate::run::RenewalThread::start("renewals").unwrap();
    let stages = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    stages.block_on(async {
        let shard = Shard { id: ShardId::new("s"), parents: vec![], range: HashRange::ALL, closed: false };
        let row = new_row(&shard, &Checkpoint::TrimHorizon, 0).with(attribute::OWNER, Value::string("a"));
        gate.put(&table(), row, Condition::None).await.unwrap();
        let times = LeaseTimes { renewal: Duration::from_millis(20), failover: Duration::from_secs(60) };
        let place = LeasePlace { times, runs_on: Some(thread.handle()), ..place(gate.clone(), "a") };
        let lease = Arc::new(HeldLease::acquire(place, "s", CancellationToken::new()).await.unwrap());
        thread.handle().spawn(Arc::clone(&lease).keep());
        let committing = Arc::clone(&lease);
        let commit = Update::new().set(attribute::CHECKPOINT, Value::string("5"));
        let mut writing = Box::pin(committing.write(commit, Condition::None));
        // The commit is under way, and from here on nothing of this runtime runs.
        assert!(futures::poll!(&mut writing).is_pending());
        let before = lease.writer.counter();
        gate.1.add_permits(3);
        while lease.writer.counter() < before + 3 {
            std::thread::yield_now();
        }
        writing.await.unwrap();
        assert_eq!(lease.row().await.unwrap().checkpoint.to_string(), "5");
    });
}

/// Two writes of others were taken for one of ours: the driver went on under the old fence, and nothing was restarted.
#[tokio::test(start_paused = true)]
async fn a_lease_that_was_evicted_and_given_back_between_two_renewals_is_a_new_lease() {
    let memory = assigned("a").await;
    let lease = acquire(&memory, "a").await.unwrap();
    let evicted = crate::lease::evict(&*memory, &table(), &ShardId::new("s"), "a").await.unwrap();
    assert_eq!(evicted, crate::lease::Evicted::Owner("a".into()));
    let counter = memory.get(&table(), "s").await.unwrap().unwrap().number(attribute::COUNTER).unwrap();
    let again = Update::new()
        .set(attribute::OWNER, Value::string("a"))
        .set(attribute::ASSIGNED, Value::string("a"))
        .set(attribute::COUNTER, Value::number(counter + 1));
    memory.update(&table(), "s", again, Condition::None).await.unwrap();
    assert!(matches!(lease.renew().await, Err(LeaseError::Lost)));
    acquire(&memory, "a").await.unwrap().renew().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_caller_gave_up_leaves_a_counter_that_the_next_write_takes_over() {
    let memory = assigned("a").await;
    let lease = acquire(&memory, "a").await.unwrap();
    let counter = lease.row().await.unwrap().counter;
    let unheard = Update::new().set(attribute::COUNTER, Value::number(counter + 1));
    memory.update(&table(), "s", unheard, Condition::None).await.unwrap();
    lease.write(Update::new().set(attribute::CHECKPOINT, Value::string("5")), Condition::None).await.unwrap();
    assert_eq!(lease.row().await.unwrap().counter, counter + 2);
}
