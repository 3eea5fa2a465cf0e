//! Clocks that are wrong, shards that stand still, inputs that end: what DESIGN section 3 says about time, from outside.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::flows::{flow, now_ms, send};
use support::oracle::{Records, exported};
use support::program::Program;
use support::site::Site;
use support::{http, kinesis, tools};

const HOUR_MS: i64 = 3_600_000;
/// 2100-01-01T00:00:00Z.
const YEAR_2100_MS: i64 = 4_102_444_800_000;

fn refused(export: &Value) -> Vec<(String, u64)> {
    Records::of(export).refused().into_iter().map(|(name, n)| (name.to_owned(), n)).collect()
}

/// Posts records in one body: one body is one Kinesis record, so they are read in this order by one shard.
fn post(program: &Program, flows: &[Value]) {
    let answer = send(program, flows);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_clock_one_hour_ahead_and_a_record_of_2100_are_future_and_move_no_one_elses_time() {
    let site = Site::two_subnets();
    let program = site.start();
    let now = now_ms();
    let ahead = [flow(now + HOUR_MS, 1), flow(YEAR_2100_MS, 2)];
    // The record after them is older than the lateness allowed behind an hour ahead, and not late.
    post(&program, &[flow(now - 20_000, 3), ahead[0].clone(), ahead[1].clone(), flow(now - 30_000, 4)]);
    program.finish();
    let export = site.export();
    assert_eq!(refused(&export), [("future".to_owned(), 2)]);
    assert_eq!(Records::of(&export).accounted, 2);
    assert_eq!(exported(&export)["subnet-a>subnet-b"]["flows"], 2);
}

#[test]
fn a_record_of_1970_is_late_and_holds_nothing_back() {
    let site = Site::two_subnets();
    let program = site.start();
    let now = now_ms();
    post(&program, &[flow(now - 20_000, 1), flow(0, 2), flow(now - 10_000, 3)]);
    program.finish();
    let export = site.export();
    assert_eq!(refused(&export), [("late".to_owned(), 1)]);
    assert_eq!(Records::of(&export).accounted, 2);
}

#[test]
fn a_record_behind_the_allowed_lateness_is_late_and_one_within_it_is_not() {
    let site = Site::two_subnets().with_settings("[input]\nlateness_reports = \"20s\"\n");
    let program = site.start();
    let now = now_ms();
    post(&program, &[flow(now - 1_000, 1), flow(now - 12_000, 2), flow(now - 60_000, 3)]);
    program.finish();
    let export = site.export();
    assert_eq!(refused(&export), [("late".to_owned(), 1)]);
    assert_eq!(exported(&export)["subnet-a>subnet-b"]["flows"], 2);
}

/// A record of one second in which half the segments were lost.
fn lossy(ts_ms: i64, src_port: u16) -> Value {
    let mut record = flow(ts_ms, src_port);
    (record["packets"], record["retransmits"]) = (json!(1_000), json!(400));
    record
}

fn clean(ts_ms: i64, src_port: u16) -> Value {
    let mut record = flow(ts_ms, src_port);
    record["packets"] = json!(1_000);
    record
}

/// Five records a second over a stretch of time, clean and then lossy.
fn minutes(end_ms: i64, clean_s: i64, lossy_s: i64) -> Vec<Value> {
    let start_ms = end_ms - (clean_s + lossy_s) * 1_000;
    let second = |second: i64| {
        (0..5_u16).map(move |port| {
            let at = start_ms + second * 1_000;
            if second < clean_s { clean(at, 1_000 + port) } else { lossy(at, 1_000 + port) }
        })
    };
    (0..clean_s + lossy_s).flat_map(second).collect()
}

#[test]
fn the_end_of_the_input_judges_the_steps_that_lateness_still_held_back() {
    let site = Site::two_subnets();
    let program = site.start();
    // The loss is younger than the lateness of 60 s: no watermark passes it until the input ends.
    let flows = minutes(now_ms() / 10_000 * 10_000, 300, 40);
    for chunk in flows.chunks(500) {
        post(&program, chunk);
    }
    let lines = program.finish();
    let opened = lines.iter().filter(|line| line.contains("anomaly.opened") && line.contains("retransmit")).count();
    assert_eq!(opened, 1, "{lines:?}");
    let export = site.export();
    assert!(refused(&export).is_empty());
    assert_eq!(Records::of(&export).accounted, 1_700);
}

/// Two shards of which the first stops being readable, and what was put into each.
struct Stuck {
    site: Site,
    program: Program,
    endpoint: String,
    /// The first hash key of each shard.
    keys: Vec<String>,
    end_ms: i64,
}

impl Stuck {
    /// Both shards live over 100 s, then the first stands still with 250 records unread while the second shows 50 s of
    /// loss; returns once the incident is open, which needs the first to be out of the minimum.
    fn until_set_aside() -> Option<Self> {
        let settings = "[streams]\nflows = \"stuck\"\n[input]\nlateness_reports = \"10s\"\n\
            [engine]\nidle_after = \"5s\"\nstuck_after = \"6s\"\n";
        let site = Site::two_subnets().with_settings(settings);
        let mut program = site.start();
        let endpoint = program.kinesis.clone()?;
        let shards = kinesis::call(&endpoint, "ListShards", &json!({ "StreamName": "stuck" })).json();
        let shards = shards["Shards"].as_array().unwrap().clone();
        if shards.len() < 2 {
            return None;
        }
        let keys: Vec<String> = shards.iter().map(start_key).collect();
        let end_ms = now_ms() / 10_000 * 10_000 - 20_000;
        put(&endpoint, &keys[0], &minutes(end_ms - 200_000, 100, 0));
        put(&endpoint, &keys[1], &minutes(end_ms - 200_000, 100, 0));
        read(&program, 1_000);
        let status = json!({ "status": { "status": 500, "error_type": "InternalFailure" } });
        let rule = json!({ "operation": "GetRecords", "stream": "stuck", "shard": id(&shards[0]), "kind": status });
        kinesis::fault(&endpoint, rule);
        put(&endpoint, &keys[0], &minutes(end_ms - 150_000, 50, 0));
        put(&endpoint, &keys[1], &minutes(end_ms, 150, 50));
        let event = program.next_event();
        assert_eq!((&event["type"], &event["signal"]), (&json!("anomaly.opened"), &json!("retransmit")), "{event}");
        Some(Self { site, program, endpoint, keys, end_ms })
    }

    fn readable_again(&self) {
        let cleared = http::delete(&self.endpoint, "/_faults").unwrap();
        assert!(cleared.status < 300, "{cleared:?}");
    }
}

/// Waits until the pipeline has counted this many records.
fn read(program: &Program, records: u64) {
    let there = || (program.metric("flowshift_records_in_total", &[]) >= records as f64).then_some(());
    tools::until("records read", there);
}

#[test]
fn a_stuck_shard_is_set_aside_and_what_it_held_is_late_when_it_comes_back() {
    let Some(stuck) = Stuck::until_set_aside() else {
        return tools::skip("time", "a stuck shard: the flows stream of `local` has one shard");
    };
    // The other shard is live when the stuck one comes back.
    put(&stuck.endpoint, &stuck.keys[1], &minutes(stuck.end_ms + 10_000, 10, 0));
    read(&stuck.program, 2_050);
    stuck.readable_again();
    read(&stuck.program, 2_300);
    stuck.program.finish();
    let records = Records::of(&stuck.site.export());
    assert_eq!(records.incoming, 500 + 250 + 500 + 1_000 + 50, "{records:?}");
    assert_eq!(records.refused().into_iter().collect::<Vec<_>>(), [("late", 250)], "{records:?}");
}

#[test]
fn a_stuck_shard_that_comes_back_when_no_other_is_live_still_counts_each_record_once() {
    // Bug found by this test: the shard came back with its own watermark, and the lane silently refused its panes.
    let Some(stuck) = Stuck::until_set_aside() else {
        return tools::skip("time", "a stuck shard: the flows stream of `local` has one shard");
    };
    let gone = || log_of(&stuck.site).contains("idle at its tip\",\"shard\":\"shardId-000000000001").then_some(());
    tools::until("the other shard is idle", gone);
    stuck.readable_again();
    stuck.program.finish();
    // That the sum per pair is the number of accounted records is held where the export is read.
    let records = Records::of(&stuck.site.export());
    assert_eq!(records.incoming, 500 + 250 + 500 + 1_000, "{records:?}");
}

fn log_of(site: &Site) -> String {
    std::fs::read_to_string(site.path("stderr.log")).unwrap()
}

fn id(shard: &Value) -> String {
    shard["ShardId"].as_str().unwrap().to_owned()
}

fn start_key(shard: &Value) -> String {
    shard["HashKeyRange"]["StartingHashKey"].as_str().unwrap().to_owned()
}

/// Puts flows into the shard that owns a hash key, a second's flows a record.
fn put(endpoint: &str, hash_key: &str, flows: &[Value]) {
    for chunk in flows.chunks(100) {
        kinesis::put_at(endpoint, "stuck", hash_key, &support::flows::lines(chunk));
    }
}
