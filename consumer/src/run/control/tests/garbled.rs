//! Rows that somebody garbled: what still holds for those that can be read.

use super::super::*;
use super::heirs::split;
use super::*;

const GARBLED: &str = "shardId-000000000009";

/// A row that cannot be read; `change` says what else is wrong with it.
fn garbled(change: impl Fn(Item) -> Item) -> Item {
    let shard = Shard { id: ShardId::new(GARBLED), parents: vec![], range: HashRange::ALL, closed: false };
    let row = new_row(&shard, &Checkpoint::TrimHorizon, 0);
    change(row.with(attribute::CHECKPOINT, Value::string("nowhere")))
}

/// With its cut's watermark.
fn gone_to(watermark: i64) -> Item {
    let cut = Cut { epoch: 1, n: 1, watermarks: vec![watermark], ..Cut::default() };
    garbled(|row| row.with(attribute::CUT, Value::B(cut.encode_bytes())))
}

/// A fleet in which nobody is live, beside a row that cannot be read.
async fn all_ask(beside: Item) -> Fleet {
    let fleet = Fleet::new(2, |_, row| row.with(attribute::STATUS[0], Value::number(Status::Return.code()))).await;
    fleet.meter.put(&fleet.leases, beside, Condition::None).await.unwrap();
    fleet
}

/// A look of the leader, and what stands in the rows that can be read then: status and floor.
async fn looked(fleet: &mut Fleet) -> Vec<(Status, Option<i64>)> {
    let items = fleet.meter.inner().scan(&fleet.leases).await.unwrap();
    let rows: Vec<LeaseRow> = items.iter().filter_map(|item| LeaseRow::read(item).ok().flatten()).collect();
    let unreadable = BTreeSet::from([ShardId::new(GARBLED)]);
    fleet.control.tick(&rows, &unreadable, &CancellationToken::new()).await.unwrap();
    let items = fleet.meter.inner().scan(&fleet.leases).await.unwrap();
    let rows = items.iter().filter_map(|item| LeaseRow::read(item).ok().flatten());
    rows.map(|row| (row.status[0], row.floor[0])).collect()
}

/// Those of whom nothing is known may have gone further than anybody else. Of another type, a cut was taken for none.
#[tokio::test(start_paused = true)]
async fn with_nobody_live_no_floor_is_given_while_a_cut_cannot_be_read() {
    let nonsense = |value: Value| garbled(|row| row.with(attribute::CUT, value.clone()));
    let floor = garbled(|row| row.with(attribute::FLOOR[0], Value::string("12")));
    for beside in [nonsense(Value::B(b"nonsense".to_vec().into())), nonsense(Value::string("AAEC")), floor] {
        let mut fleet = all_ask(beside).await;
        assert_eq!(looked(&mut fleet).await, [(Status::Return, None); 2]);
        fleet.meter.delete(&fleet.leases, GARBLED, Condition::None).await.unwrap();
        fleet.tick().await;
        assert!(fleet.rows().await.iter().all(|row| row.status[0] == Status::Live));
    }
}

/// A row whose checkpoint was garbled withheld the floors of a whole fleet, although its cut says how far it went.
#[tokio::test(start_paused = true)]
async fn a_row_of_which_only_the_cut_can_be_read_bounds_the_floors_and_withholds_none() {
    let mut fleet = all_ask(gone_to(70)).await;
    assert_eq!(looked(&mut fleet).await, [(Status::Live, Some(70)); 2]);
}

/// Lanes wait for it, so they have closed nothing beyond its cut: all that the others had to say since then was late.
#[tokio::test(start_paused = true)]
async fn a_source_that_lanes_wait_for_bounds_the_floors_although_its_row_cannot_be_read() {
    let ahead = |_, row: Item| {
        let cut = Cut { epoch: 1, n: 1, watermarks: vec![200], ..Cut::default() };
        let row = row.with(attribute::CUT, Value::B(cut.encode_bytes()));
        row.with(attribute::STATUS[0], Value::number(Status::Return.code()))
    };
    let mut fleet = Fleet::new(2, ahead).await;
    let mut set = fleet.control.set(&fleet.rows().await, &BTreeSet::new());
    let id = SourceId { stream: fleet.control.stream.clone(), shard: ShardId::new(GARBLED) };
    set.insert(id, vec![Status::Live]);
    fleet.control.commit(set).await.unwrap();
    fleet.meter.put(&fleet.leases, gone_to(50), Condition::None).await.unwrap();
    assert_eq!(looked(&mut fleet).await, [(Status::Live, Some(50)); 2]);
}

/// It came back as one that lanes wait for, and nobody would ever speak for it.
#[tokio::test(start_paused = true)]
async fn a_consumed_child_whose_row_cannot_be_read_any_more_stays_out_of_the_set() {
    let mut fleet = split(Status::Live, |row| row).await;
    fleet.tick().await;
    let end = Update::new().set(attribute::CHECKPOINT, Value::string("SHARD_END"));
    fleet.meter.update(&fleet.leases, "shardId-000000000002", end, Condition::None).await.unwrap();
    fleet.tick().await;
    let named = |set: &SourceSet| set.keys().any(|id| id.shard.as_str().ends_with('2'));
    assert!(!named(&fleet.control.committed.as_ref().unwrap().sources));
    let mut rows = fleet.rows().await;
    let unreadable = BTreeSet::from([rows.remove(2).shard]);
    let set = fleet.control.set(&rows, &unreadable);
    assert!(!named(&set), "{set:?}");
}

/// Its parent began and ended between two sets: the child was left out although lanes wait for it since its parent's
/// END.
#[tokio::test(start_paused = true)]
async fn a_child_whose_row_cannot_be_read_is_named_when_its_parents_parent_leaves_the_set() {
    let mut fleet = split(Status::Live, |row| row).await;
    let mut rows = fleet.rows().await;
    let before = rows.iter().filter(|row| !row.shard.as_str().ends_with('2')).map(|row| fleet.control.source(row));
    let before: SourceSet = before.map(|id| (id, vec![Status::Live])).collect();
    fleet.control.commit(before).await.unwrap();
    rows[2].checkpoint = Checkpoint::ShardEnd;
    let child = ShardId::new("shardId-000000000003");
    rows[2].children = vec![child.clone()];
    let set = fleet.control.set(&rows, &BTreeSet::from([child.clone()]));
    assert!(set.keys().any(|id| id.shard == child), "{set:?}");
}
