//! Putting and getting records: routing, order, caps, iterators, times and refusals.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{shard_id, start, texts};
use flowshift_kinesis_emulator::EmulatorConfig;
use serde_json::json;

#[tokio::test]
async fn records_go_to_the_shard_of_their_key_in_order_and_numbers_grow() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 4).await;
    let records: Vec<_> = (0..500).map(|i| (format!("key {}", i % 50), format!("{i}").into_bytes())).collect();
    let answer = client.put_many("s", &records).await.unwrap();
    assert_eq!(answer["FailedRecordCount"], 0);

    let width = u128::MAX / 4 + 1;
    let mut seen = 0;
    for shard in 0..4u128 {
        let (read, _) = client.read_all("s", &shard_id(shard as usize)).await;
        seen += read.len();
        assert!(read.windows(2).all(|w| w[0].sequence < w[1].sequence && w[0].arrival_ms <= w[1].arrival_ms));
        let numbers: Vec<u32> = texts(&read).iter().map(|t| t.parse().unwrap()).collect();
        assert!(numbers.is_sorted());
        for record in &read {
            use md5::Digest as _;
            let hash: [u8; 16] = md5::Md5::digest(record.key.as_bytes()).into();
            assert_eq!(u128::from_be_bytes(hash) / width, shard, "{}", record.key);
        }
    }
    assert_eq!(seen, 500);
}

#[tokio::test]
async fn an_explicit_hash_key_overrides_the_partition_key() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 2).await;
    for (hash, shard) in
        [("0", 0), ("170141183460469231731687303715884105727", 0), ("170141183460469231731687303715884105728", 1)]
    {
        let request = json!({"StreamName": "s", "PartitionKey": "same", "ExplicitHashKey": hash, "Data": ""});
        let answer = client.call("PutRecord", request).await.unwrap();
        assert_eq!(answer["ShardId"], shard_id(shard));
    }
}

#[tokio::test]
async fn every_iterator_type_starts_where_it_says() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 1).await;
    let shard = shard_id(0);
    let mut numbers = Vec::new();
    for i in 0..3 {
        numbers.push(client.put("s", "k", format!("{i}").as_bytes()).await.1);
        // Arrival times must differ, and only the wall clock makes them.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let arrivals: Vec<u64> = client.read_all("s", &shard).await.0.iter().map(|r| r.arrival_ms).collect();
    assert!(arrivals[0] < arrivals[1] && arrivals[1] < arrivals[2]);
    let seconds = |ms: u64| ms as f64 / 1000.0;
    for (rest, expected) in [
        (json!({"ShardIteratorType": "TRIM_HORIZON"}), "012"),
        (json!({"ShardIteratorType": "LATEST"}), ""),
        (json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": numbers[1]}), "12"),
        (json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": numbers[1]}), "2"),
        (json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": numbers[2]}), ""),
        (json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 0}), "012"),
        (json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": seconds(arrivals[1])}), "12"),
        (json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": seconds(arrivals[1] + 1)}), "2"),
        (json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": seconds(arrivals[2] + 1)}), ""),
    ] {
        let iterator = client.iterator("s", &shard, rest.clone()).await.unwrap();
        let page = client.get(&iterator, None).await.unwrap();
        assert_eq!(texts(&page.records).concat(), expected, "{rest}");
        assert_eq!(page.behind_ms, 0);
        // The next iterator stays at the tip: a record put now is the only one it sees.
        assert!(client.get(&page.next.unwrap(), None).await.unwrap().records.is_empty());
    }
}

#[tokio::test]
async fn a_reader_behind_is_told_the_age_of_its_next_record() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 1).await;
    client.put("s", "k", b"a").await;
    client.put("s", "k", b"b").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let iterator = client.horizon("s", &shard_id(0)).await;
    let page = client.get(&iterator, Some(1)).await.unwrap();
    assert!((50..20_000).contains(&page.behind_ms), "{}", page.behind_ms);
    let page = client.get(&page.next.unwrap(), Some(1)).await.unwrap();
    assert_eq!((page.records.len(), page.behind_ms), (1, 0));
}

#[tokio::test]
async fn a_read_gives_at_most_ten_thousand_records_and_ten_mebibytes() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    client.create("small", 1).await;
    let batch: Vec<_> = (0..500).map(|i| (format!("{i}"), b"x".to_vec())).collect();
    for _ in 0..21 {
        client.put_many("small", &batch).await.unwrap();
    }
    let page = client.get(&client.horizon("small", &shard_id(0)).await, None).await.unwrap();
    assert_eq!(page.records.len(), 10_000);
    assert!(page.behind_ms > 0);
    assert_eq!(client.get(&page.next.unwrap(), None).await.unwrap().records.len(), 500);

    client.create("large", 1).await;
    for _ in 0..12 {
        client.put("large", "k", &vec![7; (1 << 20) - 1]).await;
    }
    let page = client.get(&client.horizon("large", &shard_id(0)).await, None).await.unwrap();
    assert_eq!(page.records.len(), 10);
    assert_eq!(client.get(&page.next.unwrap(), None).await.unwrap().records.len(), 2);
}

#[tokio::test]
async fn an_old_iterator_expires_and_a_changed_one_is_refused() {
    let config = EmulatorConfig { iterator_ttl: Duration::from_millis(20), ..EmulatorConfig::default() };
    let (_emulator, client) = start(config).await;
    client.create("s", 1).await;
    let iterator = client.horizon("s", &shard_id(0)).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(client.refused("GetRecords", json!({"ShardIterator": iterator})).await, "ExpiredIteratorException");
    for garbage in ["", "garbage", "AAAAAAAAAAAA", &iterator[1..], &iterator.to_lowercase()] {
        let request = json!({"ShardIterator": garbage});
        assert_eq!(client.refused("GetRecords", request).await, "InvalidArgumentException", "{garbage}");
    }
}

#[tokio::test]
async fn an_iterator_of_a_deleted_stream_does_not_fit_its_successor() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 1).await;
    let number = client.put("s", "k", b"old").await.1;
    let iterator = client.horizon("s", &shard_id(0)).await;
    client.call("DeleteStream", json!({"StreamName": "s"})).await.unwrap();
    assert_eq!(client.refused("GetRecords", json!({"ShardIterator": iterator})).await, "ResourceNotFoundException");
    client.create("s", 1).await;
    assert_eq!(client.refused("GetRecords", json!({"ShardIterator": iterator})).await, "ResourceNotFoundException");
    let after = json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number});
    assert_eq!(client.iterator("s", &shard_id(0), after).await.unwrap_err().kind, "InvalidArgumentException");
    assert!(client.put("s", "k", b"new").await.1 > number);
}

