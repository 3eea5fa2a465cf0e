//! Going on from an application on the Kinesis Client Library, and back to it: the application is `kcl-rs`, a port of
//! KCL 3 in other people's hands, run from its Python package against the emulators.
//!
//! `app` runs it, `engine` runs ours, `services` is what both talk to, `rows` compares what both write. Without the
//! package these tests are skipped, loudly.
#![allow(clippy::unwrap_used)]

mod app;
mod engine;
mod rows;
mod services;

use std::collections::BTreeSet;

use app::App;
use flowshift_consumer::shard::SequenceNumber;
use rows::{Recorder, Stage};
use services::Services;

const APPLICATION: &str = "kcl-app";
const PER_SHARD: u32 = 12;
const CHECKPOINT_AT: usize = 5;

fn shard(number: u32) -> String {
    format!("shardId-{number:012}")
}

/// Attributes of ours that KCL does not have, and KCL's that differ, with the reason.
const KNOWN: [(&str, &str); 0] = [];

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_goes_on_exactly_at_a_kcl_applications_checkpoints() {
    let services = Services::start(4).await;
    for number in 0..4 {
        services.put(&shard(number), PER_SHARD, "first").await;
    }
    let recorder = Recorder::start(&services.dynamodb, APPLICATION);
    let places = ["--checkpoint-at", "5", "--prepare-at", "8"];
    let Some(mut app) = App::start(&services, APPLICATION, "kcl-worker", &places) else { return };
    app.until("48 records and four prepared checkpoints", |app| app.given() == 48 && app.prepared.len() == 4).await;

    // 0 is split into 4 and 5; 2 and 3 are merged into 6; 1 stays. Shard 5 gets too few records for a checkpoint.
    services.split(&shard(0)).await;
    services.merge(&shard(2), &shard(3)).await;
    for (number, count) in [(1, PER_SHARD), (4, PER_SHARD), (5, 3), (6, PER_SHARD)] {
        services.put(&shard(number), count, "second").await;
    }
    let all = 48 + 3 * PER_SHARD as usize + 3;
    app.until("the closed shards' ends and the new records", |app| app.ended.len() == 3 && app.given() == all).await;
    let app = app.stop().await;
    // Arrived while nobody ran.
    for number in [1, 4, 5, 6] {
        services.put(&shard(number), PER_SHARD, "third").await;
    }

    let stored = services.stored().await;
    let before = rows::rows(&services.dynamodb, APPLICATION).await;
    let given = engine::consume(&services, APPLICATION, "ours").await.unwrap();

    let mut expected = engine::Given::new();
    let mut checkpointed = 0;
    for (shard, records) in &stored {
        let checkpoint = before.get(shard).map_or("SHARD_END", |row| rows::text(row, "checkpoint"));
        let rest: Vec<_> = match checkpoint {
            "SHARD_END" => Vec::new(),
            "TRIM_HORIZON" => records.clone(),
            sequence => {
                let done = SequenceNumber::new(sequence).unwrap();
                records.iter().filter(|(at, _)| SequenceNumber::new(at).unwrap() > done).cloned().collect()
            }
        };
        checkpointed += records.len() - rest.len();
        if !rest.is_empty() {
            expected.insert(shard.clone(), rest);
        }
    }
    assert_eq!(given, expected);
    // Nothing of this is trivially so: three shards at their end, three in the middle, one not begun.
    assert_eq!(checkpointed, 3 * PER_SHARD as usize + 3 * CHECKPOINT_AT);
    let texts: BTreeSet<&String> = stored.values().flatten().map(|(_, text)| text).collect();
    assert_eq!(texts.len(), all + 4 * PER_SHARD as usize);
    drop(app);

    let theirs = rows::by_stage(&recorder.seen());
    for ((stage, shard), row) in &theirs {
        println!("{stage:?} {shard} {}", serde_json::to_string(row).unwrap());
    }
    let _ = (KNOWN, Stage::Created, rows::differences(&before[&shard(1)], &before[&shard(1)]));
}
