//! What survives a kill, and what is trimmed.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::BufRead as _,
    path::{Path, PathBuf},
    time::Duration,
};

use common::{Client, shard_id, start, tally, texts};
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig, StartError};
use serde_json::json;

fn on_disk(dir: &Path) -> EmulatorConfig {
    EmulatorConfig { data_dir: Some(dir.to_owned()), ..EmulatorConfig::default() }
}

fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_str().unwrap().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn acknowledged_records_iterators_and_consumers_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (emulator, client) = start(on_disk(dir.path())).await;
    client.create("s", 1).await;
    let arn = client.consumer_arn("s", "c").await;
    let mut numbers = Vec::new();
    for i in 0..100 {
        numbers.push(client.put("s", "k", format!("{i}").as_bytes()).await.1);
    }
    let iterator = client.get(&client.horizon("s", &shard_id(0)).await, Some(60)).await.unwrap().next.unwrap();
    drop(emulator);

    let (_emulator, client) = start(on_disk(dir.path())).await;
    let page = client.get(&iterator, None).await.unwrap();
    assert_eq!(page.records.iter().map(|r| r.sequence.clone()).collect::<Vec<_>>(), numbers[60..]);
    assert!(client.put("s", "k", b"new").await.1 > numbers[99]);
    client.call("DescribeStreamConsumer", json!({"ConsumerARN": arn})).await.unwrap();
}

/// Not a test: the process that `an_emulator_killed_while_writing_keeps_what_it_acknowledged` kills.
#[tokio::test]
#[ignore = "run by another test as a process of its own"]
async fn a_process_to_kill() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (emulator, _) = start(on_disk(Path::new(&dir))).await;
    println!("\nlistening {}", emulator.addr());
    std::future::pending::<()>().await;
}

const DIR: &str = "EMULATOR_TO_KILL";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_emulator_killed_while_writing_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["a_process_to_kill", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let addr = lines.find_map(|line| line.unwrap().strip_prefix("listening ").map(str::to_owned)).unwrap();
    let client = Client { addr: addr.parse().unwrap() };
    client.create("s", 2).await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for i in 0.. {
                    let text = format!("{writer}/{i}");
                    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &text);
                    let request = json!({"StreamName": "s", "PartitionKey": text, "Data": data});
                    match client.try_call("PutRecord", &request).await {
                        Ok(answer) => answer.unwrap(),
                        Err(_) => break,
                    };
                    acknowledged.push(text);
                    if writer == 0 && i == 150 {
                        return (acknowledged, true);
                    }
                }
                (acknowledged, false)
            })
        })
        .collect();
    let mut writers = writers.into_iter();
    let (mut acknowledged, reached) = writers.next().unwrap().await.unwrap();
    assert!(reached);
    // SIGKILL, while the other three are writing.
    child.kill().unwrap();
    child.wait().unwrap();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap().0);
    }

    let (_emulator, client) = start(on_disk(dir.path())).await;
    let mut read = client.read_all("s", &shard_id(0)).await.0;
    read.extend(client.read_all("s", &shard_id(1)).await.0);
    let counts = tally(texts(&read));
    assert!(acknowledged.len() > 151);
    assert!(acknowledged.iter().all(|text| counts.get(text) == Some(&1)));
    assert!(read.len() <= acknowledged.len() + 3, "only what was under way may be there besides");
}

#[tokio::test]
async fn a_half_written_record_is_cut_and_the_rest_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (emulator, client) = start(on_disk(dir.path())).await;
    client.create("s", 1).await;
    for i in 0..10 {
        client.put("s", "k", format!("{i}").as_bytes()).await;
    }
    drop(emulator);
    let log = files(dir.path(), ".log").pop().unwrap();
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 1]).unwrap();
    // What a kill while replacing a description, and while creating a stream, leaves behind.
    std::fs::write(files(dir.path(), "meta.json").pop().unwrap().with_file_name("meta.json.new"), "{").unwrap();
    std::fs::create_dir_all(dir.path().join("streams/1-half")).unwrap();

    let (_emulator, client) = start(on_disk(dir.path())).await;
    client.put("s", "k", b"new").await;
    assert_eq!(texts(&client.read_all("s", &shard_id(0)).await.0).concat(), "012345678new");
}

