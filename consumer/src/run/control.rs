//! The leader's care for the source set: who holds watermarks back.
//!
//! Every change is first written where it fences the source's owner (its row), then committed as a numbered control
//! record, then put to all lanes. A new leader puts the committed number again before anything else. Lanes have no
//! clock: who is out is decided here (`idle`), from where a source counts again (`back`, `passed`), and what a child
//! counts as before anybody has read it (`heirs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::DriveError;
use super::map_run::lane_entry;
use super::task::ShardTask;
use crate::commit::STATE_KEY;
use crate::exchange::{Control, Envelope, EnvelopeError, FeedKinds, Lanes, Message, SourceId, SourceSet, Status};
use crate::lease::{Checkpoint, LeaseRow, attribute};
use crate::log::{Entry, Log, StreamId, put_all, put_all_within};
use crate::metrics::EngineMetrics;
use crate::shard::ShardId;
use crate::table::{Condition, Item, Table, TableError, TableName, Value};

mod back;
pub(crate) mod heirs;
mod idle;
pub(crate) mod passed;
#[cfg(test)]
mod tests;

/// The item of the state table that holds the committed control record: its number `n`, its envelope in [`DATA`].
const KEY: &str = "control";
const DATA: &str = "d";
/// Writes of rows in flight at once.
const WRITES: usize = 16;
/// How long a leader's pass waits for a stream to take its records. Leases have to be assigned also while one takes
/// nothing; what is not acknowledged is put in the next passes. A set of 10,000 sources for 64 lanes takes 5 s on four
/// shards.
pub(crate) const PUT_LIMIT: Duration = Duration::from_secs(2);

/// What the leader needs to know of the job's exchange.
#[derive(Debug, Clone)]
pub(crate) struct ControlPlan {
    pub(crate) input: String,
    pub(crate) exchange: String,
    pub(crate) lanes: Lanes,
    pub(crate) kinds: FeedKinds,
    pub(crate) idle_after: Duration,
    pub(crate) stuck_after: Duration,
}

/// The source set as one leader sees it.
#[derive(Debug)]
pub(crate) struct SourceControl {
    plan: ControlPlan,
    table: Arc<dyn Table>,
    log: Arc<dyn Log>,
    leases: TableName,
    state: TableName,
    metrics: EngineMetrics,
    stream: StreamId,
    committed: Option<Control>,
    acknowledged: u64,
    /// What is not acknowledged yet of the record of this number: an exchange that takes some lanes' in every pass
    /// takes all.
    unacknowledged: Option<(u64, Vec<Entry>)>,
    /// Since when a value of a row has been standing still, by (shard, what).
    still: BTreeMap<(String, &'static str), (i64, Instant)>,
}

/// Puts the committed control record again, for a shard whose lanes start without state or have lost records: they
/// close nothing before a source set that misses nothing. Other lanes that know its number drop it, and so do these
/// when a later one came before it: then the later one is put, too.
pub(crate) async fn tell_again(task: &ShardTask, lanes: Option<Lanes>) -> Result<(), DriveError> {
    let Some(lanes) = lanes else { return Ok(()) };
    let latest = async || committed(&*task.table, &task.state).await?.ok_or(DriveError::NoSourceSet);
    let mut control = latest().await?;
    loop {
        let number = control.number;
        let data = Envelope::encode(&Message::Control(Control { catch_up: true, ..control }));
        let entries = lanes.within(task.context.range).into_iter().map(|lane| lane_entry(lanes, lane, data.clone()));
        put_all(&*task.log, task.stream(), entries.collect(), task.lease.lost(), |_| {}).await?;
        control = latest().await?;
        if control.number == number {
            return Ok(());
        }
    }
}

/// The kinds for which lanes are told that a source is out, or may have been told so.
pub(crate) async fn told_out(table: &dyn Table, state: &TableName, id: &SourceId) -> Result<[bool; 4], DriveError> {
    Ok(out_in(committed(table, state).await?.as_ref(), id))
}

fn out_in(control: Option<&Control>, id: &SourceId) -> [bool; 4] {
    let status = control.and_then(|control| control.sources.get(id));
    std::array::from_fn(|kind| status.and_then(|status| status.get(kind)) == Some(&Status::Idle))
}

/// The committed control record, by whichever leader.
async fn committed(table: &dyn Table, state: &TableName) -> Result<Option<Control>, DriveError> {
    let item = table.get(state, KEY).await?;
    match item.as_ref().and_then(|item| item.bytes(DATA)).map(Envelope::decode) {
        None => Ok(None),
        Some(Ok(Message::Control(control))) => Ok(Some(control)),
        Some(Ok(Message::Batch(_))) => Err(DriveError::SourceSet(EnvelopeError::Malformed("a batch".into()))),
        Some(Err(e)) => Err(DriveError::SourceSet(e)),
    }
}

impl SourceControl {
    #[allow(clippy::too_many_arguments, reason = "wiring, called once")]
    pub(crate) fn new(
        plan: ControlPlan,
        table: Arc<dyn Table>,
        log: Arc<dyn Log>,
        leases: TableName,
        state: TableName,
        metrics: EngineMetrics,
        stream: StreamId,
    ) -> Self {
        let still = BTreeMap::new();
        Self {
            plan,
            table,
            log,
            leases,
            state,
            metrics,
            stream,
            committed: None,
            acknowledged: 0,
            unacknowledged: None,
            still,
        }
    }

