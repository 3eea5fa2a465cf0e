//! One conditional write of a lease row, repeated until its outcome is known.
//!
//! A refusal means one of these, told apart by the row that came back with it:
//! 1. our write went through and its answer was lost: the row already says what we wanted, and the counter is one on;
//! 2. an earlier write of ours did (its caller gave up): committed attributes are as we know them, the counter is one
//!    on, and never more, since each write asks for the counter before it;
//! 3. the leader began a hand-over: `checkpointOwner` is us now, the counter is ours: write again as the old owner;
//! 4. the caller's own condition does not hold: the counter is ours, and nothing else changed hands;
//! 5. anything else: the lease is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::throughput::{Throughput, bytes_per_second};
use super::{LeasePlace, RETRY_PAUSE, is_mine, owned};
use crate::lease::{LeaseError, LeaseRow, attribute};
use crate::table::{Condition, Item, TableError, Update, Value};

/// The attributes whose values say which state is committed.
const COMMITTED: [&str; 4] = [attribute::CHECKPOINT, attribute::PENDING, attribute::MANIFEST, attribute::CUT];

/// What a write does to the row besides raising the counter.
#[derive(Debug)]
pub(super) enum Change {
    /// Sets and removes attributes.
    Set(Update),
    /// Gives the lease away: to this one, else to the next owner of a hand-over, else to nobody.
    HandOn(Option<String>),
}

impl Change {
    fn update(&self, row: &Item, worker: &str) -> Update {
        let successor = match self {
            Self::Set(update) => return update.clone(),
            Self::HandOn(successor) => successor.clone().or_else(|| next_owner(row, worker)),
        };
        let switches = row.number(attribute::SWITCHES).unwrap_or_default().saturating_add(1);
        match successor {
            None => Update::new().remove(attribute::OWNER).remove(attribute::CHECKPOINT_OWNER),
            Some(owner) => Update::new()
                .set(attribute::OWNER, Value::string(owner.clone()))
                .set(attribute::ASSIGNED, Value::string(owner))
                .set(attribute::SWITCHES, Value::number(switches))
                .remove(attribute::CHECKPOINT_OWNER),
        }
    }
}

/// The next owner, when the row is in a hand-over away from `worker`.
fn next_owner(row: &Item, worker: &str) -> Option<String> {
    (row.string(attribute::CHECKPOINT_OWNER) == Some(worker))
        .then(|| row.string(attribute::OWNER).map(str::to_owned))?
}

#[derive(Debug)]
struct Held {
    item: Item,
    counter: i64,
    /// When the first write that asked for this counter began. One of which no answer came may have been applied then,
    /// and others see the counter stand still from then on.
    asked: Option<Instant>,
}

/// The holder's side of one row.
#[derive(Debug)]
pub(super) struct Writer {
    place: LeasePlace,
    key: String,
    held: Mutex<Held>,
    /// Held for the time of a write, and only by tasks on the runtime that writes.
    turn: tokio::sync::Mutex<()>,
    renewed: watch::Sender<Option<Instant>>,
    throughput: Throughput,
    lost: CancellationToken,
    stop: CancellationToken,
}

