//! The engine in a simulated world: in-memory streams and tables, a virtual clock, one seed for all chance.
//!
//! Workers are killed, paused longer than their lease, answered with errors after the effect; writes land a minute
//! after they were given up; streams are resharded meanwhile; clocks are wrong. At the end every record must have been
//! counted exactly once, by an oracle that only knows what was put into the input stream, every verdict must stand in
//! the outbox once, and no row may ever have been committed by anyone but its owner.
//! `FLOWSHIFT_SEED=n` replays one seed; `FLOWSHIFT_SEEDS=n` sets how many the first storm tries (500), and every other
//! story tries as many times more or fewer than it would; `RUST_LOG=info` tells the story.

#![allow(clippy::unwrap_used)]

mod sim;

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sim::ambush::Moment;
use sim::seeds;
use sim::world::World;

async fn storm(mut world: World) -> Result<(), String> {
    world.storm().await;
    world.finish().await?;
    world.judge().await
}

#[test]
fn every_record_is_counted_once_through_crashes_zombies_lost_answers_and_reshards() {
    let test = "every_record_is_counted_once_through_crashes_zombies_lost_answers_and_reshards";
    seeds::hold(test, &seeds::wanted(seeds::MAIN), storm);
}

#[test]
fn a_shard_that_stands_still_is_skipped_in_a_storm_and_what_it_says_too_late_is_counted() {
    let stuck = async |mut world: World| {
        let whole_ms = world.storm_around_a_stuck_shard().await?;
        world.finish().await?;
        world.judge_the_stuck_shard(whole_ms).await
    };
    let test = "a_shard_that_stands_still_is_skipped_in_a_storm_and_what_it_says_too_late_is_counted";
    seeds::hold(test, &seeds::wanted(60), stuck);
}

#[test]
fn a_calm_run_counts_every_record_and_ends() {
    let calm = async |mut world: World| {
        world.calm().await;
        world.finish().await?;
        world.judge().await
    };
    seeds::hold("a_calm_run_counts_every_record_and_ends", &[1, 2], calm);
}

/// Before the worker ends, so that a shard which nobody drives any more is seen too.
#[test]
fn stages_that_panic_are_started_again_from_their_commit_and_lose_and_repeat_nothing() {
    let panics = async |mut world: World| {
        let chance = SmallRng::seed_from_u64(world.chance.random());
        world.trips.begin(chance);
        world.calm().await;
        let tripped = world.trips.end();
        tokio::time::sleep(Duration::from_secs(40)).await;
        world.every_record_is_counted_once(&world.counters().await?)?;
        world.finish().await?;
        world.judge().await?;
        if tripped > 0 { Ok(()) } else { Err("no stage panicked".into()) }
    };
    let test = "stages_that_panic_are_started_again_from_their_commit_and_lose_and_repeat_nothing";
    seeds::hold(test, &seeds::wanted(10), panics);
}

/// Parents' rows and chunks stay for their children, and then go; the highest epoch stays.
#[test]
fn nothing_of_a_consumed_shard_is_left_but_its_epoch_once_its_children_have_committed_and_retention_has_passed() {
    let retention = async |mut world: World| {
        world.reshard_and_outlive_retention().await?;
        world.finish().await?;
        world.judge().await
    };
    let test =
        "nothing_of_a_consumed_shard_is_left_but_its_epoch_once_its_children_have_committed_and_retention_has_passed";
    seeds::hold(test, &seeds::wanted(10), retention);
}

#[test]
fn the_oracle_sees_a_single_lost_record() {
    let lose = async |mut world: World| {
        world.calm().await;
        world.finish().await?;
        world.judge().await?;
        *world.produced.values_mut().next().unwrap() += 1;
        Ok(world.judge().await)
    };
    assert!(seeds::run_one(1, lose).unwrap().is_err(), "a lost record was not seen");
}

/// What the count of each key alone cannot see: a record that is counted, and late, and should not be.
#[test]
fn the_oracle_sees_a_single_record_that_is_late_without_a_reason() {
    let late = async |mut world: World| {
        world.calm_without_silence().await;
        world.finish().await?;
        world.judge().await?;
        let mut counters = world.counters().await?;
        let (name, n) = counters.iter_mut().find(|(name, _)| name.starts_with("c ")).unwrap();
        *n -= 1;
        let key = name.rsplit(' ').next().unwrap().to_owned();
        *counters.entry(format!("late {key}")).or_default() += 1;
        world.every_record_is_counted_once(&counters)?;
        Ok(world.every_record_is_late_only_by_the_account(&counters, &world.floors()))
    };
    let seen = seeds::run_one(1, late).unwrap();
    assert!(seen.is_err(), "a record that was made late was not seen");
}

