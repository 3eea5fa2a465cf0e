//! Whom not to run beside: a live worker of another program on the same lease table.
//!
//! Items are compatible with KCL's, a mixed fleet is not. An owner counts as foreign when neither this engine wrote it
//! (`fs_owner`) nor is it on the job's list; its leases are watched for `foreign_watch`, since its failover time, and
//! with it its renewals, may be longer than ours. A counter that moves is a live owner, and this worker does not start.
//! Nothing moves: its owner is gone, and the rows are taken over at their checkpoints when they expire. A worker that
//! knows itself to be alone in its job looks all the same. A table of KCL's multi-stream mode is refused outright.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::items::WORKERS;
use super::{WorkerConfig, WorkerError};
use crate::lease::{LeaseRow, attribute, stream_of};
use crate::table::Table;

/// How often the rows are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Fails when a foreign worker is alive on one of the streams' lease tables.
pub(super) async fn refuse(table: &dyn Table, config: &WorkerConfig, streams: &[String]) -> Result<(), WorkerError> {
    let watch = config.timing.foreign_watch.max(config.timing.lease.failover);
    let began = Instant::now();
    let mut seen: BTreeMap<(String, String), i64> = BTreeMap::new();
    loop {
        let rows = match rows_of_others(table, config, streams).await {
            Ok(rows) => rows,
            Err(WorkerError::Table(e)) if e.is_retryable() => {
                tracing::warn!(error = %e, "lease tables cannot be read, trying again");
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(e) => return Err(e),
        };
        for (stream, row) in &rows {
            let place = (stream.clone(), row.shard.as_str().to_owned());
            let before = *seen.entry(place).or_insert(row.counter);
            if before != row.counter {
                return Err(WorkerError::Foreign {
                    table: config.tables.leases(stream).name,
                    owner: row.owner.clone().unwrap_or_default(),
                    shard: row.shard.as_str().to_owned(),
                });
            }
        }
        if rows.is_empty() || began.elapsed() >= watch {
            return Ok(());
        }
        if began.elapsed() < LOOK {
            tracing::info!(
                leases = rows.len(),
                ?watch,
                "rows of another program: watching whether it is still at work"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn rows_of_others(
    table: &dyn Table,
    config: &WorkerConfig,
    streams: &[String],
) -> Result<Vec<(String, LeaseRow)>, WorkerError> {
    let list = table.get(&config.tables.state(), WORKERS).await?;
    let ours: BTreeSet<String> = list.map(|item| item.strings("ids")).unwrap_or_default();
    let mut foreign = Vec::new();
    for stream in streams {
        let leases = config.tables.leases(stream);
        for item in table.scan(&leases).await? {
            if let Some(stream) = stream_of(&item) {
                let row = item.string(attribute::KEY).unwrap_or_default().to_owned();
                return Err(WorkerError::MultiStream { table: leases.name, row, stream: stream.to_owned() });
            }
            // What cannot be read is told where it is used.
            let Ok(Some(row)) = LeaseRow::read(&item) else { continue };
            let not_ours = |owner: &String| Some(owner) != row.assigned.as_ref() && !ours.contains(owner);
            if row.owner.as_ref().is_some_and(not_ours) {
                foreign.push((stream.clone(), row));
            }
        }
    }
    Ok(foreign)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lease::{Checkpoint, attribute, new_row};
    use crate::run::test_config;
    use crate::shard::{HashRange, Shard, ShardId};
    use crate::table::memory::MemoryTable;
    use crate::table::{Condition, Item, Update, Value};

    fn row(owner: &str) -> Item {
        let shard = Shard { id: ShardId::new("s"), parents: vec![], range: HashRange::ALL, closed: false };
        new_row(&shard, &Checkpoint::TrimHorizon, 0).with(attribute::OWNER, Value::string(owner))
    }

    async fn renew_for_ever(table: Arc<MemoryTable>, config: WorkerConfig, every: Duration) {
        for counter in 1.. {
            tokio::time::sleep(every).await;
            let update = Update::new().set(attribute::COUNTER, Value::number(counter));
            table.update(&config.tables.leases("flows"), "s", update, Condition::None).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_worker_of_another_program_is_named_and_refused() {
        let (table, mut config) = (Arc::new(MemoryTable::default()), test_config("a"));
        config.alone = true;
        table.put(&config.tables.leases("flows"), row("kcl-7"), Condition::None).await.unwrap();
        tokio::spawn(renew_for_ever(table.clone(), config.clone(), Duration::from_secs(3)));
        let refused = refuse(&*table, &config, &["flows".to_owned()]).await.unwrap_err().to_string();
        assert!(refused.contains("test-leases-flows: kcl-7 is at work on shard s"), "{refused}");
        assert!(refused.contains("stop that application first"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn rows_of_a_program_that_stopped_are_only_waited_for() {
        let (table, config) = (Arc::new(MemoryTable::default()), test_config("a"));
        table.put(&config.tables.leases("flows"), row("kcl-7"), Condition::None).await.unwrap();
        let began = Instant::now();
        refuse(&*table, &config, &["flows".to_owned()]).await.unwrap();
        assert!(began.elapsed() >= config.timing.foreign_watch);
    }

    /// One with a failover time of 90 s renews that rarely; it was not seen within our own failover time.
    #[tokio::test(start_paused = true)]
    async fn a_live_worker_that_renews_every_half_minute_is_refused_too() {
        let (table, mut config) = (Arc::new(MemoryTable::default()), test_config("a"));
        table.put(&config.tables.leases("flows"), row("kcl-7"), Condition::None).await.unwrap();
        tokio::spawn(renew_for_ever(table.clone(), config.clone(), Duration::from_millis(29_975)));
        let refused = refuse(&*table, &config, &["flows".to_owned()]).await;
        assert!(matches!(refused, Err(WorkerError::Foreign { .. })), "{refused:?}");
        // Never less than one's own failover time, whatever is set.
        config.timing.foreign_watch = Duration::ZERO;
        config.timing.lease.failover = Duration::from_secs(31);
        assert!(refuse(&*table, &config, &["flows".to_owned()]).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_of_several_streams_is_refused_by_name_and_its_other_rows_are_not_leases() {
        let (table, config) = (Arc::new(MemoryTable::default()), test_config("a"));
        let leases = config.tables.leases("flows");
        let entity = |kind: &str| Item::new().with(attribute::ENTITY, Value::string(kind));
        let stream = entity("STREAM").with(attribute::KEY, Value::string("1:flows:2"));
        table.put(&leases, stream.with(attribute::STREAM_NAME, Value::string("flows")), Condition::None).await.unwrap();
        refuse(&*table, &config, &["flows".to_owned()]).await.unwrap();
        for named in [true, false] {
            let key = "123456789012:flows:1789000000:shardId-000000000000";
            let mut row = row("kcl-7").with(attribute::KEY, Value::string(key));
            if named {
                row.set(attribute::STREAM_NAME, Value::string("123456789012:flows:1789000000"));
            }
            assert!(LeaseRow::read(&row).unwrap_err().to_string().contains("several streams"));
            table.put(&leases, row, Condition::None).await.unwrap();
            let refused = refuse(&*table, &config, &["flows".to_owned()]).await.unwrap_err().to_string();
            assert!(refused.contains(&format!("test-leases-flows: row {key} is of")), "{refused}");
            assert!(refused.contains("name another table"), "{refused}");
            table.delete(&leases, key, Condition::None).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rows_of_our_own_dead_and_live_workers_cost_no_time() {
        let (table, config) = (Arc::new(MemoryTable::default()), test_config("a"));
        let ours = row("b").with(attribute::ASSIGNED, Value::string("b"));
        table.put(&config.tables.leases("flows"), ours, Condition::None).await.unwrap();
        tokio::spawn(renew_for_ever(table.clone(), config.clone(), Duration::from_secs(3)));
        let began = Instant::now();
        refuse(&*table, &config, &["flows".to_owned()]).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
