//! Where the rows of shards start that nobody has read yet.

use super::*;

#[tokio::test(start_paused = true)]
async fn latest_reads_what_arrives_after_the_row_was_made_also_across_closed_and_later_shards() {
    let mut site = Site::new(1);
    site.starts = Some(StartPosition::Latest);
    site.produce(3).await;
    site.log.split("flows", &ShardId::new("shardId-000000000000"));
    site.produce(3).await;
    let old = site.put_texts();
    let worker = site.start("a");
    tokio::time::sleep(Duration::from_secs(1)).await;
    site.produce(3).await;
    worker.kill();
    site.produce(3).await;
    site.log.merge("flows", &ShardId::new("shardId-000000000001"), &ShardId::new("shardId-000000000002"));
    site.produce(3).await;
    let _next = site.start("b");
    tokio::time::sleep(Duration::from_secs(120)).await;
    let mut wanted = site.put_texts();
    wanted.retain(|text| !old.contains(text));
    let mut read = site.texts();
    read.dedup();
    assert_eq!(read, wanted);
}

#[tokio::test(start_paused = true)]
async fn rows_of_another_program_get_a_start_before_they_are_read() {
    for (sentinel, reads_old) in [("LATEST", false), ("AT_TIMESTAMP", true)] {
        let site = Site::new(1);
        site.produce(3).await;
        let mut row = new_row(&site.log.shards("flows").await.unwrap()[0], &Checkpoint::TrimHorizon, 0);
        row.remove(attribute::CREATED);
        row.set(attribute::CHECKPOINT, Value::string(sentinel));
        site.table.put(&leases(), row, Condition::None).await.unwrap();
        let old = site.texts().len() + 3;
        let _worker = site.start("a");
        tokio::time::sleep(Duration::from_secs(5)).await;
        site.produce(3).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(site.texts().len(), if reads_old { old + 3 } else { 3 }, "{sentinel}");
    }
}
