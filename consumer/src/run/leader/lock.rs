//! The leader's lock: one item whose beat others watch.
//!
//! The holder raises `beat`; who sees it stand still for the lock time takes it. The item names a standby, which
//! watches leases and workers like the leader does, and the others leave it a head start: an expired lock and expired
//! leases are then found at once, not one after the other. The holder stops leading on its own clock when it could not
//! beat for the lock time. Two leaders at once cost work, not correctness: all they write is conditional on what they
//! read. This task runs where the renewals run; a pass of the leader may take long. Read next: [`super`] (the passes).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::observed::Observed;
use crate::commit::STATE_KEY;
use crate::metrics::EngineMetrics;
use crate::run::WorkerConfig;
use crate::run::items::LOCK;
use crate::table::{Condition, Item, Table, TableError, TableName, Value};

/// What this worker is in the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// One of many.
    Follower,
    /// Watches what the leader watches, to take over warm.
    Standby,
    /// Leads, at least until this moment; the term tells one spell of leading from the next.
    Leader { term: u64, until: Instant },
}

/// One worker's hold on the lock.
#[derive(Debug)]
pub(crate) struct Lock {
    config: WorkerConfig,
    table: Arc<dyn Table>,
    metrics: EngineMetrics,
    standing: watch::Sender<Standing>,
    /// Whom this worker, while it leads, names as its standby.
    standby: watch::Receiver<Option<String>>,
    /// Whom the item named when it was last seen.
    named: Option<String>,
    /// Since when there has been no item.
    vacant: Option<Instant>,
    beats: Observed,
    term: u64,
}

impl Lock {
    pub(crate) fn new(
        config: WorkerConfig,
        table: Arc<dyn Table>,
        metrics: EngineMetrics,
        standby: watch::Receiver<Option<String>>,
    ) -> Self {
        let (standing, beats) = (watch::Sender::new(Standing::Follower), Observed::default());
        Self { config, table, metrics, standing, standby, named: None, vacant: None, beats, term: 0 }
    }

