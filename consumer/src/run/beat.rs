//! The list of living workers: who can be given leases.
//!
//! A worker enters itself into the list once, beats while it runs and strikes its beat off when it leaves. The leader
//! judges a beat by watching it move, never by a clock. Read next: [`super::leader`].

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::WorkerConfig;
use super::leader::WORKER_PREFIX;
use crate::commit::STATE_KEY;
use crate::table::{Condition, Item, Table, TableError, Value};

/// Adds this worker to the list that the leader looks through.
pub(super) async fn enlist(
    table: &dyn Table,
    config: &WorkerConfig,
    roles: &BTreeSet<String>,
) -> Result<(), TableError> {
    let state = config.tables.state();
    put_beat(table, config, roles.clone(), 0).await?;
    loop {
        let list = table.get(&state, "workers").await?;
        let version = list.as_ref().and_then(|i| i.number("v"));
        let mut ids = list.map(|i| i.strings("ids")).unwrap_or_default();
        if config.alone {
            ids.clear();
        }
        ids.insert(config.worker.as_str().to_owned());
        let item = Item::new()
            .with(STATE_KEY, Value::string("workers"))
            .with("v", Value::number(version.unwrap_or_default() + 1))
            .with("ids", Value::Ss(ids));
        let as_seen = match version {
            None => Condition::Absent("v"),
            Some(v) => Condition::Equals("v", Value::number(v)),
        };
        match table.put(&state, item, as_seen).await {
            Ok(()) => return Ok(()),
            Err(TableError::Conflict { .. }) => {}
            Err(e) => return Err(e),
        }
    }
}

async fn put_beat(
    table: &dyn Table,
    config: &WorkerConfig,
    roles: BTreeSet<String>,
    beat: i64,
) -> Result<(), TableError> {
    let item = Item::new()
        .with(STATE_KEY, Value::string(format!("{WORKER_PREFIX}{}", config.worker)))
        .with("beat", Value::number(beat))
        .with("roles", Value::Ss(roles));
    table.put(&config.tables.state(), item, Condition::None).await
}

/// Takes a worker off the list, with its beat: it gets no more leases.
pub(super) async fn strike_off(table: &dyn Table, config: &WorkerConfig, worker: &str) -> Result<(), TableError> {
    let state = config.tables.state();
    table.delete(&state, &format!("{WORKER_PREFIX}{worker}"), Condition::None).await?;
    loop {
        let Some(list) = table.get(&state, "workers").await? else { return Ok(()) };
        let (version, mut ids) = (list.number("v").unwrap_or_default(), list.strings("ids"));
        // A set in the table is never empty; the last worker stays in it without a beat.
        if !ids.remove(worker) || ids.is_empty() {
            return Ok(());
        }
        let item = Item::new()
            .with(STATE_KEY, Value::string("workers"))
            .with("v", Value::number(version + 1))
            .with("ids", Value::Ss(ids));
        match table.put(&state, item, Condition::Equals("v", Value::number(version))).await {
            Err(TableError::Conflict { .. }) => {}
            other => return other,
        }
    }
}

/// Says that this worker lives, until it leaves or stops; then strikes it off, before its leases go to others.
pub(super) async fn beat(
    table: Arc<dyn Table>,
    config: WorkerConfig,
    roles: BTreeSet<String>,
    leave: CancellationToken,
    stop: CancellationToken,
) {
    let mut number = 1;
    loop {
        tokio::select! {
            biased;
            () = leave.cancelled() => break,
            () = stop.cancelled() => break,
            () = tokio::time::sleep(config.timing.lease.renewal) => {}
        }
        if let Err(e) = put_beat(&*table, &config, roles.clone(), number).await {
            tracing::warn!(error = %e, "worker beat failed");
        }
        number += 1;
    }
    if let Err(e) = strike_off(&*table, &config, config.worker.as_str()).await {
        tracing::debug!(error = %e, "worker not struck off");
    }
}
