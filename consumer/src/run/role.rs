//! What a worker does with the leases of one stream: map, reduce, or run a plain stage.
//!
//! A role only chooses the driver; the drivers do the work. Read next: [`super::stage_driver`], [`super::map_driver`].

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lane_stage::{LaneStage, state_keys};
use super::map_driver::{self, Exchange};
use super::stage_driver;
use super::task::ShardTask;
use super::{DriveError, Exit};
use crate::exchange::{FeedKinds, Lanes};
use crate::lease::HeldLease;
use crate::stage::{Mapper, Reducer, ShardContext, Stage};

/// What a worker does with the leases of one stream.
#[async_trait::async_trait]
pub(super) trait Role: Send + Sync {
    /// Keys of the state parts of a shard, for its epochs; what it saves has one of these or one below them
    /// ([`ShardTask::owns`]). No code of a job runs here: it may panic, and only a driver is prepared for that.
    fn keys(&self, context: &ShardContext) -> BTreeSet<String>;
    async fn drive(&self, task: &ShardTask) -> Result<Exit, DriveError>;
}

pub(super) struct MapRole<M> {
    pub(super) mapper: M,
    pub(super) exchange: Exchange,
}

#[async_trait::async_trait]
impl<M: Mapper> Role for MapRole<M> {
    fn keys(&self, context: &ShardContext) -> BTreeSet<String> {
        BTreeSet::from([context.shard.as_str().to_owned()])
    }

    async fn drive(&self, task: &ShardTask) -> Result<Exit, DriveError> {
        map_driver::drive(task, &self.mapper, self.exchange.clone()).await
    }
}

pub(super) struct ReduceRole<F> {
    pub(super) reducer: F,
    pub(super) lanes: Lanes,
    pub(super) kinds: FeedKinds,
    pub(super) output: Option<String>,
}

#[async_trait::async_trait]
impl<R: Reducer, F: Fn(&ShardContext) -> R + Send + Sync> Role for ReduceRole<F> {
    fn keys(&self, context: &ShardContext) -> BTreeSet<String> {
        state_keys(context, self.lanes)
    }

    async fn drive(&self, task: &ShardTask) -> Result<Exit, DriveError> {
        let reducer = (self.reducer)(&task.context);
        let stage = LaneStage::new(reducer, &task.context, self.lanes, self.kinds);
        let stage = stage.with_metrics(task.metrics.clone(), &task.context);
        let mut stage = stage.with_retention(task.retention.clone());
        stage_driver::drive(task, &mut stage, self.output.as_deref(), Some(self.lanes)).await
    }
}

pub(super) struct StageRole<F>(pub(super) F);

#[async_trait::async_trait]
impl<S: Stage, F: Fn(&ShardContext, Handle) -> S + Send + Sync> Role for StageRole<F> {
    fn keys(&self, context: &ShardContext) -> BTreeSet<String> {
        BTreeSet::from([context.shard.as_str().to_owned()])
    }

    async fn drive(&self, task: &ShardTask) -> Result<Exit, DriveError> {
        let mut stage = (self.0)(&task.context, Handle { lease: Arc::clone(&task.lease) });
        stage_driver::drive(task, &mut stage, None, None).await
    }
}

/// What a stage may ask about its lease, for side effects that must not outlive it.
#[derive(Debug, Clone)]
pub struct Handle {
    lease: Arc<HeldLease>,
}

impl Handle {
    /// Cancelled once the lease is lost or given up.
    pub fn lost(&self) -> CancellationToken {
        self.lease.lost().clone()
    }

    /// When the last successful write of the lease row began: nobody else can own the lease for failover from then on.
    pub fn renewed(&self) -> watch::Receiver<Option<Instant>> {
        self.lease.renewed()
    }
}