    /// The input stream and the exchange stream.
    pub(crate) fn streams(&self) -> (&str, &str) {
        (&self.plan.input, &self.plan.exchange)
    }

    /// A new term: what an earlier leader committed is read and put again.
    pub(crate) async fn begin(&mut self) -> Result<(), DriveError> {
        self.still.clear();
        (self.acknowledged, self.unacknowledged) = (0, None);
        self.committed = self.latest().await?;
        Ok(())
    }

    /// What is committed now.
    async fn latest(&self) -> Result<Option<Control>, DriveError> {
        committed(&*self.table, &self.state).await
    }

    /// One look at the rows of the input stream.
    pub(crate) async fn tick(
        &mut self,
        rows: &[LeaseRow],
        unreadable: &BTreeSet<ShardId>,
        stop: &CancellationToken,
    ) -> Result<(), DriveError> {
        self.settle_heirs(rows, unreadable).await?;
        let rows = &*self.as_they_count(rows);
        self.judge(rows).await?;
        let set = self.set(rows, unreadable);
        if !set.is_empty() && self.committed.as_ref().is_none_or(|c| c.sources != set) {
            self.commit(set).await?;
        }
        self.put(stop).await?;
        self.let_back(rows).await?;
        self.count(rows);
        Ok(())
    }

    fn source(&self, row: &LeaseRow) -> SourceId {
        SourceId { stream: self.stream.clone(), shard: row.shard.clone() }
    }

    /// Whoever is still to end, from the end of a parent on: until then its parents hold lanes back for it. The
    /// children of consumed shards are in it before their rows are made: a lane that takes up the set after a loss
    /// counts those who are not in it as ended. So it also stays who was in it and whose row cannot be read.
    fn set(&self, rows: &[LeaseRow], unreadable: &BTreeSet<ShardId>) -> SourceSet {
        let kinds = self.plan.kinds.count();
        let before = self.committed.iter().flat_map(|control| &control.sources);
        let mut set: SourceSet =
            before.filter(|(id, _)| unreadable.contains(&id.shard)).map(|(id, s)| (id.clone(), s.clone())).collect();
        let kept: BTreeSet<ShardId> = set.keys().map(|id| id.shard.clone()).collect();
        // One that has a row was named when its parent left the set, unless the set names an ancestor still; it left the
        // set itself since then.
        let left = |parent: &LeaseRow, child: &ShardId| unreadable.contains(child) && !self.descends(rows, parent);
        let unnamed = |(parent, child): &(&LeaseRow, ShardId)| !kept.contains(child) && !left(parent, child);
        for (parent, child) in without_row(rows).filter(unnamed) {
            let id = SourceId { stream: self.stream.clone(), shard: child };
            let status = set.entry(id).or_insert_with(|| vec![Status::Live; kinds]);
            for (status, of_parent) in status.iter_mut().zip(parent.status) {
                *status = if of_parent == Status::Live { *status } else { Status::Idle };
            }
        }
        let consumed = consumed(rows);
        let named = |row: &LeaseRow| self.committed.as_ref().and_then(|control| control.sources.get(&self.source(row)));
        // Lanes take who is not in it for ended: who was in it stays until its row says so, whatever its parents show.
        let begun = open(rows).filter(|row| {
            if named(row).is_some() {
                return true;
            }
            let mut parents = row.parents.iter().filter_map(|parent| consumed.get(parent)).peekable();
            parents.peek().is_none() || parents.any(|consumed| *consumed)
        });
        // What a child counts as cannot be said anew while a parent cannot be read.
        let unknown = |row: &LeaseRow| !heirs::is_settled(row) && row.parents.iter().any(|p| unreadable.contains(p));
        let status = |row: &LeaseRow| match named(row).filter(|_| unknown(row)) {
            Some(before) => before.clone(),
            None => row.status[..kinds].to_vec(),
        };
        set.extend(begun.map(|row| (self.source(row), status(row))));
        set
    }

    /// Whether the committed set names the row's shard or one that it came of; any, while no set is committed.
    fn descends(&self, rows: &[LeaseRow], row: &LeaseRow) -> bool {
        let Some(committed) = &self.committed else { return true };
        let by_id: BTreeMap<&ShardId, &LeaseRow> = rows.iter().map(|row| (&row.shard, row)).collect();
        let (mut seen, mut next) = (BTreeSet::from([&row.shard]), vec![row]);
        while let Some(row) = next.pop() {
            if committed.sources.contains_key(&self.source(row)) {
                return true;
            }
            let parents = row.parents.iter().filter_map(|parent| by_id.get(parent).copied());
            next.extend(parents.filter(|parent| seen.insert(&parent.shard)));
        }
        false
    }

