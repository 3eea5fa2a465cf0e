//! `flowshift leases`: what an operator sees and does from outside, beside a running `local`, a killed one and none.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flowshift_consumer::exchange::{BatchPart, Envelope, Message, SourceId, Watermarks};
use flowshift_consumer::log::StreamId;
use flowshift_consumer::shard::ShardId;
use serde_json::{Value, json};
use support::site::Site;
use support::{capture, kinesis, tools};

/// Short times, so that watching an owner takes seconds.
const SETTINGS: &str = "[engine]
failover = \"3s\"
renewal = \"500ms\"
leader_lock = \"3s\"
leader_beat = \"1s\"
[[webhooks]]
url = \"http://127.0.0.1:9/\"
secret_file = \"SECRET\"
timeout = \"1s\"
";

fn site() -> Site {
    let site = Site::two_subnets();
    let secret = site.secret_file().display().to_string();
    let mut site = site.with_settings(&SETTINGS.replace("SECRET", &secret));
    site.drain = false;
    site
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn parsed(output: &Output) -> Value {
    assert!(output.status.success(), "{}\n{}", output.status, text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn leases(site: &Site) -> Vec<Value> {
    parsed(&site.command(&["leases", "list", "--json"]))["leases"].as_array().unwrap().clone()
}

fn owned(leases: &[Value]) -> bool {
    !leases.is_empty() && leases.iter().all(|lease| lease["owner"].is_string())
}

#[test]
fn a_running_local_owns_its_leases_and_keeps_them_unless_forced() {
    let site = site();
    let program = site.start();
    capture::send_all(&program);
    let seen = tools::until("every lease has an owner and the input a cut", || {
        let leases = leases(&site);
        let cut =
            leases.iter().any(|lease| lease["cut"]["n"].as_u64() > Some(0) && lease["state_bytes"].as_u64() > Some(0));
        (owned(&leases) && cut).then_some(leases)
    });
    // Two input shards, one of each other stream; one process owns them all.
    assert_eq!(seen.len(), 4, "{seen:?}");
    for lease in &seen {
        assert_eq!(lease["live"], true, "{lease}");
        assert_eq!(lease["owner"], seen[0]["owner"]);
        assert!(lease["beat_age_s"].as_f64() < Some(1.5), "{lease}");
    }
    let owner = seen[0]["owner"].as_str().unwrap();

    let table = site.command(&["leases", "list", "--stream", "flows"]);
    let table = text(&table.stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("STREAM"), "{table}");
    assert_eq!(lines.iter().filter(|line| line.contains(owner) && line.starts_with("flowshift-flows")).count(), 2);
    assert!(!table.contains('\x1b'), "colours without a terminal: {table:?}");
    assert!(lines.last().unwrap().contains(&format!("leader {owner}")), "{table}");

    let refused = site.command(&["leases", "release", "--all", "--yes"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(text(&refused.stderr).contains("--force"), "{}", text(&refused.stderr));
    assert!(owned(&leases(&site)), "a refused release changed something");

    // Forced, it loses one and the leader, itself, gives it back: under a higher counter.
    let shard = ["--stream", "exchange", "shardId-000000000000", "--force", "--yes"];
    let forced = site.command(&[&["leases", "release"], &shard[..]].concat());
    assert!(text(&forced.stdout).contains("released"), "{}", text(&forced.stderr));
    tools::until("the lease is assigned again", || owned(&leases(&site)).then_some(()));
    program.finish();
}

#[test]
fn leases_of_a_killed_local_are_released_and_taken_again() {
    let site = site();
    let program = site.start();
    capture::send_all(&program);
    let before = tools::until("every lease has an owner", || {
        let leases = leases(&site);
        owned(&leases).then_some(leases)
    });
    program.kill();

    let dead = leases(&site);
    assert!(dead.iter().all(|lease| lease["live"] == false), "{dead:?}");
    let worker = before[0]["owner"].as_str().unwrap();

    let planned = site.command(&["leases", "release", "--worker", worker]);
    assert_eq!(planned.status.code(), Some(0), "a look is no failure");
    assert!(text(&planned.stdout).contains("would release"), "{}", text(&planned.stdout));
    assert!(text(&planned.stderr).contains("--yes"));
    assert_eq!(leases(&site), dead, "without --yes nothing changes");

    let released = parsed(&site.command(&["leases", "release", "--worker", worker, "--yes", "--json"]));
    assert_eq!(released["released"].as_array().unwrap().len(), 4, "{released}");
    for (before, after) in dead.iter().zip(leases(&site)) {
        assert_eq!(after["owner"], Value::Null);
        assert_eq!(after["counter"].as_i64(), before["counter"].as_i64().map(|counter| counter + 1));
        assert_eq!(after["checkpoint"], before["checkpoint"]);
    }

    let again = site.start();
    tools::until("the next process owns them", || owned(&leases(&site)).then_some(()));
    again.finish();
}

#[test]
fn what_does_not_exist_is_named_with_what_does() {
    let site = site();
    let program = site.start();
    tools::until("every lease has an owner", || owned(&leases(&site)).then_some(()));
    let said = |arguments: &[&str]| {
        let output = site.command(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        text(&output.stderr)
    };
    assert!(said(&["leases", "list", "--stream", "nothing"]).contains("flows (flowshift-flows)"));
    assert!(said(&["leases", "release", "--worker", "nobody"]).contains("owners are:"));
    let ambiguous = said(&["leases", "release", "shardId-000000000000"]);
    assert!(
        ambiguous.contains("flowshift-flows and flowshift-exchange") && ambiguous.contains("--stream"),
        "{ambiguous}"
    );
    assert!(said(&["leases", "release"]).contains("--worker"));
    program.finish();
}

/// A batch of a flows shard for lane 0 whose number leaves some out: for the lane, proof of loss.
fn batch_after_a_gap(kinesis: &str, lease: &Value) -> Vec<u8> {
    let summary = kinesis::call(kinesis, "DescribeStreamSummary", &json!({"StreamName": lease["stream"]}));
    let summary: Value = serde_json::from_str(&summary.body).unwrap();
    let created = summary["StreamDescriptionSummary"]["StreamCreationTimestamp"].as_f64().unwrap();
    let stream =
        StreamId { name: lease["stream"].as_str().unwrap().to_owned(), created_ms: (created * 1000.0).round() as i64 };
    let part = BatchPart {
        source: SourceId { stream, shard: ShardId::new(lease["shard"].as_str().unwrap()) },
        epoch: lease["epoch"].as_u64().unwrap(),
        n: lease["cut"]["n"].as_u64().unwrap() + 1_000,
        part: 0,
        parts: 1,
        watermarks: Watermarks::NONE,
        end: false,
        children: Vec::new(),
        expired: 0,
        diverged: false,
        trimmed: false,
        payload: Bytes::new(),
    };
    Envelope::encode(&Message::Batch(part)).to_vec()
}

#[test]
fn a_shard_that_stopped_at_a_gap_goes_on_once_the_gap_is_resolved() {
    let site = site();
    let program = site.start();
    capture::send_all(&program);
    let flows = tools::until("a cut", || leases(&site).into_iter().find(|lease| lease["cut"]["n"].as_u64() > Some(2)));
    let kinesis = program.kinesis.clone().unwrap();
    let gaps = ["leases", "resolve", "gaps", "shardId-000000000000"];
    let nothing = site.command(&gaps);
    assert!(text(&nothing.stderr).contains("nothing is missing"), "{}", text(&nothing.stderr));
    assert_eq!(nothing.status.code(), Some(0));

    let data = STANDARD.encode(batch_after_a_gap(&kinesis, &flows));
    let record = json!({"StreamName": "flowshift-exchange", "PartitionKey": "0", "Data": data});
    assert_eq!(kinesis::call(&kinesis, "PutRecord", &record).status, 200);
    tools::until("the shard stops", || (program.metric("flowshift_batch_gaps_total", &[]) > 0.0).then_some(()));
    assert_eq!(program.metric("flowshift_lane_losses_total", &[]), 0.0);
    let exchange = |of: &str| {
        let lease = leases(&site).into_iter().find(|lease| lease["stream"] == "flowshift-exchange").unwrap();
        lease[of].clone()
    };
    let stopped_at = exchange("checkpoint");
    let why = tools::until("the list says why", || exchange("stopped").as_str().map(str::to_owned));
    assert!(why.contains("batches") && exchange("shard_state") == "stopped", "{why}");
    let table = text(&site.command(&["leases", "list"]).stdout);
    assert!(table.contains(&format!("flowshift-exchange/shardId-000000000000: {why}")), "{table}");

    let planned = site.command(&gaps);
    assert_eq!(planned.status.code(), Some(0));
    assert!(text(&planned.stdout).contains("lane 0: batches after"), "{}", text(&planned.stdout));
    assert!(text(&planned.stderr).contains("--yes"));
    assert_eq!(exchange("resolution"), Value::Null, "without --yes nothing is written");

    let decided = parsed(&site.command(&[&gaps[..], &["--yes", "--json"]].concat()));
    assert_eq!(decided["lost"].as_array().unwrap().len(), 1, "{decided}");
    tools::until("the shard goes on", || {
        let passed = program.metric("flowshift_lane_losses_total", &["reason=\"gap\""]) > 0.0;
        (passed && exchange("checkpoint") != stopped_at).then_some(())
    });
    assert_eq!(exchange("stopped"), Value::Null, "it goes on");
    program.finish();
}

/// Puts the row of a shard that nobody has begun yet.
fn unbegun_child(site: &Site, child: &str, parent: &str) {
    let file = site.data_dir().join("dynamodb.sqlite");
    let database = dynoxide::Database::new(file.to_str().unwrap()).unwrap();
    let row = json!({
        "leaseKey": {"S": child},
        "checkpoint": {"S": "TRIM_HORIZON"},
        "leaseCounter": {"N": "0"},
        "parentShardId": {"SS": [parent]},
    });
    let put = json!({"TableName": "flowshift-exchange-leases", "Item": row});
    database.put_item(serde_json::from_value(put).unwrap()).unwrap();
}

#[test]
fn state_that_can_be_used_is_not_discarded_by_accident() {
    let site = site();
    let program = site.start();
    capture::send_all(&program);
    tools::until("committed lanes", || {
        leases(&site)
            .into_iter()
            .find(|lease| lease["stream"] == "flowshift-exchange" && lease["state_bytes"].as_u64() > Some(0))
    });
    program.kill();
    let state = ["leases", "resolve", "state", "--stream", "exchange", "shardId-000000000000"];
    let intact = site.command(&[&state[..], &["--yes"]].concat());
    assert_eq!(intact.status.code(), Some(64));
    assert!(text(&intact.stdout).contains("lane-"), "{}", text(&intact.stdout));
    assert!(text(&intact.stderr).contains("add --force"), "{}", text(&intact.stderr));
    // The state that a child begins with is its parent's; it had none itself, and nothing could be decided for it.
    let child = "shardId-000000000007";
    unbegun_child(&site, child, "shardId-000000000000");
    let inherits = site.command(&[&state[..4], &["exchange", child, "--yes"]].concat());
    assert_eq!(inherits.status.code(), Some(64), "{}", text(&inherits.stderr));
    let lines = text(&inherits.stdout);
    assert!(lines.lines().all(|line| line.starts_with("of parent shardId-000000000000: ")), "{lines}");
    assert_eq!(lines.lines().count(), text(&intact.stdout).lines().count());
    let forced = site.command(&[&state[..], &["--yes", "--force"]].concat());
    assert!(forced.status.success(), "{}", text(&forced.stderr));

    let again = site.start();
    tools::until("the state is discarded", || {
        (again.metric("flowshift_state_discards_total", &["reason=\"operator\""]) > 0.0).then_some(())
    });
    again.finish();
}
