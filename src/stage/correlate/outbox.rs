//! The outbox: events from their commit to their delivery, and the outlet they leave by.
//!
//! Invariants: an event's id comes from its content, so a repeat has the same id; nothing is handed out before the commit
//! that holds it; what is delivered is kept for a while as the record of what was said, and bounded.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::stage::StageError;
use flowshift_proto::anomaly::{AnomalyEvent, EventType};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use crate::webhook::{Board, Delivery, DrainHandle, Outcome, WallClock};

/// Events kept, delivered or not. Beyond it the oldest delivered of ended incidents go first, then others that are
/// delivered, then the oldest updates.
pub(super) const KEPT: usize = 2_000;
/// How long the end of a finite input waits for receivers.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Id from the content, the receivers' idempotency key.
    pub id: String,
    /// The incident.
    pub incident: String,
    /// Number within the incident.
    pub sequence: u64,
    /// Opened, updated or resolved.
    pub kind: String,
    /// The event as one line of JSON.
    pub event: String,
    /// The webhook's body.
    pub body: String,
    /// Wall-clock time of its making, epoch milliseconds: for the age of deliveries only.
    pub created_ms: i64,
    /// Whether it was printed, where printing is asked for.
    pub printed: bool,
    /// Whether every endpoint is done with it.
    pub delivered: bool,
    /// Whether a commit holds it; only then may it go out.
    #[serde(skip)]
    committed: bool,
}

impl Entry {
    /// As the deliverer takes it.
    fn delivery(&self) -> Delivery {
        // What cannot be read is not held back: it goes out as it is.
        let event: Option<AnomalyEvent> = serde_json::from_str(&self.event).ok();
        Delivery {
            id: self.id.clone(),
            incident: self.incident.clone(),
            sequence: self.sequence,
            created_ms: self.created_ms,
            muted: event.as_ref().is_some_and(|event| event.muted.is_some()),
            past: self.delivered,
            body: Bytes::from(self.body.clone()),
            event: event.map(Arc::new),
        }
    }
}

/// Events in the order of their making.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outbox {
    entries: Vec<Entry>,
    /// Incidents open by the events so far.
    open: BTreeSet<String>,
    /// Events dropped from the record to keep it bounded.
    pub dropped: u64,
}

impl Outbox {
    /// Adds an event; returns how many had to go, undelivered, because too many wait.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn add(&mut self, event: &AnomalyEvent) -> Result<u64, StageError> {
        let failed = |e: flowshift_proto::anomaly::AnomalyError| StageError::with("anomaly event", e);
        let line = event.to_json().map_err(failed)?;
        let body = event.to_webhook().map_err(failed)?;
        let body = serde_json::to_string(&body).map_err(|e| StageError::with("webhook body", e))?;
        match event.kind {
            EventType::Opened => self.open.insert(event.incident.clone()),
            EventType::Resolved => self.open.remove(&event.incident),
            EventType::Updated => false,
        };
        self.entries.push(Entry {
            id: format!("evt_{:032x}", xxh3_128(body.as_bytes())),
            incident: event.incident.clone(),
            sequence: event.sequence,
            kind: event.kind.as_str().to_owned(),
            event: line,
            body,
            created_ms: WallClock::system().now_ms(),
            printed: false,
            delivered: false,
            committed: false,
        });
        Ok(self.bound())
    }

    /// Keeps it bounded; how many events went that somebody still waited for.
    fn bound(&mut self) -> u64 {
        let mut lost = 0;
        while self.entries.len() > KEPT {
            let is_done = |e: &Entry| e.printed && e.delivered;
            // What was told of open incidents is what a next owner goes on from.
            let over = self.entries.iter().position(|e| is_done(e) && !self.open.contains(&e.incident));
            let done = || self.entries.iter().position(is_done);
            let update = || self.entries.iter().position(|e| e.kind == EventType::Updated.as_str());
            let index = over.or_else(done).or_else(update).unwrap_or(0);
            let gone = self.entries.remove(index);
            self.dropped += 1;
            if !is_done(&gone) {
                let (id, incident, event) = (gone.id, gone.incident, gone.kind);
                tracing::error!(id, incident, event, "webhook event dropped: the outbox is full of those that wait");
                lost += 1;
            }
        }
        lost
    }

    /// A commit holds every entry now.
    pub fn commit(&mut self) {
        self.entries.iter_mut().for_each(|e| e.committed = true);
    }

    /// Every event kept, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Incidents that are open.
    pub fn open_incidents(&self) -> i64 {
        i64::try_from(self.open.len()).unwrap_or(i64::MAX)
    }

    /// What is delivered of incidents that more can be told of, oldest first.
    fn told(&self) -> impl Iterator<Item = &Entry> {
        let waiting: BTreeSet<&str> =
            self.entries.iter().filter(|e| !e.delivered).map(|e| e.incident.as_str()).collect();
        let goes_on = move |e: &&Entry| self.open.contains(&e.incident) || waiting.contains(e.incident.as_str());
        self.entries.iter().filter(|e| e.delivered).filter(goes_on)
    }

    /// Whether nothing waits to go out.
    pub fn is_delivered(&self) -> bool {
        self.entries.iter().all(|e| e.printed && e.delivered)
    }
}

