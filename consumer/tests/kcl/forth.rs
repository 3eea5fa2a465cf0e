//! From a KCL application to the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use flowshift_consumer::lease::attribute;
use flowshift_consumer::run::WorkerError;
use flowshift_consumer::shard::SequenceNumber;

use super::app::App;
use super::compare;
use super::engine::{Given, Job};
use super::rows::{self, Recorder, Row};
use super::rules;
use super::services::{Services, Stored, shard};

const APPLICATION: &str = "kcl-app";
const PER_SHARD: u32 = 12;
const CHECKPOINT_AT: usize = 5;

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
    services.reshard().await;
    // Shard 5 gets too few records for a checkpoint.
    for (number, count) in [(1, PER_SHARD), (4, PER_SHARD), (5, 3), (6, PER_SHARD)] {
        services.put(&shard(number), count, "second").await;
    }
    let all = 48 + 3 * PER_SHARD as usize + 3;
    app.until("the closed shards' ends and the new records", |app| app.ended.len() == 3 && app.given() == all).await;
    // KCL renews every 3.3 s: whoever watches for 10 s sees that it lives.
    let beside = Job { failover: Duration::from_secs(10), ..Job::new(&services, APPLICATION) };
    match beside.consume("beside").await {
        Err(refused @ WorkerError::Foreign { .. }) => assert!(refused.to_string().contains("kcl-worker"), "{refused}"),
        other => panic!("started beside a live KCL worker: {other:?}"),
    }
    app.stop().await;
    let seen = recorder.seen();
    compare::with_golden(&rows::by_stage(&seen));
    // The rules that ours are held to are theirs.
    let verdict = rules::judge(&seen);
    assert_eq!(verdict.broken, [""; 0]);
    assert!(verdict.checkpoints > 0, "{verdict:?}");
    drop(recorder);
    // Arrived while nobody ran.
    for number in [1, 4, 5, 6] {
        services.put(&shard(number), PER_SHARD, "third").await;
    }
    // What KCL does a minute after the children of a consumed shard are under way.
    for number in [2, 3] {
        delete(&services, &shard(number)).await;
    }
    let foreign = put_foreign(&services).await;

    let before = rows::rows(&services.dynamodb, APPLICATION).await;
    let stored = services.stored().await;
    let given = Job::new(&services, APPLICATION).consume("ours").await.unwrap();
    let expected = behind(&before, &stored);
    assert_eq!(given, expected);

    // Nothing of this is trivially so: three shards at their end, three in the middle, one not begun.
    let left: usize = expected.values().map(Vec::len).sum();
    let texts: BTreeSet<&String> = stored.values().flatten().map(|(_, text)| text).collect();
    assert_eq!(texts.len(), all + 4 * PER_SHARD as usize);
    assert_eq!(texts.len() - left, 3 * PER_SHARD as usize + 3 * CHECKPOINT_AT);
    assert_eq!(expected[&shard(5)], stored[&shard(5)]);

    let after = rows::rows(&services.dynamodb, APPLICATION).await;
    for (key, row) in &foreign {
        assert_eq!(after.get(key), Some(row), "a row that is no lease was touched");
    }
    assert!(!after.contains_key(&shard(2)), "a consumed shard came back");
    for number in [1, 4, 5, 6] {
        let row = &after[&shard(number)];
        assert!(!row.contains_key("pendingCheckpoint"), "what the application prepared is behind us: {row:?}");
        let last = stored[&shard(number)].last().unwrap();
        assert_eq!(rows::text(row, "checkpoint"), last.0);
    }
}

/// What a reader behind these rows' checkpoints is to be given. A shard without a row was consumed.
pub(crate) fn behind(rows: &BTreeMap<String, Row>, stored: &BTreeMap<String, Vec<Stored>>) -> Given {
    let rest = stored.iter().map(|(shard, records)| {
        let rest = match rows.get(shard).map_or("SHARD_END", |row| rows::text(row, "checkpoint")) {
            "SHARD_END" => Vec::new(),
            "TRIM_HORIZON" => records.clone(),
            sequence => {
                let done = SequenceNumber::new(sequence).unwrap();
                records.iter().filter(|(at, _)| SequenceNumber::new(at).unwrap() > done).cloned().collect()
            }
        };
        (shard.clone(), rest)
    });
    rest.filter(|(_, records)| !records.is_empty()).collect()
}

async fn delete(services: &Services, key: &str) {
    let key = AttributeValue::S(key.to_owned());
    services.dynamodb.delete_item().table_name(APPLICATION).key(attribute::KEY, key).send().await.unwrap();
}

/// Rows that KCL 3.5 keeps in the lease table beside the leases.
async fn put_foreign(services: &Services) -> BTreeMap<String, Row> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let samples = AttributeValue::L(vec![AttributeValue::N("12.5".into()), AttributeValue::N("13.5".into())]);
    let metrics = AttributeValue::M([("C".to_owned(), samples)].into());
    let entities = ["WORKER_METRIC_STATS", "LEADER", "STREAM", "CLIENT_VERSION_MIGRATION", "TABLE_MIGRATION"];
    for kind in entities {
        let put = services.dynamodb.put_item().table_name(APPLICATION).item(attribute::KEY, text(&format!("a-{kind}")));
        let put = put.item(attribute::ENTITY, text(kind)).item("sts", metrics.clone());
        put.item("lut", AttributeValue::N("1789000000".into())).send().await.unwrap();
    }
    let rows = rows::rows(&services.dynamodb, APPLICATION).await;
    let foreign: BTreeMap<String, Row> = rows.into_iter().filter(|(key, _)| key.starts_with("a-")).collect();
    assert_eq!(foreign.len(), entities.len());
    foreign
}