#[test]
fn without_silence_each_key_has_as_many_late_records_as_its_shards_themselves_say() {
    let calm = async |mut world: World| {
        world.calm_without_silence().await;
        world.finish().await?;
        world.judge_that_nobody_had_to_wait().await
    };
    let test = "without_silence_each_key_has_as_many_late_records_as_its_shards_themselves_say";
    seeds::hold(test, &seeds::wanted(20), calm);
}

/// It was put out as idle at its tip, and its whole backlog was late when it could be read again.
#[test]
fn a_source_whose_reads_fail_is_waited_for_and_its_backlog_is_not_late() {
    let unreadable = async |mut world: World| {
        world.a_shard_cannot_be_read_for_a_while().await;
        world.finish().await?;
        world.judge_that_nobody_had_to_wait().await
    };
    seeds::hold("a_source_whose_reads_fail_is_waited_for_and_its_backlog_is_not_late", &seeds::wanted(20), unreadable);
}

/// Children that nobody reads yet froze the lanes, were put out as stuck, and all of them was late.
#[test]
fn children_wait_for_a_parents_backlog_without_holding_lanes_and_are_not_late() {
    let behind = async |mut world: World| {
        world.a_reshard_behind_a_backlog().await?;
        world.finish().await?;
        world.judge_that_nobody_had_to_wait().await
    };
    let test = "children_wait_for_a_parents_backlog_without_holding_lanes_and_are_not_late";
    seeds::hold(test, &seeds::wanted(20), behind);
}

/// The children were put out for what their parent was when their rows were made, and what came into them was late.
#[test]
fn children_count_from_their_parents_end_where_it_had_come_back_by_then() {
    let back = async |mut world: World| {
        world.a_reshard_of_a_source_that_is_out().await?;
        world.finish().await?;
        world.judge_by_the_floors().await
    };
    let test = "children_count_from_their_parents_end_where_it_had_come_back_by_then";
    seeds::hold(test, &seeds::wanted(20), back);
}

/// It waited for ever, and was killed when its time to leave was over.
#[test]
fn the_last_worker_leaves_although_sources_wait_to_be_let_back() {
    let leave = async |mut world: World| {
        world.all_leave_while_sources_wait().await?;
        world.finish().await?;
        world.judge_by_the_floors().await
    };
    seeds::hold("the_last_worker_leaves_although_sources_wait_to_be_let_back", &seeds::wanted(20), leave);
}

#[test]
fn what_comes_while_all_mappers_are_gone_is_not_late() {
    let gone = async |mut world: World| {
        world.mappers_gone_for_a_while().await;
        world.finish().await?;
        world.judge_that_nobody_had_to_wait().await
    };
    seeds::hold("what_comes_while_all_mappers_are_gone_is_not_late", &seeds::wanted(20), gone);
}

/// A later set came before the one that was put for them, which they then dropped: they closed nothing any more.
#[test]
fn lanes_that_wait_for_a_source_set_get_one_although_the_leader_commits_another_meanwhile() {
    let late = async |mut world: World| {
        world.lanes_are_told_late().await?;
        world.finish().await?;
        world.judge_that_nobody_had_to_wait().await
    };
    let test = "lanes_that_wait_for_a_source_set_get_one_although_the_leader_commits_another_meanwhile";
    seeds::hold(test, &seeds::wanted(20), late);
}

#[test]
fn a_seed_tells_the_same_story_every_time() {
    let story = |seed| {
        seeds::run_one(seed, async |mut world| {
            world.storm().await;
            world.finish().await?;
            let records = [sim::world::EXCHANGE, sim::world::EVIDENCE].map(|stream| world.log.dump(stream));
            Ok(format!("{records:?}"))
        })
    };
    assert!(story(7) == story(7), "the same seed gave another run");
}

fn ambushed(moment: Moment) -> impl AsyncFn(World) -> Result<(), String> + Sync {
    async move |mut world: World| {
        world.ambushed(moment).await?;
        world.finish().await?;
        world.judge().await
    }
}

#[test]
fn a_leader_may_die_sleep_or_go_unheard_at_any_put_of_a_source_set() {
    let test = "a_leader_may_die_sleep_or_go_unheard_at_any_put_of_a_source_set";
    seeds::hold(test, &seeds::wanted(100), ambushed(Moment::Control));
}

#[test]
fn a_worker_may_die_sleep_or_go_unheard_while_state_goes_from_a_shard_to_its_children() {
    let test = "a_worker_may_die_sleep_or_go_unheard_while_state_goes_from_a_shard_to_its_children";
    seeds::hold(test, &seeds::wanted(100), ambushed(Moment::Inheritance));
}

#[test]
fn a_worker_may_die_sleep_or_go_unheard_at_the_end_of_a_shard() {
    let test = "a_worker_may_die_sleep_or_go_unheard_at_the_end_of_a_shard";
    seeds::hold(test, &seeds::wanted(100), ambushed(Moment::End));
}

