//! What children count as before anybody has read them.

use super::*;

/// A split while one was out or on its way back: `children` says what the child's row shows by then.
pub(super) async fn split(parent: Status, child: impl Fn(Item) -> Item) -> Fleet {
    let status = |row: Item, status: Status| row.with(attribute::STATUS[0], Value::number(status.code()));
    Fleet::new(3, |number, mut row| match number {
        0 => {
            let children = Value::Ss(["shardId-000000000002"].map(Into::into).into());
            let ended = row.with(attribute::CHECKPOINT, Value::string("SHARD_END")).with(attribute::CHILDREN, children);
            status(ended, parent)
        }
        2 => {
            row.set(attribute::PARENTS, Value::Ss(["shardId-000000000000"].map(String::from).into()));
            [attribute::CUT, attribute::DATA[0], attribute::TIP].into_iter().for_each(|name| row.remove(name));
            child(row)
        }
        _ => row,
    })
    .await
}

/// Its parent was out when the shard was split, and came back before it ended: the child was put out for it, lanes went
/// on, and all it had to say was late.
#[tokio::test(start_paused = true)]
async fn a_child_counts_by_what_its_parents_were_at_their_ends_whatever_its_row_says_before() {
    let idle = |row: Item| row.with(attribute::STATUS[0], Value::number(Status::Idle.code()));
    let live = |row: Item| row.with(attribute::STATUS[0], Value::number(Status::Live.code()));
    for parent in [Status::Live, Status::Idle, Status::Return] {
        let wanted = if parent == Status::Live { Status::Live } else { Status::Idle };
        for mut fleet in [split(parent, idle).await, split(parent, live).await, split(parent, |row| row).await] {
            fleet.tick().await;
            let set = fleet.control.committed.clone().unwrap().sources;
            let named: Vec<_> = set.iter().map(|(id, status)| (id.shard.as_str(), status[0])).collect();
            assert_eq!(named, [("shardId-000000000001", Status::Live), ("shardId-000000000002", wanted)], "{parent:?}");
            let row = &fleet.rows().await[2];
            assert_eq!((row.status[0], row.heir), (wanted, true), "{parent:?}");
        }
    }
}

/// From its first claim on, and once it was taken over, a row says by itself what the source is: it may have been put
/// out.
#[tokio::test(start_paused = true)]
async fn what_a_row_was_settled_to_holds_against_its_parents() {
    let out = |row: Item| row.with(attribute::STATUS[0], Value::number(Status::Idle.code()));
    let claimed = move |row: Item| out(row).with(attribute::EPOCH, Value::number(3));
    let taken_over = move |row: Item| out(row).with(attribute::HEIR, Value::number(1));
    for mut fleet in [split(Status::Live, claimed).await, split(Status::Live, taken_over).await] {
        fleet.tick().await;
        let set = fleet.control.committed.clone().unwrap().sources;
        let status: Vec<_> = set.values().map(|status| status[0]).collect();
        assert_eq!(status, [Status::Live, Status::Idle]);
    }
}

/// Its first owner or another leader was there before, and it was put out since: the late write of a leader that had
/// slept would let it count again. Of a row that was cleaned up meanwhile it would leave one without a shard.
#[tokio::test(start_paused = true)]
async fn a_child_is_not_taken_over_on_the_word_of_a_row_that_has_changed_since() {
    for settled in [attribute::EPOCH, attribute::HEIR] {
        let fleet = split(Status::Live, |row| row).await;
        let rows = fleet.rows().await;
        let out = Update::new().set(attribute::STATUS[0], Value::number(Status::Idle.code()));
        let out = out.set(settled, Value::number(1));
        fleet.meter.update(&fleet.leases, rows[2].shard.as_str(), out, Condition::None).await.unwrap();
        fleet.control.settle_heirs(&rows, &BTreeSet::new()).await.unwrap();
        assert_eq!(fleet.rows().await[2].status[0], Status::Idle, "{settled}");
    }
    let fleet = split(Status::Live, |row| row).await;
    let rows = fleet.rows().await;
    fleet.meter.delete(&fleet.leases, rows[2].shard.as_str(), Condition::None).await.unwrap();
    fleet.control.settle_heirs(&rows, &BTreeSet::new()).await.unwrap();
    assert_eq!(fleet.meter.inner().scan(&fleet.leases).await.unwrap().len(), 2);
}

/// A child nobody comes to read holds lanes back no longer than any other source that does nothing.
#[tokio::test(start_paused = true)]
async fn a_child_that_nobody_ever_claims_is_stuck_in_the_end() {
    let mut fleet = split(Status::Live, |row| row).await;
    fleet.tick().await;
    tokio::time::sleep(Duration::from_secs(601)).await;
    fleet.tick().await;
    fleet.tick().await;
    let set = fleet.control.committed.clone().unwrap().sources;
    assert_eq!(set.into_iter().find(|(id, _)| id.shard.as_str().ends_with('2')).unwrap().1, [Status::Idle]);
}