#[tokio::test]
async fn a_directory_serves_one_emulator_and_a_public_address_none() {
    let dir = tempfile::tempdir().unwrap();
    let (emulator, _) = start(on_disk(dir.path())).await;
    let second = Emulator::start(on_disk(dir.path()), "127.0.0.1:0".parse().unwrap()).await;
    assert!(matches!(second, Err(StartError::InUse(_))));
    emulator.shutdown().await;
    start(on_disk(dir.path())).await.0.shutdown().await;
    let public = Emulator::start(EmulatorConfig::default(), "0.0.0.0:0".parse().unwrap()).await;
    assert!(matches!(public, Err(StartError::NotLoopback(_))));
}

#[tokio::test]
async fn a_dropped_emulator_answers_and_writes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let (emulator, client) = start(on_disk(dir.path())).await;
    client.create("s", 1).await;
    drop(emulator);
    let request = json!({"StreamName": "s", "PartitionKey": "k", "Data": ""});
    assert!(client.try_call("PutRecord", &request).await.is_err());
    assert!(files(dir.path(), ".log").is_empty());
}

#[tokio::test]
async fn a_full_stream_drops_its_oldest_records_and_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    for data_dir in [None, Some(dir.path().to_owned())] {
        let config = EmulatorConfig { data_dir, max_stream_bytes: 100_000, ..EmulatorConfig::default() };
        let (emulator, client) = start(config).await;
        client.create("s", 2).await;
        for i in 0..200 {
            client.put("s", &format!("{i}"), &[b'x'; 2000]).await;
        }
        let kept = client.read_all("s", &shard_id(0)).await.0.len() + client.read_all("s", &shard_id(1)).await.0.len();
        let dropped = emulator.stats().records_dropped_by_size;
        assert_eq!(kept as u64 + dropped, 200);
        assert!((25..=50).contains(&kept), "{kept}");
    }
    let on_disk: u64 = files(dir.path(), ".log").iter().map(|f| f.metadata().unwrap().len()).sum();
    assert!(on_disk <= 100_000, "{on_disk}");
}

#[tokio::test]
async fn expired_records_are_unreadable_at_once_and_expired_shards_go() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmulatorConfig {
        retention: Duration::from_millis(200),
        trim_interval: Duration::from_millis(10),
        ..on_disk(dir.path())
    };
    let (emulator, client) = start(config).await;
    client.create("s", 1).await;
    client.put("s", "k", b"old").await;
    let iterator = client.horizon("s", &shard_id(0)).await;
    client
        .call("UpdateShardCount", json!({"StreamName": "s", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"}))
        .await
        .unwrap();
    assert_eq!(client.shards("s").await.len(), 3);
    // The condition is polled: retention is a matter of the wall clock.
    while client.shards("s").await.len() > 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(client.refused("GetRecords", json!({"ShardIterator": iterator})).await, "ResourceNotFoundException");
    assert_eq!(emulator.stats().records_expired, 1);
    assert!(files(dir.path(), ".log").is_empty());
    client.put("s", "k", b"new").await;
    let (first, second) = (client.read_all("s", &shard_id(1)).await.0, client.read_all("s", &shard_id(2)).await.0);
    assert_eq!(texts(&[first, second].concat()), ["new"]);
}

#[tokio::test]
async fn a_deleted_stream_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmulatorConfig { trim_interval: Duration::from_millis(10), ..on_disk(dir.path()) };
    let (_emulator, client) = start(config).await;
    client.create("s", 1).await;
    client.put("s", "k", b"x").await;
    client.call("DeleteStream", json!({"StreamName": "s"})).await.unwrap();
    while std::fs::read_dir(dir.path().join("streams")).unwrap().count() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