/// Prints an event, given as one line of JSON.
pub type Printer = Arc<dyn Fn(&str) + Send + Sync>;

/// The way to the deliverer and back.
#[derive(Debug)]
pub struct Deliveries {
    /// To it.
    pub queue: mpsc::Sender<Delivery>,
    /// From it.
    pub outcomes: mpsc::Receiver<Outcome>,
    /// To hurry it at the end.
    pub drain: DrainHandle,
}

/// Where committed events go: a printer, and the queue of the webhook deliverer.
pub struct Outlet {
    printer: Option<Printer>,
    deliveries: Option<mpsc::Sender<Delivery>>,
    outcomes: Option<mpsc::Receiver<Outcome>>,
    /// What earlier owners delivered, to be handed out before all else; none before the first look at the outbox.
    past: Option<VecDeque<Delivery>>,
    /// Ids handed to the deliverer by this owner.
    handed: BTreeSet<String>,
    /// The receivers cannot be reached by this owner: what is due stays.
    held: bool,
    /// Which endpoints are disabled; none: this owner knows nothing of it, and what is committed stays.
    board: Option<Board>,
    /// Hurries the deliverer at the end of a finite input; none once it was used.
    drain: Option<DrainHandle>,
    draining: Option<Instant>,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (handed, board) = (self.handed.len(), self.board.is_some());
        f.debug_struct("Outlet").field("handed", &handed).field("board", &board).finish_non_exhaustive()
    }
}

impl Outlet {
    /// An outlet; without a deliverer every event counts as delivered, without a printer as printed.
    pub fn new(printer: Option<Printer>, deliverer: Option<Deliveries>) -> Self {
        let mut outlet = Self {
            printer,
            deliveries: None,
            outcomes: None,
            past: None,
            handed: BTreeSet::new(),
            held: false,
            board: None,
            drain: None,
            draining: None,
        };
        if let Some(deliverer) = deliverer {
            outlet.deliveries = Some(deliverer.queue);
            outlet.outcomes = Some(deliverer.outcomes);
            outlet.drain = Some(deliverer.drain);
        }
        outlet
    }

    /// An outlet that delivers nothing and loses nothing: the next owner does.
    pub fn held(printer: Option<Printer>) -> Self {
        Self { held: true, ..Self::new(printer, None) }
    }

    /// With the board of its deliverer's endpoints.
    #[must_use]
    pub fn with_board(self, board: Board) -> Self {
        Self { board: Some(board), ..self }
    }

    /// The board, if this owner has one.
    pub(super) fn board(&mut self) -> Option<&mut Board> {
        self.board.as_mut()
    }

    /// Nothing more will come: what is open is tried once more at once, and for a limited time.
    pub fn drain(&mut self) {
        self.draining.get_or_insert_with(Instant::now);
        if let Some(drain) = self.drain.take() {
            tokio::spawn(drain.finish(DRAIN_LIMIT));
        }
    }

    /// Whether the end of a finite input no longer waits for deliveries.
    pub fn gives_up(&self) -> bool {
        self.draining.is_some_and(|since| since.elapsed() > DRAIN_LIMIT)
    }

    /// Hands out what is committed and not yet handed out; says whether anything changed in the outbox.
    pub fn send(&mut self, outbox: &mut Outbox) -> bool {
        let mut changed = false;
        let full = !self.send_past(outbox);
        for entry in outbox.entries.iter_mut().filter(|e| e.committed) {
            if !entry.printed {
                if let Some(print) = &self.printer {
                    print(&entry.event);
                }
                entry.printed = true;
                changed = true;
            }
            if self.held || entry.delivered || full || self.handed.contains(&entry.id) {
                continue;
            }
            let Some(deliveries) = &self.deliveries else {
                entry.delivered = true;
                changed = true;
                continue;
            };
            // A full queue keeps the rest, in order, for the next look.
            if deliveries.try_send(entry.delivery()).is_err() {
                break;
            }
            self.handed.insert(entry.id.clone());
        }
        changed
    }

    /// Hands out what earlier owners delivered; says whether the deliverer has it all.
    fn send_past(&mut self, outbox: &Outbox) -> bool {
        let Some(deliveries) = &self.deliveries else { return true };
        let past = self.past.get_or_insert_with(|| outbox.told().map(Entry::delivery).collect());
        while let Some(delivery) = past.front() {
            if deliveries.try_send(delivery.clone()).is_err() {
                return false;
            }
            past.pop_front();
        }
        true
    }

    /// Notes what the deliverer is done with; says whether anything changed.
    pub fn collect(&mut self, outbox: &mut Outbox) -> bool {
        let Some(outcomes) = &mut self.outcomes else { return false };
        let mut changed = false;
        while let Ok(outcome) = outcomes.try_recv() {
            let id = match outcome {
                Outcome::Delivered { id } => id,
                Outcome::Dropped { id, reason } => {
                    tracing::warn!(id, reason = reason.as_str(), "webhook event dropped");
                    id
                }
            };
            self.handed.remove(&id);
            if let Some(entry) = outbox.entries.iter_mut().find(|e| e.id == id) {
                entry.delivered = true;
                changed = true;
            }
        }
        changed
    }
}