impl Writer {
    pub(super) fn new(place: LeasePlace, key: String, item: Item, counter: i64, stop: CancellationToken) -> Self {
        Self {
            place,
            key,
            held: Mutex::new(Held { item, counter, asked: None }),
            turn: tokio::sync::Mutex::new(()),
            renewed: watch::Sender::new(Some(Instant::now())),
            throughput: Throughput::new(),
            lost: CancellationToken::new(),
            stop,
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counter(&self) -> i64 {
        self.held().counter
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    pub(super) fn runs_on(&self) -> Option<&Handle> {
        self.place.runs_on.as_ref()
    }

    pub(super) fn renewed(&self) -> watch::Receiver<Option<Instant>> {
        self.renewed.subscribe()
    }

    pub(super) fn delivered(&self, bytes: u64) {
        self.throughput.delivered(bytes);
    }

    pub(super) fn next_owner(&self) -> Option<String> {
        next_owner(&self.held().item, self.place.worker.as_str())
    }

    pub(super) fn row(&self) -> Result<LeaseRow, LeaseError> {
        LeaseRow::read(&self.held().item)?.ok_or(LeaseError::Lost)
    }

    pub(super) async fn refresh(&self) -> Result<LeaseRow, LeaseError> {
        let current = self.place.table.get(&self.place.name, &self.key).await.map_err(LeaseError::Table)?;
        let Some(item) = current.filter(|item| is_mine(&self.place.worker, item)) else {
            return Err(self.lose());
        };
        let mut held = self.held();
        // Our own counter is kept: a read may be older than a write that went through meanwhile.
        if item.number(attribute::COUNTER) == Some(held.counter) {
            held.item = item;
        }
        LeaseRow::read(&held.item)?.ok_or(LeaseError::Lost)
    }

    fn age(&self) -> Duration {
        self.renewed.borrow().map_or(Duration::MAX, |at| at.elapsed())
    }

    fn lose(&self) -> LeaseError {
        if !self.lost.is_cancelled() {
            let (stream, worker) = (&self.place.stream, &self.place.worker);
            tracing::warn!(stream, lease = self.key, %worker, "lease lost");
            self.place.metrics.lease_lost(stream);
            self.lost.cancel();
        }
        LeaseError::Lost
    }

    /// Takes over the row as it stands, and notices a hand-over.
    fn adopt(&self, item: Item, counter: i64) {
        let mut held = self.held();
        let asked = held.asked.filter(|_| held.counter == counter);
        *held = Held { item, counter, asked };
        if next_owner(&held.item, self.place.worker.as_str()).is_some() {
            self.stop.cancel();
        }
    }

    /// Writes the row; returns its owner afterwards.
    pub(super) async fn write(&self, change: Change, extra: Condition) -> Result<Option<String>, LeaseError> {
        let _turn = self.turn.lock().await;
        let known = bytes_per_second(&self.held().item, attribute::THROUGHPUT);
        let throughput = self.throughput.sample(self.place.times.renewal, known);
        let worker = &self.place.worker;
        loop {
            if self.lost.is_cancelled() || self.age() > self.place.times.failover {
                return Err(self.lose());
            }
            let started = Instant::now();
            let (row, counter, first) = {
                let mut held = self.held();
                (held.item.clone(), held.counter, *held.asked.get_or_insert(started))
            };
            let next = counter.saturating_add(1);
            let mut update = change.update(&row, worker.as_str()).set(attribute::COUNTER, Value::number(next));
            if let Some(throughput) = &throughput {
                update = update.set(attribute::THROUGHPUT, throughput.clone());
            }
            let as_known = Condition::Equals(attribute::COUNTER, Value::number(counter));
            let condition = Condition::All(vec![as_known, owned(worker, &row), extra.clone()]);
            let current = match self.place.table.update(&self.place.name, &self.key, update.clone(), condition).await {
                Ok(()) => {
                    let mut held = self.held();
                    update.apply(&mut held.item);
                    (held.counter, held.asked) = (next, None);
                    let owner = held.item.string(attribute::OWNER).map(str::to_owned);
                    drop(held);
                    self.renewed.send_replace(Some(started));
                    return Ok(owner);
                }
                Err(TableError::Conflict { current }) => current,
                Err(e) if e.is_retryable() => {
                    tracing::debug!(lease = self.key, error = %e, "lease write will be repeated");
                    tokio::select! {
                        biased;
                        () = self.lost.cancelled() => {}
                        () = tokio::time::sleep(RETRY_PAUSE) => {}
                    }
                    continue;
                }
                Err(e) => return Err(LeaseError::Table(e)),
            };
            self.place.metrics.commit_conflict(&self.place.stream);
            let Some(current) = current else { return Err(self.lose()) };
            let found = current.number(attribute::COUNTER).unwrap_or_default();
            let mine = is_mine(worker, &current);
            let given_away = matches!(change, Change::HandOn(_));
            if found == next && (mine || given_away) && applied(&update, &row, &current) {
                self.place.metrics.spurious_recovery(&self.place.stream);
                let owner = current.string(attribute::OWNER).map(str::to_owned);
                self.adopt(*current, next);
                self.renewed.send_replace(Some(first));
                return Ok(owner);
            }
            let same = COMMITTED.iter().all(|name| current.get(name) == row.get(name));
            // Two on, others wrote: an operator evicted us and the leader gave the lease back, say. It is a new lease.
            if !mine || !same || !(counter..=next).contains(&found) {
                return Err(self.lose());
            }
            let handing = next_owner(&current, worker.as_str()) != next_owner(&row, worker.as_str());
            self.adopt(*current, found);
            if found > counter {
                self.place.metrics.spurious_recovery(&self.place.stream);
                tracing::debug!(lease = self.key, counter = found, "took over a counter whose answer was lost");
            } else if !handing {
                return Err(LeaseError::Refused);
            }
        }
    }

    pub(super) async fn keep(self: &Arc<Self>) {
        let renewal = self.place.times.renewal;
        loop {
            tokio::select! {
                biased;
                () = self.lost.cancelled() => return,
                () = tokio::time::sleep(renewal) => {}
            }
            if self.age() < renewal / 2 {
                continue;
            }
            match self.write(Change::Set(Update::new()), Condition::None).await {
                Ok(_) | Err(LeaseError::Refused) => {}
                Err(LeaseError::Lost) => return,
                Err(e) => tracing::warn!(lease = self.key, error = %e, "lease renewal failed"),
            }
        }
    }
}

/// Whether the row is what `update` makes of the row we knew: our write went through and its answer was lost.
fn applied(update: &Update, known: &Item, current: &Item) -> bool {
    let mut wanted = known.clone();
    update.apply(&mut wanted);
    COMMITTED.iter().all(|name| current.get(name) == wanted.get(name))
        && update.set.iter().all(|(name, value)| current.get(name) == Some(value))
        && update.remove.iter().all(|name| current.get(name).is_none())
}