#[test]
fn a_source_whose_state_an_operator_discards_goes_on_under_a_new_epoch() {
    let reset = async |mut world: World| {
        world.calm_with_a_reset().await;
        world.finish().await?;
        world.judge().await
    };
    seeds::hold("a_source_whose_state_an_operator_discards_goes_on_under_a_new_epoch", &[1, 2, 3, 4], reset);
}

#[test]
fn records_that_expire_between_cut_and_emission_are_counted_exactly() {
    let expiry = async |mut world: World| {
        // Nothing of the batches reaches the lanes.
        let gone = world.expire_what_is_cut(sim::port::ALL_REFUSED).await?;
        world.finish().await?;
        let counters = world.counters().await?;
        let expired = counters.get("expired").copied().unwrap_or_default();
        match (world.what_is_missing(&counters)?, counters.contains_key("incomplete")) {
            (missing, true) if missing == gone && expired == gone => Ok(()),
            (missing, told) => Err(format!("{gone} expired, {expired} counted so, {missing} missing, told: {told}")),
        }
    };
    let test = "records_that_expire_between_cut_and_emission_are_counted_exactly";
    seeds::hold(test, &seeds::wanted(20), expiry);
}

#[test]
fn a_batch_emitted_in_part_before_its_records_expired_counts_nothing_twice_and_ends() {
    let expiry = async |mut world: World| {
        let gone = world.expire_what_is_cut(sim::port::HALF_REFUSED).await?;
        world.finish().await?;
        // Nothing more than once, and every lane that misses something was told.
        let missing = world.missing_by_lane().await?;
        let expired = world.counters().await?.get("expired").copied().unwrap_or_default();
        for (lane, counts) in world.lanes().await? {
            let missing = missing.get(&lane).copied().unwrap_or_default();
            if missing > 0 && !counts.contains_key("incomplete") {
                return Err(format!("{missing} of {gone} are missing in lane {lane}, which does not know"));
            }
        }
        // A lane that held the rest of the batch already drops the count with the part.
        if expired > gone { Err(format!("{expired} counted as expired, {gone} are")) } else { Ok(()) }
    };
    let test = "a_batch_emitted_in_part_before_its_records_expired_counts_nothing_twice_and_ends";
    seeds::hold(test, &seeds::wanted(50), expiry);
}

#[test]
fn lanes_stop_at_lost_batches_until_an_operator_lets_them_go_on() {
    let expiry = async |mut world: World| {
        world.expire_what_was_emitted().await?;
        world.finish().await?;
        let counters = world.counters().await?;
        match (world.what_is_missing(&counters)?, counters.get("incomplete")) {
            (1.., Some(1..)) => Ok(()),
            other => Err(format!("missing and incomplete: {other:?}")),
        }
    };
    seeds::hold("lanes_stop_at_lost_batches_until_an_operator_lets_them_go_on", &seeds::wanted(5), expiry);
}

#[test]
fn records_of_the_input_that_expired_unread_are_the_only_ones_missing_and_every_lane_is_told_once_by_each_source() {
    let trim = async |mut world: World| {
        let gone = world.trim_the_input().await?;
        world.finish().await?;
        let missing = world.what_is_missing(&world.counters().await?)?;
        let told: Vec<u64> =
            world.lanes().await?.values().map(|lane| lane.get("incomplete").copied().unwrap_or_default()).collect();
        match missing == gone.records && told == [gone.sources; 8] {
            true => Ok(()),
            false => Err(format!("{missing} are missing, {gone:?}, lanes were told {told:?}")),
        }
    };
    let test =
        "records_of_the_input_that_expired_unread_are_the_only_ones_missing_and_every_lane_is_told_once_by_each_source";
    seeds::hold(test, &seeds::wanted(20), trim);
}

#[test]
fn batches_that_expired_before_a_lane_read_them_are_the_only_ones_missing_and_their_lanes_are_told() {
    let trim = async |mut world: World| {
        let gone = world.trim_the_exchange().await?;
        world.finish().await?;
        let missing = world.what_is_missing(&world.counters().await?)?;
        let told: Vec<u64> =
            world.lanes().await?.values().map(|lane| lane.get("incomplete").copied().unwrap_or_default()).collect();
        match missing == gone && (gone == 0 || told.iter().all(|told| *told > 0)) {
            true => Ok(()),
            false => Err(format!("{missing} are missing, {gone} expired, lanes were told {told:?}")),
        }
    };
    let test = "batches_that_expired_before_a_lane_read_them_are_the_only_ones_missing_and_their_lanes_are_told";
    seeds::hold(test, &seeds::wanted(50), trim);
}
