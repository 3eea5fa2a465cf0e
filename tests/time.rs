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
    shards: Vec<Value>,
    end_ms: i64,
}

/// A shard whose reads fail is idle by no means: it is waited for until it is stuck.
const IDLE_AFTER: &str = "3s";

impl Stuck {
    /// Both shards live over 100 s, then the first stands still with 250 records unread.
    fn begin(stuck_after: &str) -> Option<Self> {
        let settings = format!(
            "[streams]\nflows = \"stuck\"\n[input]\nlateness_reports = \"10s\"\n\
             [engine]\nidle_after = \"{IDLE_AFTER}\"\nstuck_after = \"{stuck_after}\"\n"
        );
        let site = Site::two_subnets().with_settings(&settings);
        let program = site.start();
        let endpoint = program.kinesis.clone()?;
        let shards = kinesis::call(&endpoint, "ListShards", &json!({ "StreamName": "stuck" })).json();
        let shards = shards["Shards"].as_array().unwrap().clone();
        if shards.len() < 2 {
            return None;
        }
        let end_ms = now_ms() / 10_000 * 10_000 - 20_000;
        let stuck = Self { site, program, endpoint, shards, end_ms };
        stuck.put(0, &minutes(end_ms - 200_000, 100, 0));
        stuck.put(1, &minutes(end_ms - 200_000, 100, 0));
        read(&stuck.program, 1_000);
        let status = json!({ "status": { "status": 500, "error_type": "InternalFailure" } });
        let rule =
            json!({ "operation": "GetRecords", "stream": "stuck", "shard": id(&stuck.shards[0]), "kind": status });
        kinesis::fault(&stuck.endpoint, rule);
        stuck.put(0, &minutes(end_ms - 150_000, 50, 0));
        Some(stuck)
    }

    /// The second shard goes on and shows 50 s of loss.
    fn lose(&self) {
        self.put(1, &minutes(self.end_ms, 150, 50));
    }

    /// Returns once the incident is open, which needs the first shard to be out of the minimum.
    fn until_set_aside() -> Option<Self> {
        let mut stuck = Self::begin("10s")?;
        stuck.until_the_other_is_idle(1);
        tools::until("the first shard is stuck", || (stuck.says("source is stuck", 0) > 0).then_some(()));
        assert_eq!(stuck.says("source is idle", 0), 0, "put out too early, and for the wrong reason");
        stuck.lose();
        let event = stuck.program.next_event();
        assert_eq!((&event["type"], &event["signal"]), (&json!("anomaly.opened"), &json!("retransmit")), "{event}");
        Some(stuck)
    }

    /// How often the log says this of a shard.
    fn says(&self, what: &str, shard: usize) -> usize {
        let log = std::fs::read_to_string(self.site.path("stderr.log")).unwrap();
        log.lines().filter(|line| line.contains(what) && line.contains(&id(&self.shards[shard]))).count()
    }

    /// Waits until the second shard was put out so often.
    fn until_the_other_is_idle(&self, times: usize) {
        tools::until("the other shard is idle", || (self.says("source is idle", 1) >= times).then_some(()));
    }

    /// Puts flows into a shard, a second's flows a record.
    fn put(&self, shard: usize, flows: &[Value]) {
        for chunk in flows.chunks(100) {
            let key = start_key(&self.shards[shard]);
            kinesis::put_at(&self.endpoint, "stuck", &key, &support::flows::lines(chunk));
        }
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
    stuck.put(1, &minutes(stuck.end_ms + 10_000, 10, 0));
    read(&stuck.program, 2_050);
    stuck.readable_again();
    read(&stuck.program, 2_300);
    stuck.program.finish();
    let records = Records::of(&stuck.site.export());
    assert_eq!(records.incoming, 500 + 250 + 500 + 1_000 + 50, "{records:?}");
    assert_eq!(records.refused().into_iter().collect::<Vec<_>>(), [("late", 250)], "{records:?}");
}

#[test]
fn a_shard_whose_reads_fail_for_longer_than_an_idle_one_is_silent_is_waited_for() {
    // Bug: it was put out as idle at its tip, and all that lay unread was late.
    let Some(stuck) = Stuck::begin("10m") else {
        return tools::skip("time", "a shard whose reads fail: the flows stream of `local` has one shard");
    };
    stuck.lose();
    // The other one was read after the first could be read for the last time.
    stuck.until_the_other_is_idle(1);
    stuck.readable_again();
    stuck.program.finish();
    let records = Records::of(&stuck.site.export());
    assert_eq!(records.incoming, 500 + 250 + 500 + 1_000, "{records:?}");
    assert!(records.refused().is_empty(), "{records:?}");
}

#[test]
fn a_stuck_shard_that_comes_back_when_no_other_is_live_still_counts_each_record_once() {
    // Bug found by this test: the shard came back with its own watermark, and the lane silently refused its panes.
    let Some(stuck) = Stuck::until_set_aside() else {
        return tools::skip("time", "a stuck shard: the flows stream of `local` has one shard");
    };
    stuck.until_the_other_is_idle(2);
    stuck.readable_again();
    stuck.program.finish();
    // That the sum per pair is the number of accounted records is held where the export is read.
    let records = Records::of(&stuck.site.export());
    assert_eq!(records.incoming, 500 + 250 + 500 + 1_000, "{records:?}");
}

fn id(shard: &Value) -> String {
    shard["ShardId"].as_str().unwrap().to_owned()
}

fn start_key(shard: &Value) -> String {
    shard["HashKeyRange"]["StartingHashKey"].as_str().unwrap().to_owned()
}
