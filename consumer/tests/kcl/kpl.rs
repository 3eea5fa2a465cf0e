//! From a KCL application that stopped inside a KPL aggregate.

use aws_sdk_kinesis::primitives::Blob;
use flowshift_consumer::kpl::{Joined, join};

use super::app::App;
use super::engine::Job;
use super::rows;
use super::services::{STREAM, Services, shard};

const APPLICATION: &str = "kcl-app";

/// Puts one Kinesis record; its sequence number.
async fn put(services: &Services, data: impl Into<Vec<u8>>) -> String {
    let put = services.kinesis.put_record().stream_name(STREAM).partition_key("key").data(Blob::new(data));
    put.send().await.unwrap().sequence_number().to_owned()
}

fn aggregate(texts: &[String]) -> Vec<u8> {
    let joined = |text: &String| Joined { partition_key: "key".into(), hash_key: None, data: text.clone().into() };
    join(&texts.iter().map(joined).collect::<Vec<_>>()).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_goes_on_behind_the_very_record_of_an_aggregate_that_a_kcl_application_stopped_at() {
    let services = Services::start(1).await;
    let texts = |from: u32| (from..from + 4).map(|n| format!("record {n}")).collect::<Vec<_>>();
    // Records 1 to 4, 5 to 8 and 9 to 12 in three aggregates, and a plain one.
    let mut stored = Vec::new();
    for from in [1, 5, 9] {
        let sequence = put(&services, aggregate(&texts(from))).await;
        stored.extend(texts(from).into_iter().map(|text| (sequence.clone(), text)));
    }
    stored.push((put(&services, "plain").await, "plain".to_owned()));

    // Its sixth record is the second of the second aggregate; the tenth is prepared, which binds nobody.
    let places = ["--checkpoint-at", "6", "--prepare-at", "10"];
    let Some(mut app) = App::start(&services, APPLICATION, "kcl-worker", &places) else { return };
    app.until("all records", |app| app.given() == 13 && app.checkpoints.len() == 1 && app.prepared.len() == 1).await;
    let app = app.stop().await;
    assert_eq!(app.records[&shard(0)], stored, "both take aggregates apart alike");
    let row = rows::rows(&services.dynamodb, APPLICATION).await.remove(&shard(0)).unwrap();
    assert_eq!(rows::text(&row, "checkpoint"), stored[5].0);
    assert_eq!(rows::text(&row, "checkpointSubSequenceNumber"), "1", "inside an aggregate, or this proves nothing");
    assert_eq!(rows::text(&row, "pendingCheckpointSubSequenceNumber"), "1");

    let given = Job::new(&services, APPLICATION).consume("ours").await.unwrap();
    assert_eq!(given[&shard(0)], stored[6..]);
    let row = rows::rows(&services.dynamodb, APPLICATION).await.remove(&shard(0)).unwrap();
    assert_eq!(rows::text(&row, "checkpoint"), stored[12].0);
    assert_eq!(rows::text(&row, "checkpointSubSequenceNumber"), "0");
}
