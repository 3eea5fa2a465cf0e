//! The life of streams, lists of shards, and subscriptions.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Client, Record, records, shard_id, start, texts};
use flowshift_kinesis_emulator::EmulatorConfig;
use serde_json::{Value, json};

async fn status(client: &Client) -> Result<String, String> {
    let answer = client.call("DescribeStreamSummary", json!({"StreamName": "s"})).await.map_err(|e| e.kind)?;
    Ok(answer["StreamDescriptionSummary"]["StreamStatus"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_stream_passes_through_its_states() {
    let config = EmulatorConfig { transition_delay: Duration::from_millis(300), ..EmulatorConfig::default() };
    let (_emulator, client) = start(config).await;
    client.create("s", 1).await;
    assert_eq!(status(&client).await.unwrap(), "CREATING");
    let put = json!({"StreamName": "s", "PartitionKey": "k", "Data": ""});
    assert_eq!(client.refused("PutRecord", put.clone()).await, "ResourceNotFoundException");
    while status(&client).await.unwrap() != "ACTIVE" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let update = json!({"StreamName": "s", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"});
    client.call("UpdateShardCount", update.clone()).await.unwrap();
    assert_eq!(status(&client).await.unwrap(), "UPDATING");
    client.call("PutRecord", put).await.unwrap();
    assert_eq!(client.refused("UpdateShardCount", update).await, "ResourceInUseException");
    client.call("DeleteStream", json!({"StreamName": "s"})).await.unwrap();
    assert_eq!(status(&client).await.unwrap(), "DELETING");
    let create = json!({"StreamName": "s", "ShardCount": 1});
    assert_eq!(client.refused("CreateStream", create).await, "ResourceInUseException");
    while status(&client).await != Err("ResourceNotFoundException".to_owned()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.create("s", 1).await;
}

#[tokio::test]
async fn streams_are_described_and_listed_by_name_and_arn() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    for name in ["b", "a", "c"] {
        client.create(name, 2).await;
    }
    assert_eq!(
        client.refused("CreateStream", json!({"StreamName": "a", "ShardCount": 1})).await,
        "ResourceInUseException"
    );
    let first = client.call("ListStreams", json!({"Limit": 2})).await.unwrap();
    assert_eq!((&first["StreamNames"], &first["HasMoreStreams"]), (&json!(["a", "b"]), &json!(true)));
    let rest = client.call("ListStreams", json!({"NextToken": first["NextToken"]})).await.unwrap();
    assert_eq!(rest["StreamNames"], json!(["c"]));
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/a";
    for operation in ["DescribeStreamSummary", "DescribeStream", "ListShards"] {
        client.call(operation, json!({"StreamARN": arn})).await.unwrap();
        client.call(operation, json!({"StreamARN": arn, "StreamName": "a"})).await.unwrap();
        assert_eq!(
            client.refused(operation, json!({"StreamARN": arn, "StreamName": "b"})).await,
            "InvalidArgumentException"
        );
    }
    let hours = |h: i64| json!({"StreamName": "a", "RetentionPeriodHours": h});
    client.call("IncreaseStreamRetentionPeriod", hours(48)).await.unwrap();
    assert_eq!(client.refused("IncreaseStreamRetentionPeriod", hours(24)).await, "InvalidArgumentException");
    client.call("DecreaseStreamRetentionPeriod", hours(24)).await.unwrap();
}

async fn ids(client: &Client, request: Value) -> Vec<usize> {
    let answer = client.call("ListShards", request).await.unwrap();
    let ids = answer["Shards"].as_array().unwrap().iter().map(|s| s["ShardId"].as_str().unwrap().to_owned());
    ids.map(|id| id.trim_start_matches("shardId-").parse().unwrap()).collect()
}

#[tokio::test]
async fn shards_are_filtered_and_paged() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 2).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let now =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as f64 / 1000.0;
    let before = now();
    tokio::time::sleep(Duration::from_millis(5)).await;
    client
        .call("UpdateShardCount", json!({"StreamName": "s", "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"}))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let after = now();
    let filter = |filter: Value| json!({"StreamName": "s", "ShardFilter": filter});
    for (request, expected) in [
        (json!({"StreamName": "s"}), vec![0, 1, 2, 3, 4, 5]),
        (json!({"StreamName": "s", "ExclusiveStartShardId": shard_id(3)}), vec![4, 5]),
        (filter(json!({"Type": "AT_LATEST"})), vec![2, 3, 4, 5]),
        (filter(json!({"Type": "AT_TRIM_HORIZON"})), vec![0, 1]),
        (filter(json!({"Type": "FROM_TRIM_HORIZON"})), vec![0, 1, 2, 3, 4, 5]),
        (filter(json!({"Type": "AT_TIMESTAMP", "Timestamp": before})), vec![0, 1]),
        (filter(json!({"Type": "AT_TIMESTAMP", "Timestamp": after})), vec![2, 3, 4, 5]),
        (filter(json!({"Type": "FROM_TIMESTAMP", "Timestamp": before})), vec![0, 1, 2, 3, 4, 5]),
        (filter(json!({"Type": "FROM_TIMESTAMP", "Timestamp": after})), vec![2, 3, 4, 5]),
        (filter(json!({"Type": "AFTER_SHARD_ID", "ShardId": shard_id(4)})), vec![5]),
    ] {
        assert_eq!(ids(&client, request.clone()).await, expected, "{request}");
    }
    let mut paged = Vec::new();
    let mut request =
        json!({"StreamName": "s", "MaxResults": 2, "ShardFilter": {"Type": "AFTER_SHARD_ID", "ShardId": shard_id(0)}});
    loop {
        let answer = client.call("ListShards", request).await.unwrap();
        paged.push(answer["Shards"].as_array().unwrap().len());
        if answer["NextToken"].is_null() {
            break;
        }
        request = json!({"NextToken": answer["NextToken"], "MaxResults": 2});
    }
    assert_eq!(paged, [2, 2, 1]);
    for bad in [
        json!({"NextToken": "x"}),
        json!({"NextToken": "x", "StreamName": "s"}),
        filter(json!({"Type": "AT_TIMESTAMP"})),
    ] {
        assert_eq!(client.refused("ListShards", bad).await, "InvalidArgumentException");
    }
}

struct Event {
    kind: String,
    payload: Value,
}

/// Takes the chunks and then the messages of a subscription's answer apart, checking every checksum.
fn events(head: &str, body: &[u8]) -> Vec<Event> {
    assert!(head.contains("content-type: application/vnd.amazon.eventstream"));
    assert!(head.contains("transfer-encoding: chunked"));
    let mut bytes = Vec::new();
    let mut rest = body;
    while let Some(line) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        bytes.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
    let number = |b: &[u8]| u32::from_be_bytes(b[..4].try_into().unwrap());
    let (mut events, mut rest) = (Vec::new(), bytes.as_slice());
    while !rest.is_empty() {
        let (total, headers) = (number(rest) as usize, number(&rest[4..]) as usize);
        assert_eq!(number(&rest[8..]), crc32fast::hash(&rest[..8]));
        assert_eq!(number(&rest[total - 4..]), crc32fast::hash(&rest[..total - 4]));
        let head = String::from_utf8_lossy(&rest[12..12 + headers]).into_owned();
        let kinds = ["initial-response", "SubscribeToShardEvent", "ResourceNotFoundException"];
        let kind = kinds.iter().find(|k| head.contains(*k)).unwrap().to_string();
        events.push(Event { kind, payload: serde_json::from_slice(&rest[12 + headers..total - 4]).unwrap() });
        rest = &rest[total..];
    }
    events
}

async fn subscribe(client: &Client, arn: &str, shard: usize, position: Value) -> Result<Vec<Event>, Value> {
    let head = "POST / HTTP/1.1\r\ncontent-type: application/x-amz-json-1.1\r\nx-amz-target: Kinesis_20131202.SubscribeToShard";
    let request = json!({"ConsumerARN": arn, "ShardId": shard_id(shard), "StartingPosition": position});
    let (status, head, body) = client.raw(head, request.to_string().as_bytes()).await.unwrap();
    if status == 200 { Ok(events(&head, &body)) } else { Err(serde_json::from_slice(&body).unwrap()) }
}

fn all_records(events: &[Event]) -> Vec<Record> {
    events.iter().filter(|e| e.kind == "SubscribeToShardEvent").flat_map(|e| records(&e.payload)).collect()
}

#[tokio::test]
async fn a_subscription_pushes_records_and_ends_with_the_children() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 1).await;
    let arn = client.consumer_arn("s", "c").await;
    client.put("s", "k", b"before").await;
    let subscription = tokio::spawn({
        let (client, arn) = (client.clone(), arn.clone());
        async move { subscribe(&client, &arn, 0, json!({"Type": "TRIM_HORIZON"})).await.unwrap() }
    });
    for i in 0..20 {
        client.put("s", "k", format!("{i}").as_bytes()).await;
    }
    client
        .call("SplitShard", json!({"StreamName": "s", "ShardToSplit": shard_id(0), "NewStartingHashKey": "9"}))
        .await
        .unwrap();
    let events = subscription.await.unwrap();
    assert_eq!(events[0].kind, "initial-response");
    let expected: Vec<String> = std::iter::once("before".to_owned()).chain((0..20).map(|i| i.to_string())).collect();
    assert_eq!(texts(&all_records(&events)), expected);
    let last = &events[events.len() - 1].payload;
    assert_eq!(last["ChildShards"].as_array().unwrap().len(), 2);
    assert!(last["ContinuationSequenceNumber"].is_null());
}

#[tokio::test]
async fn a_subscription_ends_after_its_life_and_goes_on_from_its_continuation() {
    let config = EmulatorConfig {
        subscription_lifetime: Duration::from_millis(150),
        subscription_heartbeat: Duration::from_millis(20),
        subscription_takeover: Duration::ZERO,
        ..EmulatorConfig::default()
    };
    let (_emulator, client) = start(config).await;
    client.create("s", 1).await;
    let arn = client.consumer_arn("s", "c").await;
    let empty = subscribe(&client, &arn, 0, json!({"Type": "LATEST"})).await.unwrap();
    assert!(empty.len() >= 3, "heartbeats come while nothing happens");
    let continuation = |events: &[Event]| events[events.len() - 1].payload["ContinuationSequenceNumber"].clone();
    client.put("s", "k", b"a").await;
    let after = json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": continuation(&empty)});
    let first = subscribe(&client, &arn, 0, after).await.unwrap();
    assert_eq!(texts(&all_records(&first)), ["a"]);
    client.put("s", "k", b"b").await;
    let after = json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": continuation(&first)});
    assert_eq!(texts(&all_records(&subscribe(&client, &arn, 0, after).await.unwrap())), ["b"]);
}

#[tokio::test]
async fn a_second_subscription_is_refused_at_first_and_takes_over_later() {
    let config = EmulatorConfig { subscription_takeover: Duration::from_millis(200), ..EmulatorConfig::default() };
    let (emulator, client) = start(config).await;
    client.create("s", 1).await;
    let arn = client.consumer_arn("s", "c").await;
    let run = |client: Client, arn: String| {
        tokio::spawn(async move { subscribe(&client, &arn, 0, json!({"Type": "LATEST"})).await })
    };
    let subscribed = |emulator: &flowshift_kinesis_emulator::Emulator| {
        emulator.stats().answers.get("SubscribeToShard").and_then(|a| a.get("ok")).copied().unwrap_or(0)
    };
    let first = run(client.clone(), arn.clone());
    while subscribed(&emulator) < 1 {
        tokio::task::yield_now().await;
    }
    let refused = subscribe(&client, &arn, 0, json!({"Type": "LATEST"})).await.err().unwrap();
    assert_eq!(refused["__type"], "ResourceInUseException");
    tokio::time::sleep(Duration::from_millis(250)).await;
    let second = run(client.clone(), arn.clone());
    let ended = first.await.unwrap().unwrap();
    assert!(all_records(&ended).is_empty());
    client.call("DeleteStream", json!({"StreamName": "s", "EnforceConsumerDeletion": true})).await.unwrap();
    let ended = second.await.unwrap().unwrap();
    assert_eq!(ended[ended.len() - 1].kind, "ResourceNotFoundException");
}

#[tokio::test]
async fn consumers_are_registered_once_listed_and_removed() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 1).await;
    let arn = client.consumer_arn("s", "c").await;
    let stream = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    let named = json!({"StreamARN": stream, "ConsumerName": "c"});
    assert_eq!(client.refused("RegisterStreamConsumer", named.clone()).await, "ResourceInUseException");
    let described = client.call("DescribeStreamConsumer", named.clone()).await.unwrap();
    assert_eq!(described["ConsumerDescription"]["ConsumerARN"], json!(arn));
    assert_eq!(client.refused("DeleteStream", json!({"StreamName": "s"})).await, "ResourceInUseException");
    let listed = client.call("ListStreamConsumers", json!({"StreamARN": stream})).await.unwrap();
    assert_eq!(listed["Consumers"].as_array().unwrap().len(), 1);
    client.call("DeregisterStreamConsumer", named.clone()).await.unwrap();
    assert_eq!(client.refused("DescribeStreamConsumer", named).await, "ResourceNotFoundException");
    assert!(subscribe(&client, &arn, 0, json!({"Type": "LATEST"})).await.is_err());
}
