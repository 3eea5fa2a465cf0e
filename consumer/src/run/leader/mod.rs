//! The leader: makes lease rows for new shards, assigns leases, looks after the source set, cleans up.
//!
//! One worker leads (`lock`), and one stands by with observations as old as the leader's. A pass reads each lease table
//! once and every worker's item, and then: `sync` (rows for shards, `cleanup` of those of consumed ones, none for a
//! `ghost`), `assign` (a pure plan) and `act` (the plan's writes and the bells), `count` (how wide the exchange is),
//! `retention`, the source set, `skips` (lanes nobody waits for). Everything written is conditional on what was read.
//! Expiry is a counter standing still (`observed`), never a clock comparison. Not here: what a source's status means
//! ([`super::control`]).

mod act;
mod assign;
mod cleanup;
mod count;
mod ghost;
mod lock;
mod observed;
mod retention;
mod skips;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::assign::WorkerView;
pub(crate) use self::lock::{Lock, Standing};
use self::observed::{Levelled, Observed};
pub(crate) use self::skips::{SkipControl, SkipPlan};
use self::sync::StreamSync;
use super::beat::strike_off;
use super::control::SourceControl;
use super::roster::{self, Seat};
use super::{DriveError, StartPosition, WorkerConfig};
use crate::clock::WallClock;
use crate::exchange::ShardCounts;
use crate::lease::LeaseRow;
use crate::log::Log;
use crate::metrics::EngineMetrics;
use crate::shard::ShardId;
use crate::table::{Table, TableName};

/// A worker whose beat stood still this long is struck off the list.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Writes in flight at once.
const WRITES: usize = 16;

/// What a leader is made of.
#[derive(Debug, Clone)]
pub(crate) struct LeaderParts {
    pub(crate) config: WorkerConfig,
    pub(crate) table: Arc<dyn Table>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: WallClock,
    pub(crate) metrics: EngineMetrics,
    /// Streams of the job whose leases are assigned here, the input first.
    pub(crate) streams: Vec<String>,
    /// Where new rows of a stream start, if not at the oldest record.
    pub(crate) starts: BTreeMap<String, StartPosition>,
}

/// A worker's view of leading.
#[derive(Debug)]
pub(crate) struct Leader {
    parts: LeaderParts,
    control: Option<SourceControl>,
    skips: Option<SkipControl>,
    standing: watch::Receiver<Standing>,
    /// Whom the lock names as standby.
    standby: watch::Sender<Option<String>>,
    /// The last term that was begun.
    term: u64,
    leases: Observed,
    /// What the leases weigh, by stream and shard.
    rates: Levelled,
    workers: Observed,
    /// Since when each hand-over has been going on, by stream, shard and owners.
    hand_overs: BTreeMap<String, Instant>,
    /// When leases were last moved by hand-over, by stream and shard.
    moved: BTreeMap<String, Instant>,
    /// Workers that were given something and not told yet.
    unrung: BTreeSet<String>,
    /// Whom this leader published as living.
    published: BTreeSet<String>,
    /// Whom the leader before this one saw alive.
    inherited: BTreeSet<String>,
    /// What this leader published as the shards on both sides of the exchange.
    counted: Option<ShardCounts>,
    /// When the streams were last asked how long they keep their records.
    asked_retention: Option<Instant>,
    synced: Option<Instant>,
    syncs: BTreeMap<String, StreamSync>,
    /// Whether what earlier leaders told the lanes is known in this term.
    told: bool,
    /// Shards of the input whose rows could not be read in the last scan.
    unreadable: BTreeSet<ShardId>,
}

/// A listed worker as seen now.
#[derive(Debug, Clone)]
struct Member {
    seat: Seat,
    suspect: bool,
}

impl Leader {
    pub(crate) fn new(
        parts: LeaderParts,
        control: Option<SourceControl>,
        skips: Option<SkipControl>,
        standing: watch::Receiver<Standing>,
        standby: watch::Sender<Option<String>>,
    ) -> Self {
        Self {
            parts,
            control,
            skips,
            standing,
            standby,
            term: 0,
            leases: Observed::default(),
            rates: Levelled::default(),
            workers: Observed::default(),
            hand_overs: BTreeMap::new(),
            moved: BTreeMap::new(),
            unrung: BTreeSet::new(),
            published: BTreeSet::new(),
            inherited: BTreeSet::new(),
            counted: None,
            asked_retention: None,
            synced: None,
            syncs: BTreeMap::new(),
            told: false,
            unreadable: BTreeSet::new(),
        }
    }

