//! Hands every entry to all endpoints and reports it when the last is done.
//!
//! Memory is bounded: at most `max_pending` entries are open, then nothing more is taken from the outbox's channel. An id that
//! is open already is not taken twice.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, Known, request};
use super::switch::Switchboard;
use super::worker::{Finished, Worker};
use super::{
    Board, Delivery, DropReason, Endpoint, EndpointError, Gate, HttpTransport, Map, Outcome, Switches, Transport,
    TransportSetupError, WallClock,
};
use crate::metrics::webhook::WebhookMetrics;

/// Settings of the deliverer itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// Entries open at once; more wait in the channel. At least 1.
    pub max_pending: usize,
    /// Seed of the jitter.
    pub seed: u64,
    /// Wall-clock time for signatures and expiry.
    pub clock: WallClock,
    /// Where subnets are, for filters.
    pub map: Map,
    /// Where operators find the endpoints once their board begins.
    pub switches: Switches,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_pending: 10_000,
            seed: 0,
            clock: WallClock::system(),
            map: Map::default(),
            switches: Switches::default(),
        }
    }
}

/// Sends outbox entries to all endpoints.
#[derive(Debug)]
pub struct Deliverer {
    endpoints: Vec<Arc<Endpoint>>,
    transport: Arc<dyn Transport>,
    metrics: WebhookMetrics,
    options: Options,
    switchboard: Switchboard,
    drain: watch::Sender<bool>,
    progress: watch::Sender<Progress>,
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Everything that was in the channel when the drain began has been taken.
    draining: bool,
    /// Entries open.
    open: usize,
}

/// A deliverer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Two endpoints share a name.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No HTTP client.
    #[error(transparent)]
    Setup(#[from] TransportSetupError),
    /// The receiver did not take a delivery made by [`send_once`].
    #[error("webhook {name} not delivered: {attempt}")]
    Refused {
        /// The endpoint's name.
        name: String,
        /// What it answered.
        attempt: Attempt,
    },
}

impl Deliverer {
    /// A deliverer over HTTP with the default options. With no endpoint every entry counts as delivered.
    ///
    /// # Errors
    /// When two endpoints share a name, or TLS is needed and the system has no certificates.
    pub fn new(endpoints: Vec<Endpoint>, metrics: WebhookMetrics) -> Result<Self, SendError> {
        Self::with_options(endpoints, metrics, Options::default())
    }

    /// A deliverer over HTTP.
    ///
    /// # Errors
    /// As [`Deliverer::new`].
    pub fn with_options(
        endpoints: Vec<Endpoint>,
        metrics: WebhookMetrics,
        options: Options,
    ) -> Result<Self, SendError> {
        let needs_tls = endpoints.iter().any(|endpoint| endpoint.own.is_none() && endpoint.url.scheme() == "https");
        let transport = Arc::new(HttpTransport::new(options.clock.clone(), needs_tls)?);
        Self::with_transport(endpoints, metrics, transport, options)
    }

    /// A deliverer over any transport.
    ///
    /// # Errors
    /// When two endpoints share a name.
    pub fn with_transport(
        endpoints: Vec<Endpoint>,
        metrics: WebhookMetrics,
        transport: Arc<dyn Transport>,
        options: Options,
    ) -> Result<Self, SendError> {
        for (index, endpoint) in endpoints.iter().enumerate() {
            if endpoints[..index].iter().any(|other| other.name() == endpoint.name()) {
                return Err(EndpointError::Twice(endpoint.name().to_owned()).into());
            }
            metrics.add_endpoint(endpoint.name());
        }
        Ok(Self {
            switchboard: Switchboard::new(endpoints.iter()),
            endpoints: endpoints.into_iter().map(Arc::new).collect(),
            transport,
            metrics,
            options,
            drain: watch::channel(false).0,
            progress: watch::channel(Progress::default()).0,
        })
    }

    /// A handle to drain it with, to be taken before [`Deliverer::run`].
    #[must_use]
    pub fn drain_handle(&self) -> DrainHandle {
        DrainHandle { drain: self.drain.clone(), progress: self.progress.subscribe() }
    }

    /// Which endpoints are disabled, for the stage that commits it; to be taken once, before [`Deliverer::run`].
    #[must_use]
    pub fn board(&self) -> Board {
        Board::new(self.options.switches.clone(), self.switchboard.clone())
    }

    /// Delivers until `rx` ends and nothing is open, or until `shutdown`, which drops what is under way: the outbox still has
    /// it. One [`Outcome`] per entry goes to `done`, when every endpoint is done with it.
    pub async fn run(
        self,
        mut rx: mpsc::Receiver<Delivery>,
        done: mpsc::Sender<Outcome>,
        gate: Gate,
        shutdown: CancellationToken,
    ) {
        let limit = self.options.max_pending.max(1);
        let (finished, mut reports) = mpsc::channel(limit);
        let (inputs, workers) = self.workers(&finished, &gate, &shutdown, limit);
        drop(finished);
        let workers = tokio::spawn(join_all(workers));
        let mut fan_out = FanOut { inputs, open: BTreeMap::new(), done, progress: self.progress.clone() };
        let mut drain = self.drain.subscribe();
        let mut ended = false;
        while !(ended && fan_out.open.is_empty()) {
            let may_take = !ended && fan_out.open.len() < limit;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(report) = reports.recv() => fan_out.settle(report).await,
                next = rx.recv(), if may_take => match next {
                    Some(delivery) => fan_out.accept(delivery).await,
                    None => ended = true,
                },
                // Last in order: by now everything sent before the drain began has been taken.
                true = begun(&mut drain), if (may_take || ended) && !fan_out.is_draining() => {
                    fan_out.progress.send_modify(|progress| progress.draining = true);
                }
            }
        }
        drop(fan_out);
        if let Err(error) = workers.await {
            tracing::error!(%error, "webhook worker failed");
        }
    }

    fn workers(
        &self,
        finished: &mpsc::Sender<Finished>,
        gate: &Gate,
        shutdown: &CancellationToken,
        limit: usize,
    ) -> (Vec<mpsc::Sender<Arc<Delivery>>>, Vec<impl Future<Output = ()> + use<>>) {
        let make = |(index, endpoint): (usize, &Arc<Endpoint>)| {
            // Holds all open entries, so handing one over never waits for a slow endpoint.
            let (input, entries) = mpsc::channel(limit);
            let worker = Worker {
                index,
                endpoint: Arc::clone(endpoint),
                transport: Arc::clone(endpoint.own.as_ref().unwrap_or(&self.transport)),
                metrics: self.metrics.clone(),
                clock: self.options.clock.clone(),
                gate: gate.clone(),
                finished: finished.clone(),
                shutdown: shutdown.clone(),
                seed: self.options.seed.wrapping_add(index as u64),
                map: self.options.map.clone(),
                switch: self.switchboard.switch(endpoint.name()),
            };
            (input, worker.run(entries, self.drain.subscribe()))
        };
        self.endpoints.iter().enumerate().map(make).unzip()
    }
}

