//! From the engine back to a KCL application, and forth again.

use std::time::Duration;

use flowshift_consumer::run::StateMismatch;
use flowshift_kinesis_emulator::{FaultKind, FaultRule};

use super::app::App;
use super::engine::Job;
use super::forth::behind;
use super::rows::{self, Row};
use super::services::{Services, shard};

const APPLICATION: &str = "kcl-app";
const EXCHANGE: &str = "exchange";

#[tokio::test(flavor = "multi_thread")]
async fn a_kcl_application_goes_on_exactly_at_the_engines_commits_and_the_engine_at_its_checkpoints() {
    let services = Services::start(4).await;
    for number in 0..4 {
        services.put(&shard(number), 12, "first").await;
    }
    let job = Job::new(&services, APPLICATION);
    assert_eq!(job.consume("ours").await.unwrap(), services.stored().await);
    services.reshard().await;
    for number in [1, 4, 5, 6] {
        services.put(&shard(number), 12, "second").await;
    }
    let (ours, stored) = (rows::rows(&services.dynamodb, APPLICATION).await, services.stored().await);

    // By enhanced fan-out, so that the emulator's is tried by a stranger too.
    let way = ["--retrieval", "FANOUT", "--checkpoint-at", "5"];
    let Some(mut app) = App::start(&services, APPLICATION, "kcl-worker", &way) else { return };
    app.until("what came after our commits", |app| app.given() == 48 && app.ended.len() == 3).await;
    let app = app.stop().await;
    for (shard, row) in &ours {
        assert_eq!(app.starts.get(shard).map(String::as_str), Some(rows::text(row, "checkpoint")), "{shard}");
    }
    let mut after_ours = behind(&ours, &stored);
    // These have no row yet: the reshard came after we left.
    after_ours.extend([4, 5, 6].map(|number| (shard(number), stored[&shard(number)].clone())));
    assert_eq!(app.records, after_ours);

    let theirs = rows::rows(&services.dynamodb, APPLICATION).await;
    // What was counted belongs to our last commits; going on without it is a decision.
    let job = Job { state_mismatch: StateMismatch::Discard, ..job };
    assert_eq!(job.consume("ours again").await.unwrap(), behind(&theirs, &stored));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kcl_application_reads_a_batch_again_that_was_cut_and_not_emitted() {
    let services = Services::start(2).await;
    services.create(EXCHANGE, 1).await;
    for number in 0..2 {
        services.put(&shard(number), 12, "first").await;
    }
    let job = Job::new(&services, APPLICATION);
    let pending = |row: &Row| rows::text(row, "pendingCheckpoint") > rows::text(row, "checkpoint");
    let first = job.map("ours", EXCHANGE);
    until_rows(&services, "first batch cut", |row| row.contains_key("pendingCheckpoint")).await;
    first.leave().await;
    let settled = rows::rows(&services.dynamodb, APPLICATION).await;
    assert!(settled.values().all(|row| !row.contains_key("pendingCheckpoint")), "{settled:?}");
    // From here on a batch is cut and nothing of it comes through.
    let blocked = FaultRule::new(FaultKind::Throttle).on("PutRecords").stream(EXCHANGE);
    services.emulator.faults().add(blocked).unwrap();
    for number in 0..2 {
        services.put(&shard(number), 12, "second").await;
    }
    let second = job.map("ours again", EXCHANGE);
    until_rows(&services, "second batch cut", pending).await;
    drop(second);

    let (ours, stored) = (rows::rows(&services.dynamodb, APPLICATION).await, services.stored().await);
    let Some(mut app) = App::start(&services, APPLICATION, "kcl-worker", &["--checkpoint-at", "5"]) else { return };
    let after_ours = behind(&ours, &stored);
    let count: usize = after_ours.values().map(Vec::len).sum();
    app.until("what came after our checkpoints", |app| app.given() == count).await;
    app.until("its checkpoints", |app| app.checkpoints.len() == 2).await;
    let app = app.stop().await;
    // At least once: the cut batch may have been emitted, and KCL knows nothing of that.
    assert_eq!(app.records, after_ours);
    for (shard, records) in &app.records {
        assert!(records.iter().any(|(_, text)| text.ends_with("second 11")), "{shard}");
    }
    for row in rows::rows(&services.dynamodb, APPLICATION).await.values() {
        assert!(!row.contains_key("pendingCheckpoint"), "{row:?}");
    }
}

async fn until_rows(services: &Services, what: &str, enough: impl Fn(&Row) -> bool) {
    let looking = async {
        loop {
            let rows = rows::rows(&services.dynamodb, APPLICATION).await;
            if !rows.is_empty() && rows.values().all(&enough) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), looking).await;
    assert!(in_time.is_ok(), "not within a minute: {what}");
}