#[tokio::test]
async fn requests_out_of_bounds_are_refused_whole() {
    let (emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 1).await;
    let one = |key: &str, data: &str| json!({"StreamName": "s", "PartitionKey": key, "Data": data});
    let iterator = client.horizon("s", &shard_id(0)).await;
    let base64 = |n: usize| "AAAA".repeat(n / 3 + 1);
    let many = |n: usize, data: &str| {
        let records: Vec<_> = (0..n).map(|_| json!({"PartitionKey": "k", "Data": data})).collect();
        json!({"StreamName": "s", "Records": records})
    };
    let future = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 3600;
    let at = |kind: &str, number: &str| json!({"StreamName": "s", "ShardId": shard_id(0), "ShardIteratorType": kind, "StartingSequenceNumber": number});
    for (operation, request, kind) in [
        ("PutRecord", one("", ""), "ValidationException"),
        ("PutRecord", one(&"k".repeat(257), ""), "ValidationException"),
        ("PutRecord", one("k", "no base64"), "SerializationException"),
        ("PutRecord", one("k", &base64(1 << 20)), "ValidationException"),
        ("PutRecord", json!({"StreamName": "s", "PartitionKey": "k"}), "SerializationException"),
        ("PutRecord", json!({"StreamName": "none", "PartitionKey": "k", "Data": ""}), "ResourceNotFoundException"),
        ("PutRecord", json!({"StreamName": "../s", "PartitionKey": "k", "Data": ""}), "ValidationException"),
        ("PutRecord", json!({"PartitionKey": "k", "Data": ""}), "ValidationException"),
        (
            "PutRecord",
            json!({"StreamName": "s", "PartitionKey": "k", "Data": "", "ExplicitHashKey": "-1"}),
            "InvalidArgumentException",
        ),
        ("PutRecords", many(0, ""), "ValidationException"),
        ("PutRecords", many(501, ""), "ValidationException"),
        ("PutRecords", many(11, &base64((1 << 20) - 64)), "InvalidArgumentException"),
        ("GetRecords", json!({"ShardIterator": iterator, "Limit": 10_001}), "ValidationException"),
        ("GetRecords", json!({"ShardIterator": iterator, "Limit": 0}), "ValidationException"),
        ("GetShardIterator", at("AFTER_SEQUENCE_NUMBER", "123"), "InvalidArgumentException"),
        ("GetShardIterator", at("SOMEWHERE", "1"), "ValidationException"),
        (
            "GetShardIterator",
            json!({"StreamName": "s", "ShardId": shard_id(0), "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": future}),
            "InvalidArgumentException",
        ),
        (
            "GetShardIterator",
            json!({"StreamName": "s", "ShardId": shard_id(9), "ShardIteratorType": "LATEST"}),
            "ResourceNotFoundException",
        ),
        (
            "GetShardIterator",
            json!({"StreamName": "s", "ShardId": "0", "ShardIteratorType": "LATEST"}),
            "InvalidArgumentException",
        ),
        ("Nonsense", json!({}), "UnknownOperationException"),
    ] {
        assert_eq!(client.refused(operation, request.clone()).await, kind, "{operation}");
    }
    assert_eq!(emulator.stats().records_in, 0);
    assert_eq!(emulator.stats().answers["PutRecord"]["ValidationException"], 5);
    // Six megabytes are allowed.
    let sixth = client.call("PutRecords", many(6, &base64((1 << 20) - 64))).await.unwrap();
    assert_eq!(sixth["FailedRecordCount"], 0);
}

#[tokio::test]
async fn bytes_that_are_no_request_are_answered() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    let json = "content-type: application/x-amz-json-1.1\r\nx-amz-target: Kinesis_20131202.PutRecord";
    let cbor = "content-type: application/x-amz-cbor-1.1\r\nx-amz-target: Kinesis_20131202.PutRecord";
    for (head, body, status) in [
        (format!("POST / HTTP/1.1\r\n{json}"), &b"\xff\xfe"[..], 400),
        (format!("POST / HTTP/1.1\r\n{json}"), b"[1,2]", 400),
        (format!("POST / HTTP/1.1\r\n{json}"), b"{\"Data\":", 400),
        (format!("POST / HTTP/1.1\r\n{cbor}"), b"\xa0", 400),
        ("POST / HTTP/1.1\r\nx-amz-target: Kinesis_20131202.PutRecord".to_owned(), b"{}", 400),
        ("GET / HTTP/1.1".to_owned(), b"", 404),
        ("POST /elsewhere HTTP/1.1".to_owned(), b"", 404),
    ] {
        let (answered, _, body) = client.raw(&head, body).await.unwrap();
        assert_eq!(answered, status, "{head}");
        assert!(serde_json::from_slice::<serde_json::Value>(&body).unwrap()["__type"].is_string());
    }
    client.create("still_there", 1).await;
}