/// Drains a running [`Deliverer`].
#[derive(Debug, Clone)]
pub struct DrainHandle {
    drain: watch::Sender<bool>,
    progress: watch::Receiver<Progress>,
}

impl DrainHandle {
    /// Tries everything open again at once, then quickly, until nothing is open or `limit` has passed; returns how many
    /// entries are still open (they stay in the outbox). Send the last entries before calling it. A gate that is shut and
    /// a receiver's `Retry-After` still hold.
    pub async fn finish(mut self, limit: Duration) -> usize {
        self.drain.send_replace(true);
        let empty = self.progress.wait_for(|progress| progress.draining && progress.open == 0);
        if matches!(tokio::time::timeout(limit, empty).await, Ok(Ok(_))) {
            return 0;
        }
        // The limit passed, or the deliverer ended.
        self.progress.borrow().open
    }
}

/// Resolves to true when a drain has begun, to false when none can any more.
async fn begun(drain: &mut watch::Receiver<bool>) -> bool {
    drain.wait_for(|draining| *draining).await.is_ok()
}

/// The entries open and what each still waits for.
struct FanOut {
    inputs: Vec<mpsc::Sender<Arc<Delivery>>>,
    open: BTreeMap<String, Open>,
    done: mpsc::Sender<Outcome>,
    progress: watch::Sender<Progress>,
}

struct Open {
    missing: usize,
    /// The first configured endpoint that dropped it, and why.
    dropped: Option<(usize, DropReason)>,
}

impl FanOut {
    async fn accept(&mut self, delivery: Delivery) {
        if self.inputs.is_empty() {
            if !delivery.past {
                drop(self.done.send(Outcome::Delivered { id: delivery.id }).await);
            }
            return;
        }
        if delivery.past {
            return self.hand_out(Arc::new(delivery)).await;
        }
        match self.open.entry(delivery.id.clone()) {
            Entry::Occupied(_) => {
                tracing::debug!(id = %delivery.id, "webhook entry is under way already");
                return;
            }
            Entry::Vacant(place) => place.insert(Open { missing: self.inputs.len(), dropped: None }),
        };
        self.show();
        self.hand_out(Arc::new(delivery)).await;
    }

    async fn hand_out(&self, delivery: Arc<Delivery>) {
        for input in &self.inputs {
            // A worker ends before its input does only on shutdown.
            drop(input.send(Arc::clone(&delivery)).await);
        }
    }

    async fn settle(&mut self, report: Finished) {
        let Entry::Occupied(mut place) = self.open.entry(report.id) else { return };
        let open = place.get_mut();
        open.missing = open.missing.saturating_sub(1);
        if let Some(reason) = report.dropped {
            let this = (report.endpoint, reason);
            open.dropped = Some(open.dropped.map_or(this, |other| other.min(this)));
        }
        if open.missing > 0 {
            return;
        }
        let (id, open) = place.remove_entry();
        let outcome = match open.dropped {
            Some((_, reason)) => Outcome::Dropped { id, reason },
            None => Outcome::Delivered { id },
        };
        // The outbox's owner went away first: it still has the entry.
        drop(self.done.send(outcome).await);
        self.show();
    }

    fn is_draining(&self) -> bool {
        self.progress.borrow().draining
    }

    fn show(&self) {
        self.progress.send_modify(|progress| progress.open = self.open.len());
    }
}

/// Sends one entry once, now, whatever the gate and without retries: for `webhook test`. Returns the receiver's status.
///
/// # Errors
/// [`SendError::Refused`] with what happened when the answer was not 2xx; [`SendError::Setup`] without an HTTP client.
pub async fn send_once(endpoint: &Endpoint, delivery: &Delivery) -> Result<u16, SendError> {
    let clock = WallClock::system();
    let transport: Arc<dyn Transport> = match &endpoint.own {
        Some(own) => Arc::clone(own),
        None => Arc::new(HttpTransport::new(clock.clone(), endpoint.url.scheme() == "https")?),
    };
    let attempt = match request(endpoint, delivery, &Known { first: true, before: None }, clock.now_ms()).await {
        Ok(request) => Attempt::of(transport.post(request).await),
        Err(unsendable) => unsendable,
    };
    match attempt {
        Attempt::Accepted(status) => Ok(status),
        attempt => Err(SendError::Refused { name: endpoint.name().to_owned(), attempt }),
    }
}
