//! Nothing is lost while many write, read and reshard at once.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{Client, Record, shard_id, start, tally, texts};
use flowshift_kinesis_emulator::EmulatorConfig;
use serde_json::{Value, json};

const WRITERS: usize = 6;

/// Puts batches of 1 to 100 records and returns what was acknowledged.
async fn write(client: Client, writer: usize, batches: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for batch in 0..batches {
        let size = 1 + (batch * 37 + writer * 11) % 100;
        let records: Vec<_> = (0..size)
            .map(|i| (format!("{writer}/{batch}/{i}"), format!("{writer}/{batch}/{i}").into_bytes()))
            .collect();
        let answer = client.put_many("s", &records).await.unwrap();
        assert_eq!(answer["FailedRecordCount"], 0);
        acknowledged.extend(records.into_iter().map(|(_, data)| String::from_utf8(data).unwrap()));
    }
    acknowledged
}

async fn write_all(client: &Client, batches: usize) -> Vec<String> {
    let writers: Vec<_> = (0..WRITERS).map(|w| tokio::spawn(write(client.clone(), w, batches))).collect();
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    acknowledged
}

async fn six_writers_and_a_tailing_reader(config: EmulatorConfig) {
    let (_emulator, client) = start(config).await;
    client.create("s", 1).await;
    let done = Arc::new(AtomicBool::new(false));
    let iterator = client.iterator("s", &shard_id(0), json!({"ShardIteratorType": "LATEST"})).await.unwrap();
    let reader = tokio::spawn({
        let (client, done) = (client.clone(), Arc::clone(&done));
        async move {
            let (mut iterator, mut all) = (iterator, Vec::<Record>::new());
            loop {
                let was_done = done.load(Ordering::Acquire);
                let page = client.get(&iterator, None).await.unwrap();
                iterator = page.next.unwrap();
                let empty = page.records.is_empty();
                all.extend(page.records);
                if was_done && empty {
                    return all;
                }
            }
        }
    });
    let acknowledged = write_all(&client, 60).await;
    done.store(true, Ordering::Release);
    let read = reader.await.unwrap();
    assert!(read.windows(2).all(|w| w[0].sequence < w[1].sequence));
    assert!(acknowledged.len() > 15_000);
    assert_eq!(tally(texts(&read)), tally(acknowledged));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tailing_reader_misses_nothing_of_six_writers_on_many_threads() {
    six_writers_and_a_tailing_reader(EmulatorConfig::default()).await;
}

#[tokio::test]
async fn a_tailing_reader_misses_nothing_of_six_writers_on_one_thread_and_disk() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        EmulatorConfig { data_dir: Some(dir.path().to_owned()), segment_bytes: 100_000, ..EmulatorConfig::default() };
    six_writers_and_a_tailing_reader(config).await;
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

/// Reads every shard after its parents, as a consumer does, starting from the shards without parents.
async fn read_by_lineage(client: &Client) -> Vec<(String, Vec<Record>)> {
    let shards = client.shards("s").await;
    let mut waiting: Vec<String> =
        shards.iter().filter(|s| s["ParentShardId"].is_null()).map(|s| text(s, "ShardId").to_owned()).collect();
    let mut read = Vec::new();
    let mut half_done: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while let Some(shard) = waiting.pop() {
        let (records, children) = client.read_all("s", &shard).await;
        read.push((shard.clone(), records));
        for child in children {
            let id = text(&child, "ShardId").to_owned();
            let parents = half_done.entry(id.clone()).or_default();
            parents.insert(shard.clone());
            if parents.len() == child["ParentShards"].as_array().unwrap().len() {
                waiting.push(id);
            }
        }
    }
    assert_eq!(read.len(), shards.len(), "every shard is reached through ChildShards");
    read
}

/// One writer puts the records of a key in the order of (batch, place), and they must be read in it.
fn check_order_of_keys(read: &[(String, Vec<Record>)]) {
    let mut last: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for record in read.iter().flat_map(|(_, records)| records) {
        let text = std::str::from_utf8(&record.data).unwrap();
        let numbers: Vec<u64> = text.split('/').map(|n| n.parse().unwrap()).collect();
        let place = (numbers[1], numbers[2]);
        assert!(last.insert(&record.key, place).is_none_or(|before| before < place), "{} {text}", record.key);
    }
}

/// The ending number of each parent is below the first number of its children; open ranges cover the space.
fn check_lineage(shards: &[Value], read: &[(String, Vec<Record>)]) {
    let read: BTreeMap<&str, &Vec<Record>> = read.iter().map(|(id, records)| (id.as_str(), records)).collect();
    let by_id: BTreeMap<&str, &Value> = shards.iter().map(|s| (text(s, "ShardId"), s)).collect();
    for shard in shards {
        let numbers = &shard["SequenceNumberRange"];
        for parent in ["ParentShardId", "AdjacentParentShardId"].iter().filter_map(|p| shard[*p].as_str()) {
            let ending = text(&by_id[parent]["SequenceNumberRange"], "EndingSequenceNumber");
            assert!(ending < text(numbers, "StartingSequenceNumber"));
        }
        for record in read[text(shard, "ShardId")] {
            assert!(record.sequence.as_str() >= text(numbers, "StartingSequenceNumber"));
            assert!(numbers["EndingSequenceNumber"].as_str().is_none_or(|ending| record.sequence.as_str() < ending));
        }
    }
    let mut open: Vec<(u128, u128)> = shards
        .iter()
        .filter(|s| s["SequenceNumberRange"]["EndingSequenceNumber"].is_null())
        .map(|s| (&s["HashKeyRange"], s))
        .map(|(r, _)| (text(r, "StartingHashKey").parse().unwrap(), text(r, "EndingHashKey").parse().unwrap()))
        .collect();
    open.sort_unstable();
    assert_eq!((open[0].0, open[open.len() - 1].1), (0, u128::MAX));
    assert!(open.windows(2).all(|w| w[0].1 + 1 == w[1].0), "{open:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn split_merge_and_update_under_load_lose_nothing_and_keep_each_keys_order() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmulatorConfig { data_dir: Some(dir.path().to_owned()), ..EmulatorConfig::default() };
    let (emulator, client) = start(config).await;
    client.create("s", 2).await;
    let load = tokio::spawn({
        let client = client.clone();
        async move { write_all(&client, 40).await }
    });
    let split = json!({"StreamName": "s", "ShardToSplit": shard_id(0), "NewStartingHashKey": "1000000000000000000000000000000000000"});
    client.call("SplitShard", split).await.unwrap();
    let merge = json!({"StreamName": "s", "ShardToMerge": shard_id(1), "AdjacentShardToMerge": shard_id(3)});
    client.call("MergeShards", merge.clone()).await.unwrap();
    assert_eq!(client.refused("MergeShards", merge).await, "InvalidArgumentException", "they are closed now");
    for (target, open) in [(4, 4), (3, 3), (6, 6), (3, 3), (2, 2), (1, 1), (2, 2)] {
        let update = json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
        client.call("UpdateShardCount", update).await.unwrap();
        assert_eq!(client.open_shards("s").await.len(), open);
        tokio::task::yield_now().await;
    }
    let acknowledged = load.await.unwrap();
    let read = read_by_lineage(&client).await;
    check_lineage(&client.shards("s").await, &read);
    check_order_of_keys(&read);
    assert_eq!(tally(read.iter().flat_map(|(_, r)| texts(r))), tally(acknowledged.clone()));

    // The same after a kill: topology and records are on disk.
    drop(emulator);
    let config = EmulatorConfig { data_dir: Some(dir.path().to_owned()), ..EmulatorConfig::default() };
    let (_emulator, client) = start(config).await;
    let again = read_by_lineage(&client).await;
    assert_eq!(tally(again.iter().flat_map(|(_, r)| texts(r))), tally(acknowledged));
}

#[tokio::test]
async fn doubling_is_plain_splits_and_impossible_scaling_is_refused() {
    let (_emulator, client) = start(EmulatorConfig::default()).await;
    client.create("s", 3).await;
    let update = |target: i64| json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
    client.call("UpdateShardCount", update(6)).await.unwrap();
    assert_eq!(client.shards("s").await.len(), 9, "three parents and their six children");
    for target in [0, -1, 13, 2, i64::MAX] {
        assert!(
            ["LimitExceededException", "ValidationException"]
                .contains(&client.refused("UpdateShardCount", update(target)).await.as_str())
        );
    }
    let split = |at: &str| json!({"StreamName": "s", "ShardToSplit": shard_id(3), "NewStartingHashKey": at});
    for at in ["0", "340282366920938463463374607431768211455", "x"] {
        assert_eq!(client.refused("SplitShard", split(at)).await, "InvalidArgumentException");
    }
    let merge = json!({"StreamName": "s", "ShardToMerge": shard_id(3), "AdjacentShardToMerge": shard_id(8)});
    assert_eq!(client.refused("MergeShards", merge).await, "InvalidArgumentException");
    client
        .call("CreateStream", json!({"StreamName": "d", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}))
        .await
        .unwrap();
    let split = json!({"StreamName": "d", "ShardToSplit": shard_id(0), "NewStartingHashKey": "5"});
    assert_eq!(client.refused("SplitShard", split).await, "ValidationException");
    assert_eq!(client.open_shards("d").await.len(), 4);
}
