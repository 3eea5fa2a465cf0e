//! A worker's own item: that it lives, and the bell that others ring.
//!
//! A worker enters itself into the list once, beats while it runs and strikes its beat off when it leaves. The leader
//! judges a beat by watching it move, never by a clock. Whoever assigns a lease rings its new owner: it raises the
//! number `bell` on the owner's item, which the owner reads twice a second instead of scanning the lease tables.
//! Invariant: a beat never touches the bell, and a bell is raised only after the row it tells of was written.
//! Read next: [`super::roster`] (reading the list), [`super::leader`].

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::WorkerConfig;
use super::items::{WORKERS, worker_key};
use crate::commit::STATE_KEY;
use crate::table::{Condition, Item, Table, TableError, TableName, Update, Value};

/// A ring that meets other rings this often in a row was heard in any case.
const RINGS: usize = 5;

/// Adds this worker to the list that the leader looks through.
pub(super) async fn enlist(
    table: &dyn Table,
    config: &WorkerConfig,
    roles: &BTreeSet<String>,
) -> Result<(), TableError> {
    let (state, me) = (config.tables.state(), config.worker.as_str());
    let item = Item::new()
        .with(STATE_KEY, Value::string(worker_key(me)))
        .with("beat", Value::number(0))
        .with("roles", Value::Ss(roles.clone()));
    match table.put(&state, item, Condition::Absent(STATE_KEY)).await {
        Ok(()) | Err(TableError::Conflict { .. }) => {}
        Err(e) => return Err(e),
    }
    loop {
        let list = table.get(&state, WORKERS).await?;
        let version = list.as_ref().and_then(|i| i.number("v"));
        let mut ids = list.map(|i| i.strings("ids")).unwrap_or_default();
        if config.alone {
            ids.clear();
        }
        ids.insert(me.to_owned());
        match put_list(table, &state, version, ids).await {
            Err(TableError::Conflict { .. }) => {}
            other => return other,
        }
    }
}

async fn put_list(
    table: &dyn Table,
    state: &TableName,
    version: Option<i64>,
    ids: BTreeSet<String>,
) -> Result<(), TableError> {
    let item = Item::new()
        .with(STATE_KEY, Value::string(WORKERS))
        .with("v", Value::number(version.unwrap_or_default().saturating_add(1)))
        .with("ids", Value::Ss(ids));
    let as_seen = match version {
        None => Condition::Absent("v"),
        Some(v) => Condition::Equals("v", Value::number(v)),
    };
    table.put(state, item, as_seen).await
}

/// Takes a worker off the list, with its beat: it gets no more leases.
pub(super) async fn strike_off(table: &dyn Table, config: &WorkerConfig, worker: &str) -> Result<(), TableError> {
    let state = config.tables.state();
    table.delete(&state, &worker_key(worker), Condition::None).await?;
    loop {
        let Some(list) = table.get(&state, WORKERS).await? else { return Ok(()) };
        let (version, mut ids) = (list.number("v").unwrap_or_default(), list.strings("ids"));
        // A set in the table is never empty; the last worker stays in it without a beat.
        if !ids.remove(worker) || ids.is_empty() {
            return Ok(());
        }
        match put_list(table, &state, Some(version), ids).await {
            Err(TableError::Conflict { .. }) => {}
            other => return other,
        }
    }
}

/// Tells a worker that a lease table has news for it. A worker that is gone hears nothing.
pub(super) async fn ring(table: &dyn Table, state: &TableName, worker: &str) -> Result<(), TableError> {
    let key = worker_key(worker);
    let Some(item) = table.get(state, &key).await? else { return Ok(()) };
    let mut bell = item.number("bell");
    for _ in 0..RINGS {
        let as_seen = match bell {
            None => Condition::All(vec![Condition::Exists(STATE_KEY), Condition::Absent("bell")]),
            Some(bell) => Condition::Equals("bell", Value::number(bell)),
        };
        let louder = Update::new().set("bell", Value::number(bell.unwrap_or_default().saturating_add(1)));
        match table.update(state, &key, louder, as_seen).await {
            // Another ring came first; its bell may have been heard before our row was written.
            Err(TableError::Conflict { current: Some(item) }) => bell = item.number("bell"),
            Err(TableError::Conflict { current: None }) => return Ok(()),
            other => return other,
        }
    }
    Ok(())
}