    /// Leads, watches or waits, as the lock says, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut standing = self.standing.clone();
        // The term that was begun at once when the lock was taken; a pass that failed waits like any other.
        let mut begun = 0;
        loop {
            let now = *standing.borrow();
            if let Standing::Leader { term, .. } = now {
                begun = term;
            }
            let done = match now {
                Standing::Leader { term, until } if Instant::now() < until => self.lead(term, &stop).await,
                Standing::Standby => self.watch().await,
                Standing::Leader { .. } | Standing::Follower => Ok(()),
            };
            if let Err(e) = done
                && !stop.is_cancelled()
            {
                tracing::warn!(error = %e, "leading failed, trying again");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.parts.config.timing.assign) => {}
                changed = standing.wait_for(|s| matches!(s, Standing::Leader { term, .. } if *term != begun)) => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// One pass of a leader.
    async fn lead(&mut self, term: u64, stop: &CancellationToken) -> Result<(), DriveError> {
        if self.term != term {
            self.inherited = roster::published(&*self.parts.table, &self.parts.config).await?;
            (self.synced, self.published, self.counted) = (None, BTreeSet::new(), None);
            (self.asked_retention, self.told) = (None, false);
            self.syncs.clear();
            self.term = term;
        }
        // A stream that cannot be listed, or takes no records, keeps no lease waiting, and no other stream.
        let mut failed = self.learn_what_is_told().await;
        let members = self.members().await?;
        self.publish(&members).await?;
        let due = self.synced.is_none_or(|at| at.elapsed() >= self.parts.config.timing.shard_sync);
        let (mut tables, mut all_synced): (Vec<(String, Vec<LeaseRow>)>, _) = (Vec::new(), true);
        for stream in self.parts.streams.clone() {
            let rows = self.rows(&stream).await?;
            tables.push((stream, rows));
        }
        let mut lists = self.lists(&tables, due).await;
        for (stream, rows) in &mut tables {
            if let Some(list) = lists.remove(stream) {
                let synced = self.sync(stream, rows, list).await;
                all_synced &= synced.is_ok();
                failed = failed.and(synced);
            }
            let listed = self.syncs.get(stream).map(|sync| &sync.listed);
            let ghosts = ghost::ghosts(rows);
            // Rows go only when their shards are no longer listed.
            rows.retain(|row| !ghosts.contains(&row.shard) || listed.is_some_and(|listed| listed.contains(&row.shard)));
        }
        if due && all_synced {
            self.synced = Some(Instant::now());
        }
        failed = failed.and(self.assign(&tables, &members).await);
        failed = failed.and(self.count_shards(&tables, due).await);
        failed = failed.and(self.ask_retention(due).await);
        // Last, because their records may have to wait, and no lease should wait with them.
        failed.and(self.tell(&tables, stop).await)
    }

    /// Reads what earlier leaders told the lanes. Before the rows are: what is told by rows must not replace what
    /// somebody told meanwhile by younger ones.
    async fn learn_what_is_told(&mut self) -> Result<(), DriveError> {
        if self.told {
            return Ok(());
        }
        if let Some(control) = &mut self.control {
            control.begin().await?;
        }
        if let Some(skips) = &mut self.skips {
            skips.begin().await?;
        }
        self.told = true;
        Ok(())
    }

    /// Tells the lanes of sources, and the stage behind them of lanes that stand still.
    async fn tell(&mut self, tables: &[(String, Vec<LeaseRow>)], stop: &CancellationToken) -> Result<(), DriveError> {
        let (true, Some(control), Some((_, input))) = (self.told, &mut self.control, tables.first()) else {
            return Ok(());
        };
        // A source without a row would be overlooked.
        let whole = self.syncs.get(control.streams().0).is_some_and(|sync| sync.whole);
        let told = if whole { control.tick(input, &self.unreadable, stop).await } else { Ok(()) };
        let exchange = tables.iter().find(|(stream, _)| stream == control.streams().1);
        match (&mut self.skips, exchange) {
            (Some(skips), Some((_, rows))) => told.and(skips.tick(rows, stop).await),
            _ => told,
        }
    }

    /// One pass of a standby: it only looks, so that what it has seen is as old as what the leader has.
    async fn watch(&mut self) -> Result<(), DriveError> {
        self.members().await?;
        for stream in self.parts.streams.clone() {
            let rows = self.rows(&stream).await?;
            for row in &rows {
                self.leases.age(&lease_name(&stream, row), row.counter);
            }
            let exchange = self.control.as_ref().is_some_and(|control| control.streams().1 == stream);
            if let (Some(skips), true) = (&mut self.skips, exchange) {
                skips.observe(&rows);
            }
        }
        Ok(())
    }

    fn is_input(&self, stream: &str) -> bool {
        self.parts.streams.first().is_some_and(|input| input == stream)
    }

    fn state(&self) -> TableName {
        self.parts.config.tables.state()
    }

    async fn rows(&mut self, stream: &str) -> Result<Vec<LeaseRow>, DriveError> {
        let items = self.parts.table.scan(&self.parts.config.tables.leases(stream)).await?;
        let (mut rows, mut unreadable) = (Vec::new(), BTreeSet::new());
        for item in &items {
            match LeaseRow::read(item) {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => {}
                Err(e) => {
                    tracing::error!(stream, error = %e, "lease row cannot be read");
                    unreadable.insert(ShardId::new(e.key));
                }
            }
        }
        rows.sort_by(|a, b| a.shard.cmp(&b.shard));
        if self.is_input(stream) {
            self.unreadable = unreadable;
        }
        Ok(rows)
    }

    /// Workers whose beat moves, by id. Whoever stood still for too long is struck off.
    async fn members(&mut self) -> Result<Vec<Member>, DriveError> {
        let (config, table) = (&self.parts.config, &*self.parts.table);
        let times = config.timing.lease;
        let mut members = Vec::new();
        for seat in roster::seats(table, config).await? {
            let age = self.workers.age(&seat.id, seat.beat);
            let me = seat.id == config.worker.as_str();
            if me || age < times.failover {
                // On the list are also the dead of a while ago, and a leader new to its office has not seen them stand
                // still: alive is who just entered (beat 0), whom the last leader knew, or who was seen to move.
                let known = seat.beat == 0 || self.inherited.contains(&seat.id) || self.workers.moved(&seat.id);
                // A healthy beat is seen to move within a renewal and a pass.
                let suspect = !me && (!known || age >= times.failover.saturating_sub(times.renewal));
                members.push(Member { seat, suspect });
            } else if age > FORGOTTEN && matches!(*self.standing.borrow(), Standing::Leader { .. }) {
                strike_off(table, config, &seat.id).await?;
            }
        }
        Ok(members)
    }

    /// Names a standby in the lock, and the living where a leaving worker finds its successors.
    async fn publish(&mut self, members: &[Member]) -> Result<(), DriveError> {
        let others = || members.iter().filter(|m| !m.suspect && m.seat.id != self.parts.config.worker.as_str());
        self.standby.send_if_modified(|standby| {
            let stays = others().any(|m| Some(&m.seat.id) == standby.as_ref());
            let next = if stays { standby.clone() } else { others().next().map(|m| m.seat.id.clone()) };
            std::mem::replace(standby, next.clone()) != next
        });
        let live: BTreeSet<String> = members.iter().filter(|m| !m.suspect).map(|m| m.seat.id.clone()).collect();
        if live != self.published {
            roster::publish(&*self.parts.table, &self.parts.config, &live).await?;
            self.published = live;
        }
        Ok(())
    }

    /// The workers that take leases of a stream.
    fn takers(members: &[Member], stream: &str, elsewhere: &BTreeMap<String, usize>) -> Vec<WorkerView> {
        let takers = members.iter().filter(|m| m.seat.roles.contains(stream));
        takers
            .map(|m| WorkerView {
                id: m.seat.id.clone(),
                suspect: m.suspect,
                elsewhere: elsewhere.get(&m.seat.id).copied().unwrap_or_default(),
            })
            .collect()
    }
}

/// A lease's name among those of all streams.
fn lease_name(stream: &str, row: &LeaseRow) -> String {
    format!("{stream}/{}", row.shard)
}
