//! Every kind of fault, in process and over HTTP, and the limits of AWS.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Client, shard_id, start, texts};
use flowshift_kinesis_emulator::{EmulatorConfig, FailedRecords, FaultKind, FaultRule, Limits};
use serde_json::{Value, json};

fn one() -> Value {
    json!({"StreamName": "s", "PartitionKey": "k", "Data": "YQ=="})
}

async fn stored(client: &Client) -> usize {
    client.read_all("s", &shard_id(0)).await.0.len()
}

#[tokio::test]
async fn a_latency_delays_and_the_call_succeeds() {
    let (emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 1).await;
    emulator.faults().add(FaultRule::new(FaultKind::Latency { ms: 60 }).on("PutRecord").times(1)).unwrap();
    let before = Instant::now();
    client.call("PutRecord", one()).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(60));
    assert_eq!(stored(&client).await, 1);
}

#[tokio::test]
async fn a_status_and_a_throttle_refuse_without_effect() {
    let (emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 1).await;
    client.create("other", 1).await;
    let status = FaultKind::Status { status: 503, error_type: "ServiceUnavailable".to_owned() };
    emulator.faults().add(FaultRule::new(status).on("PutRecord").stream("s").times(1)).unwrap();
    emulator.faults().add(FaultRule::new(FaultKind::Throttle).on("PutRecord").stream("s").times(2)).unwrap();
    client.put("other", "k", b"not meant").await;
    let refused = client.call("PutRecord", one()).await.unwrap_err();
    assert_eq!((refused.status, refused.kind.as_str()), (503, "ServiceUnavailable"));
    for _ in 0..2 {
        assert_eq!(client.refused("PutRecord", one()).await, "ProvisionedThroughputExceededException");
    }
    client.call("PutRecord", one()).await.unwrap();
    assert_eq!(stored(&client).await, 1);
    assert_eq!(emulator.stats().answers["PutRecord"]["injected"], 3);
}

#[tokio::test]
async fn an_iterator_expires_on_demand_on_its_shard_only() {
    let (emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 2).await;
    emulator.faults().add(FaultRule::new(FaultKind::ExpireIterator).shard(&shard_id(1)).times(1)).unwrap();
    let (first, second) = (client.horizon("s", &shard_id(0)).await, client.horizon("s", &shard_id(1)).await);
    client.get(&first, None).await.unwrap();
    assert_eq!(client.get(&second, None).await.unwrap_err().kind, "ExpiredIteratorException");
    client.get(&second, None).await.unwrap();
}

#[tokio::test]
async fn a_cut_answer_comes_after_the_effect() {
    let (emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 1).await;
    emulator.faults().add(FaultRule::new(FaultKind::CutAfterApply).on("PutRecord").times(1)).unwrap();
    assert!(client.try_call("PutRecord", &one()).await.is_err(), "no answer arrives");
    client.call("PutRecord", one()).await.unwrap();
    assert_eq!(stored(&client).await, 2, "the retry wrote it twice, as on AWS");
    assert_eq!(emulator.stats().answers["PutRecord"]["cut"], 1);
}

#[tokio::test]
async fn a_partial_failure_refuses_the_records_named_and_stores_the_others() {
    let (emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 1).await;
    let partial = FaultKind::PartialFailure(FailedRecords::Indices(vec![1, 3]));
    emulator.faults().add(FaultRule::new(partial).times(1)).unwrap();
    let records: Vec<_> = (0..5).map(|i| ("k".to_owned(), format!("{i}").into_bytes())).collect();
    let answer = client.put_many("s", &records).await.unwrap();
    assert_eq!(answer["FailedRecordCount"], 2);
    for (i, record) in answer["Records"].as_array().unwrap().iter().enumerate() {
        let failed = record["ErrorCode"] == "ProvisionedThroughputExceededException";
        assert_eq!(failed, i == 1 || i == 3);
        assert_eq!(record["SequenceNumber"].is_null(), failed);
    }
    assert_eq!(texts(&client.read_all("s", &shard_id(0)).await.0).concat(), "024");
}

#[tokio::test]
async fn a_fraction_fails_by_the_seed() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let (emulator, client) = start(EmulatorConfig { fault_seed: seed, ..EmulatorConfig::default() }).await;
        client.create("s", 1).await;
        let partial = FaultKind::PartialFailure(FailedRecords::Fraction(0.25));
        emulator.faults().add(FaultRule::new(partial)).unwrap();
        let records: Vec<_> = (0..400).map(|i| (format!("{i}"), vec![])).collect();
        let answer = client.put_many("s", &records).await.unwrap();
        assert!((60..140).contains(&answer["FailedRecordCount"].as_u64().unwrap()));
        let failed: Vec<bool> =
            answer["Records"].as_array().unwrap().iter().map(|r| r["ErrorCode"].is_string()).collect();
        runs.push(failed);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn rules_are_set_listed_and_removed_over_http() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 1).await;
    let rules = json!({"seed": 1, "rules": [
        {"operation": "PutRecord", "times": 1, "kind": "throttle"},
        {"operation": "PutRecord", "kind": {"status": {"status": 500, "error_type": "InternalFailure"}}},
    ]});
    let (status, _, _) = client.raw("POST /_faults HTTP/1.1", rules.to_string().as_bytes()).await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(client.refused("PutRecord", one()).await, "ProvisionedThroughputExceededException");
    assert_eq!(client.refused("PutRecord", one()).await, "InternalFailure");
    let (_, _, listed) = client.raw("GET /_faults HTTP/1.1", b"").await.unwrap();
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!((&listed["rules"][0]["hit"], &listed["rules"][1]["hit"]), (&json!(1), &json!(1)));
    client.raw("DELETE /_faults HTTP/1.1", b"").await.unwrap();
    client.call("PutRecord", one()).await.unwrap();
    for bad in [
        json!({"rules": [{"kind": "explode"}]}),
        json!({"rule": []}),
        json!({"rules": [{"operation": "X", "kind": "throttle"}]}),
    ] {
        assert_eq!(client.raw("POST /_faults HTTP/1.1", bad.to_string().as_bytes()).await.unwrap().0, 400);
    }
}

#[tokio::test]
async fn the_limits_of_aws_refuse_records_one_by_one_and_reads_by_call_and_volume() {
    let config = EmulatorConfig { limits: Limits::Aws, ..EmulatorConfig::default() };
    let (_emulator, client) = start(config).await;
    client.create("s", 2).await;
    let mut failed = 0;
    for _ in 0..8 {
        let records: Vec<Value> =
            (0..500).map(|_| json!({"PartitionKey": "k", "ExplicitHashKey": "0", "Data": ""})).collect();
        let answer = client.call("PutRecords", json!({"StreamName": "s", "Records": records})).await.unwrap();
        failed += answer["FailedRecordCount"].as_u64().unwrap();
    }
    // 1,000 at once and 1,000 more for every second that this took.
    assert!((1..=3000).contains(&failed), "{failed}");
    let other = json!({"StreamName": "s", "PartitionKey": "k", "ExplicitHashKey": "340282366920938463463374607431768211455", "Data": ""});
    client.call("PutRecord", other).await.unwrap();

    let iterator = client.horizon("s", &shard_id(0)).await;
    let mut refused = 0;
    for _ in 0..30 {
        refused += usize::from(client.get(&iterator, Some(1)).await.is_err());
    }
    assert!(refused > 10, "{refused}");
}