    async fn commit(&mut self, sources: SourceSet) -> Result<(), DriveError> {
        let last = self.committed.as_ref().map(|c| c.number);
        let control = Control { number: last.unwrap_or_default() + 1, sources, catch_up: false };
        let item = Item::new()
            .with(STATE_KEY, Value::string(KEY))
            .with("n", Value::number(control.number))
            .with(DATA, Value::B(Envelope::encode(&Message::Control(control.clone()))));
        let expected = match last {
            None => Condition::Absent(STATE_KEY),
            Some(number) => Condition::Equals("n", Value::number(number)),
        };
        match self.table.put(&self.state, item, expected).await {
            Ok(()) => self.committed = Some(control),
            // Another leader, or our own write whose answer was lost: what stands there decides.
            Err(TableError::Conflict { .. }) => self.begin().await?,
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// Puts the committed control record to every lane unless this leader knows that it was acknowledged.
    async fn put(&mut self, stop: &CancellationToken) -> Result<(), DriveError> {
        let Some(control) = &self.committed else { return Ok(()) };
        if control.number == self.acknowledged {
            return Ok(());
        }
        let (lanes, number) = (self.plan.lanes, control.number);
        if self.unacknowledged.as_ref().is_none_or(|(of, _)| *of != number) {
            let data = Envelope::encode(&Message::Control(control.clone()));
            let entries = lanes.all().map(|lane| lane_entry(lanes, lane, data.clone())).collect();
            self.unacknowledged = Some((number, entries));
        }
        if let Some((_, entries)) = &mut self.unacknowledged {
            put_all_within(&*self.log, &self.plan.exchange, entries, stop, PUT_LIMIT).await?;
        }
        (self.acknowledged, self.unacknowledged) = (number, None);
        tracing::debug!(number, "source set acknowledged by every lane");
        Ok(())
    }

    fn count(&self, rows: &[LeaseRow]) {
        for (name, status) in [("live", Status::Live), ("idle", Status::Idle), ("return", Status::Return)] {
            self.metrics.sources(name, open(rows).filter(|row| row.status[0] == status).count());
        }
    }
}

/// The rows of shards that are not consumed.
fn open(rows: &[LeaseRow]) -> impl Iterator<Item = &LeaseRow> {
    rows.iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd)
}

/// The children that consumed rows name and that have no row yet, each with its parent.
fn without_row(rows: &[LeaseRow]) -> impl Iterator<Item = (&LeaseRow, ShardId)> {
    let known: BTreeSet<&ShardId> = rows.iter().map(|row| &row.shard).collect();
    let consumed = rows.iter().filter(|row| row.checkpoint == Checkpoint::ShardEnd);
    consumed
        .flat_map(|row| children(row).map(move |child| (row, child)))
        .filter(move |(_, child)| !known.contains(child))
}

/// The children that a consumed row names: as its END did, too.
fn children(row: &LeaseRow) -> impl Iterator<Item = ShardId> {
    let end = row.cut.iter().filter(|cut| cut.end).flat_map(|cut| &cut.children);
    row.children.iter().cloned().chain(end.map(ShardId::new))
}

/// Which shards that have rows are consumed.
fn consumed(rows: &[LeaseRow]) -> BTreeMap<&ShardId, bool> {
    rows.iter().map(|row| (&row.shard, row.checkpoint == Checkpoint::ShardEnd)).collect()
}

/// Holds when nothing has been cut of a kind since the row was read, nobody has claimed it anew, and the end of its
/// shard is not cut: from there on its status is its children's.
fn as_seen(row: &LeaseRow, kind: usize) -> Condition {
    let seen = |name, seen: Option<Value>| seen.map_or(Condition::Absent(name), |seen| Condition::Equals(name, seen));
    let end = || Value::string(Checkpoint::ShardEnd.to_string());
    let not_at_end = |name| Condition::Any(vec![Condition::Absent(name), Condition::Differs(name, end())]);
    let data = Some(row.data[kind]).filter(|data| *data != 0).map(Value::number);
    Condition::All(vec![
        seen(attribute::DATA[kind], data),
        seen(attribute::EPOCH, row.epoch.map(Value::number)),
        not_at_end(attribute::CHECKPOINT),
        not_at_end(attribute::PENDING),
    ])
}

/// Whether the source has cut its END; of an input that is over, too.
fn has_ended(row: &LeaseRow) -> bool {
    row.checkpoint == Checkpoint::ShardEnd || row.cut.as_ref().is_some_and(|cut| cut.end)
}

/// Carries out writes, [`WRITES`] at a time; all are tried, and the first failure is returned.
async fn all(writes: Vec<BoxFuture<'_, Result<(), DriveError>>>) -> Result<(), DriveError> {
    let done: Vec<Result<(), DriveError>> = futures::stream::iter(writes).buffered(WRITES).collect().await;
    done.into_iter().collect()
}