/// Before its parent's END it has no watermark of its own: a source that came back at its parent's was let back behind
/// what lanes had closed, because the parent was out, and the child's row did not say so yet.
#[tokio::test(start_paused = true)]
async fn no_floor_is_made_of_the_child_of_a_source_that_is_out_at_its_end() {
    let fleet = split(Status::Idle, |row| row).await;
    let mut rows: BTreeMap<ShardId, LeaseRow> =
        fleet.control.as_they_count(&fleet.rows().await).iter().map(|row| (row.shard.clone(), row.clone())).collect();
    assert_eq!(back::floor(&rows, 0, None, true), Some(1), "of the source that counts");
    // Its END is cut and not settled.
    let parent = rows.values_mut().next().unwrap();
    parent.checkpoint = Checkpoint::TrimHorizon;
    parent.cut.as_mut().unwrap().end = true;
    let rows: Vec<LeaseRow> = rows.into_values().map(|row| LeaseRow { heir: false, ..row }).collect();
    let rows = fleet.control.as_they_count(&rows).iter().map(|row| (row.shard.clone(), row.clone())).collect();
    assert_eq!(back::floor(&rows, 0, None, true), Some(1));
}

/// A leader of an older version named it by what its row said when it was made, and lanes went on: it counted again
/// without having asked.
#[tokio::test(start_paused = true)]
async fn a_child_that_lanes_were_told_is_out_asks_whatever_its_parents_were() {
    let mut fleet = split(Status::Live, |row| row).await;
    let mut set = fleet.control.set(&fleet.rows().await, &BTreeSet::new());
    set.values_mut().last().unwrap()[0] = Status::Idle;
    fleet.control.commit(set.clone()).await.unwrap();
    let number = fleet.control.committed.as_ref().map(|set| set.number);
    fleet.tick().await;
    assert_eq!(fleet.control.committed.as_ref().map(|set| set.number), number, "told as before");
    assert_eq!(fleet.rows().await[2].status[0], Status::Idle);
    let id = set.keys().last().unwrap();
    let (table, state) = (&*fleet.meter, &fleet.state);
    assert_eq!(told_out(table, state, id).await.unwrap(), [true, false, false, false]);
}

/// The other one may have been out at its end.
#[tokio::test(start_paused = true)]
async fn the_child_of_a_parent_that_cannot_be_read_is_not_settled() {
    let mut fleet = split(Status::Live, |mut row| {
        let parents = ["shardId-000000000000", "shardId-000000000009"].map(String::from);
        row.set(attribute::PARENTS, Value::Ss(parents.into()));
        row
    })
    .await;
    let unreadable = BTreeSet::from([ShardId::new("shardId-000000000009")]);
    fleet.control.tick(&fleet.rows().await, &unreadable, &CancellationToken::new()).await.unwrap();
    assert!(!fleet.rows().await[2].heir);
    fleet.tick().await;
    assert!(fleet.rows().await[2].heir);
}

/// One look could not read its consumed parent, or somebody moved the parent's checkpoint back: it left the set, and lanes
/// dropped all that came of it from there on.
#[tokio::test(start_paused = true)]
async fn a_child_that_was_named_stays_in_the_set_whatever_its_parents_show_later() {
    let mut fleet = split(Status::Live, |row| row).await;
    fleet.tick().await;
    let committed = fleet.control.committed.clone();
    let mut rows = fleet.rows().await;
    rows[0].checkpoint = Checkpoint::TrimHorizon;
    let set = fleet.control.set(&rows, &BTreeSet::new());
    let named = |set: &SourceSet| set.keys().any(|id| id.shard.as_str().ends_with('2'));
    assert!(committed.is_some_and(|control| named(&control.sources)) && named(&set), "{set:?}");
    // First named by the very set that no longer names its parent, it may have a row that cannot be read.
    let mut young = split(Status::Live, |row| row).await;
    let mut first = young.rows().await;
    let unreadable = BTreeSet::from([first.remove(2).shard]);
    young.control.tick(&first, &unreadable, &CancellationToken::new()).await.unwrap();
    assert!(young.control.committed.as_ref().is_some_and(|control| named(&control.sources)));
    // A parent that cannot be read says nothing new of it.
    let unread = BTreeSet::from([rows[0].shard.clone()]);
    let mut told = split(Status::Live, |row| row).await;
    let young = told.rows().await;
    let mut out = told.control.set(&young, &BTreeSet::new());
    out.values_mut().last().unwrap()[0] = Status::Idle;
    told.control.commit(out).await.unwrap();
    let set = told.control.set(&young[1..], &unread);
    assert_eq!(set.values().last().map(|status| status[0]), Some(Status::Idle));
    // Nor does its parent's status speak for a child whose own row cannot be read.
    let child = rows.remove(2).shard;
    rows[0].checkpoint = Checkpoint::ShardEnd;
    rows[0].status = [Status::Idle; 4];
    let set = fleet.control.set(&rows, &BTreeSet::from([child.clone()]));
    assert_eq!(set.iter().find(|(id, _)| id.shard == child).map(|(_, status)| status[0]), Some(Status::Live));
}

/// Somebody moved its parent's checkpoint back, and its own owner died: lanes waited for it without an end.
#[tokio::test(start_paused = true)]
async fn a_child_that_was_begun_is_stuck_in_the_end_although_its_parent_is_open_again() {
    let mut fleet = split(Status::Live, |row| row.with(attribute::EPOCH, Value::number(1))).await;
    fleet.tick().await;
    let open = Update::new().set(attribute::CHECKPOINT, Value::string("TRIM_HORIZON"));
    fleet.meter.update(&fleet.leases, "shardId-000000000000", open, Condition::None).await.unwrap();
    fleet.tick().await;
    tokio::time::sleep(Duration::from_secs(601)).await;
    fleet.tick().await;
    assert_eq!(fleet.rows().await[2].status[0], Status::Idle);
}