    /// What this worker is, as it changes.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Holds the lock, or waits to, until `stop`; then lets go of it at once.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                looked = self.look() => match looked {
                    Ok(standing) => self.become_(standing),
                    Err(e) => {
                        tracing::warn!(error = %e, "leader lock cannot be held");
                        if !self.leads() {
                            self.become_(Standing::Follower);
                        }
                    }
                },
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.config.timing.leader_beat) => {}
            }
        }
        if matches!(*self.standing.borrow(), Standing::Leader { .. }) {
            let mine = Condition::Equals("owner", Value::string(self.config.worker.as_str()));
            if let Err(e) = self.table.delete(&self.state(), LOCK, mine).await {
                tracing::debug!(error = %e, "leader lock not released");
            }
        }
        self.become_(Standing::Follower);
    }

    fn state(&self) -> TableName {
        self.config.tables.state()
    }

    fn leads(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Leader { until, .. } if Instant::now() < until)
    }

    fn become_(&self, standing: Standing) {
        let before = self.standing.send_replace(standing);
        let leads = matches!(standing, Standing::Leader { .. });
        if leads && !matches!(before, Standing::Leader { .. }) {
            tracing::info!(worker = %self.config.worker, "leading the job");
        }
        self.metrics.leader(leads);
    }

    /// Beats when the lock is ours, takes it when it is free or its beat stands still, and says what we are then.
    async fn look(&mut self) -> Result<Standing, TableError> {
        let began = Instant::now();
        let me = self.config.worker.as_str();
        let item = self.table.get(&self.state(), LOCK).await?;
        let seen = item.as_ref().and_then(|i| i.number("beat"));
        let owner = item.as_ref().and_then(|i| i.string("owner"));
        let mine = owner == Some(me);
        let still = match (seen, owner) {
            (Some(beat), Some(owner)) => {
                self.vacant = None;
                self.named = item.as_ref().and_then(|i| i.string("standby")).map(str::to_owned);
                let age = self.beats.age(owner, beat);
                age.checked_sub(self.config.timing.leader_lock)
            }
            _ => Some(self.vacant.get_or_insert_with(Instant::now).elapsed()),
        };
        let follows = if self.named.as_deref() == Some(me) { Standing::Standby } else { Standing::Follower };
        let free = still.is_some_and(|since| since >= self.head_start());
        if !mine && !free && !self.config.alone {
            return Ok(follows);
        }
        let as_seen = match seen {
            None => Condition::Absent(STATE_KEY),
            Some(beat) => Condition::Equals("beat", Value::number(beat)),
        };
        let beat = seen.unwrap_or_default().saturating_add(1);
        let mut lock = Item::new()
            .with(STATE_KEY, Value::string(LOCK))
            .with("owner", Value::string(me))
            .with("beat", Value::number(beat));
        if let Some(standby) = &*self.standby.borrow() {
            lock.set("standby", Value::string(standby));
        }
        match self.table.put(&self.state(), lock, as_seen).await {
            Ok(()) => {}
            // Our own beat whose answer was lost, or another leader: the next look tells.
            Err(TableError::Conflict { .. }) if mine && self.leads() => return Ok(*self.standing.borrow()),
            Err(TableError::Conflict { .. }) => return Ok(follows),
            Err(e) => return Err(e),
        }
        if !self.leads() {
            self.term += 1;
        }
        Ok(Standing::Leader { term: self.term, until: began + self.config.timing.leader_lock })
    }

    /// How long a free lock is left to the standby that the last leader named.
    fn head_start(&self) -> Duration {
        match self.named.as_deref() {
            Some(named) if named != self.config.worker.as_str() => self.config.timing.leader_beat * 2,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::WorkerId;
    use crate::run::test_config;
    use crate::table::memory::MemoryTable;

    fn lock(table: &Arc<MemoryTable>, worker: &str, standby: Option<&str>) -> (Lock, watch::Receiver<Standing>) {
        let config = WorkerConfig { worker: WorkerId::new(worker), ..test_config(worker) };
        let metrics = EngineMetrics::register(&prometheus::Registry::new(), "test").unwrap();
        let (_, standby) = watch::channel(standby.map(str::to_owned));
        let lock = Lock::new(config, table.clone(), metrics, standby);
        let standing = lock.standing();
        (lock, standing)
    }

    async fn seconds(n: u64) {
        tokio::time::sleep(Duration::from_secs(n)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_named_standby_and_nobody_else_takes_the_lock_of_a_dead_leader() {
        let table = Arc::new(MemoryTable::default());
        let (a, leads) = lock(&table, "a", Some("c"));
        let dead = tokio::spawn(a.run(CancellationToken::new()));
        seconds(1).await;
        assert!(matches!(*leads.borrow(), Standing::Leader { term: 1, .. }));
        let (b, b_is) = lock(&table, "b", None);
        let (c, c_is) = lock(&table, "c", None);
        tokio::spawn(b.run(CancellationToken::new()));
        tokio::spawn(c.run(CancellationToken::new()));
        seconds(20).await;
        assert_eq!((*b_is.borrow(), *c_is.borrow()), (Standing::Follower, Standing::Standby));
        dead.abort();
        seconds(11).await;
        assert!(matches!(*c_is.borrow(), Standing::Leader { .. }), "{:?}", *c_is.borrow());
        assert_eq!(*b_is.borrow(), Standing::Follower);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_is_taken_by_another_when_leader_and_standby_are_both_dead() {
        let table = Arc::new(MemoryTable::default());
        let (a, _) = lock(&table, "a", Some("gone"));
        let dead = tokio::spawn(a.run(CancellationToken::new()));
        let (b, b_is) = lock(&table, "b", None);
        tokio::spawn(b.run(CancellationToken::new()));
        seconds(5).await;
        dead.abort();
        seconds(16).await;
        assert!(matches!(*b_is.borrow(), Standing::Leader { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_leaves_lets_go_at_once_and_its_standby_leads_within_a_beat() {
        let table = Arc::new(MemoryTable::default());
        let (a, _) = lock(&table, "a", Some("b"));
        let leave = CancellationToken::new();
        let left = tokio::spawn(a.run(leave.clone()));
        let (b, b_is) = lock(&table, "b", None);
        tokio::spawn(b.run(CancellationToken::new()));
        seconds(5).await;
        leave.cancel();
        left.await.unwrap();
        tokio::time::sleep(Duration::from_millis(2100)).await;
        assert!(matches!(*b_is.borrow(), Standing::Leader { .. }));
    }
}
