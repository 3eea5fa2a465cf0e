//! One exchange shard cannot be read: incidents go on without its lanes after `engine.stuck_after`, and what these say later
//! of the steps skipped is dropped and counted.
#![allow(clippy::unwrap_used)]

mod support;

use flowshift_consumer::exchange::Lanes;
use serde_json::{Value, json};
use support::flows::{flow, lines, now_ms};
use support::program::Program;
use support::site::Site;
use support::{http, kinesis, tools};

const SETTINGS: &str = "[input]
lateness_reports = \"10s\"
[engine]
idle_after = \"4s\"
stuck_after = \"12s\"
commit_interval = \"1s\"
";

/// A second in which one packet in five was lost, from `lossy_ms` on.
fn second(ts_ms: i64, lossy_ms: i64) -> Vec<Value> {
    let record = |port| {
        let mut record = flow(ts_ms, port);
        record["packets"] = json!(1_000);
        record["retransmits"] = json!(if ts_ms >= lossy_ms { 200 } else { 0 });
        record
    };
    (1_000..1_005).map(record).collect()
}

fn shards(endpoint: &str) -> Vec<Value> {
    let listed = kinesis::call(endpoint, "ListShards", &json!({ "StreamName": "flowshift-exchange" })).json();
    listed["Shards"].as_array().unwrap().clone()
}

fn dropped(program: &Program, reason: &str) -> f64 {
    program.metric("flowshift_evidence_dropped_total", &[&format!("reason=\"{reason}\"")])
}

#[test]
fn incidents_go_on_without_an_exchange_shard_that_cannot_be_read() {
    let site = Site::two_subnets().with_settings(SETTINGS);
    let mut program = site.start();
    let endpoint = program.kinesis.clone().unwrap();
    let half = (u128::MAX / 2 + 1).to_string();
    let split = json!({
        "StreamName": "flowshift-exchange", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": half
    });
    assert_eq!(kinesis::call(&endpoint, "SplitShard", &split).status, 200);
    tools::until("both halves are read", || {
        let listed = site.command(&["leases", "list", "--stream", "exchange", "--json", "--no-wait"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).ok()?;
        let leases = listed["leases"].as_array()?;
        let read = leases.iter().filter(|l| l["state_bytes"].as_u64() > Some(0) && l["checkpoint"] != "SHARD_END");
        (read.count() == 2).then_some(())
    });
    // The half without the pair's lane; eight lanes, so the first four are in the lower one.
    let lane = Lanes::new(8).unwrap().of(b"subnet-a\0subnet-b").index();
    let others = shards(&endpoint);
    let upper = |shard: &&Value| shard["HashKeyRange"]["StartingHashKey"].as_str() == Some(half.as_str());
    let lower = |shard: &&Value| !upper(shard) && shard["ParentShardId"].is_string();
    let other = if lane < 4 { others.iter().find(upper) } else { others.iter().find(lower) };
    let status = json!({ "status": { "status": 500, "error_type": "InternalFailure" } });
    let rule = json!({
        "operation": "GetRecords", "stream": "flowshift-exchange", "shard": other.unwrap()["ShardId"], "kind": status
    });
    kinesis::fault(&endpoint, rule);

    let end_ms = now_ms() / 10_000 * 10_000 - 20_000;
    for from_s in (0..300).step_by(20) {
        let of = (from_s..from_s + 20).flat_map(|s| second(end_ms - (300 - s) * 1_000, end_ms - 60_000));
        kinesis::put_at(&endpoint, "flowshift-flows", "0", &lines(&of.collect::<Vec<_>>()));
    }
    let event = program.next_event();
    assert_eq!((&event["type"], &event["signal"]), (&json!("anomaly.opened"), &json!("retransmit")), "{event}");
    assert!(program.metric("flowshift_lanes_skipped", &[]) >= 1.0);
    assert_eq!(dropped(&program, "skipped"), 0.0);

    assert!(http::delete(&endpoint, "/_faults").unwrap().status < 300);
    tools::until("what the lanes say too late is dropped", || (dropped(&program, "skipped") > 0.0).then_some(()));
    tools::until("nothing is skipped any more", || {
        (program.metric("flowshift_lanes_skipped", &[]) == 0.0).then_some(())
    });
    program.finish();
}

#[test]
fn an_operator_skips_a_lane_and_the_end_of_the_input_still_ends_it() {
    let site = Site::two_subnets();
    let program = site.start();
    tools::until("the exchange has a lease", || {
        let listed = site.command(&["leases", "list", "--stream", "exchange", "--json", "--no-wait"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).ok()?;
        listed["leases"][0]["owner"].is_string().then_some(())
    });
    let skip = |arguments: &[&str]| {
        let output = site.command(&[&["leases", "resolve", "skip", "shardId-000000000000"], arguments].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, why) = skip(&[]);
    assert_eq!(code, Some(0), "no other shard says how far it is: {why}");
    assert!(why.contains("--until"), "{why}");
    let (code, _, why) = skip(&["--lane", "99", "--until", "2030-01-01T00:00:00Z"]);
    assert!(code == Some(64) && why.contains("has lanes 0, 1"), "{why}");
    let (code, _, why) = skip(&["--until", "soon"]);
    assert!(code == Some(64) && why.contains("--until soon"), "{why}");

    let until = ["--lane", "3", "--until", "2030-01-01T00:00:00Z"];
    let (code, said, why) = skip(&until);
    assert!(code == Some(0) && why.contains("--yes"), "{why}");
    assert!(said.contains("lane 3: steps of reports up to 2030-01-01T00:00:00Z"), "{said}");
    let (code, said, why) = skip(&[&until[..], &["--yes", "--json"]].concat());
    assert_eq!(code, Some(0), "{why}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        said["skipped"],
        json!([{"lane": 3, "kind": "reports", "until_ms": 1_893_456_000_000_i64, "reached_ms": null}])
    );
    program.finish();
}