/// What the bell of this worker shows; none: it never rang, or this worker was struck off.
pub(super) async fn bell(table: &dyn Table, config: &WorkerConfig) -> Result<Option<i64>, TableError> {
    let item = table.get(&config.tables.state(), &worker_key(config.worker.as_str())).await?;
    Ok(item.and_then(|item| item.number("bell")))
}

/// Says that this worker lives, until it leaves or stops; then strikes it off, before its leases go to others.
pub(super) async fn beat(
    table: Arc<dyn Table>,
    config: WorkerConfig,
    roles: BTreeSet<String>,
    leave: CancellationToken,
    stop: CancellationToken,
) {
    let mut number: i64 = 1;
    loop {
        tokio::select! {
            biased;
            () = leave.cancelled() => break,
            () = stop.cancelled() => break,
            () = tokio::time::sleep(config.timing.lease.renewal) => {}
        }
        if let Err(e) = beat_once(&*table, &config, &roles, number).await {
            tracing::warn!(error = %e, "worker beat failed");
        }
        number += 1;
    }
    if let Err(e) = strike_off(&*table, &config, config.worker.as_str()).await {
        tracing::debug!(error = %e, "worker not struck off");
    }
}

async fn beat_once(
    table: &dyn Table,
    config: &WorkerConfig,
    roles: &BTreeSet<String>,
    number: i64,
) -> Result<(), TableError> {
    let update = Update::new().set("beat", Value::number(number));
    let key = worker_key(config.worker.as_str());
    match table.update(&config.tables.state(), &key, update, Condition::Exists(STATE_KEY)).await {
        // Paused for so long that the leader struck it off: it lives again, and wants leases again.
        Err(TableError::Conflict { .. }) => enlist(table, config, roles).await,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::test_config;
    use crate::table::memory::MemoryTable;

    fn roles() -> BTreeSet<String> {
        BTreeSet::from(["flows".to_owned()])
    }

    #[tokio::test]
    async fn a_beat_keeps_the_bell_and_every_ring_changes_it() {
        let (table, config) = (MemoryTable::default(), test_config("a"));
        enlist(&table, &config, &roles()).await.unwrap();
        let mut heard = BTreeSet::from([bell(&table, &config).await.unwrap()]);
        for number in 1..4 {
            ring(&table, &config.tables.state(), "a").await.unwrap();
            let rung = bell(&table, &config).await.unwrap();
            assert!(heard.insert(rung), "ring {number} changed nothing");
            beat_once(&table, &config, &roles(), number).await.unwrap();
            assert_eq!(bell(&table, &config).await.unwrap(), rung);
        }
    }

    #[tokio::test]
    async fn ringing_a_worker_that_left_makes_no_item() {
        let (table, config) = (MemoryTable::default(), test_config("a"));
        enlist(&table, &config, &roles()).await.unwrap();
        strike_off(&table, &config, "a").await.unwrap();
        ring(&table, &config.tables.state(), "a").await.unwrap();
        assert!(table.get(&config.tables.state(), &worker_key("a")).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_worker_that_was_struck_off_while_it_slept_enlists_again_with_its_next_beat() {
        // Its beat came back without its name on the list, and it never got a lease again.
        let (table, mut config) = (MemoryTable::default(), test_config("a"));
        enlist(&table, &config, &roles()).await.unwrap();
        config.worker = crate::lease::WorkerId::new("b");
        enlist(&table, &config, &roles()).await.unwrap();
        strike_off(&table, &config, "b").await.unwrap();
        beat_once(&table, &config, &roles(), 7).await.unwrap();
        let list = table.get(&config.tables.state(), WORKERS).await.unwrap().unwrap();
        assert_eq!(list.strings("ids"), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        assert!(table.get(&config.tables.state(), &worker_key("b")).await.unwrap().is_some());
    }
}
