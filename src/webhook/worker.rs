//! One endpoint's task: takes entries, sends them, tries again, gives up.
//!
//! Up to the endpoint's concurrency requests are under way, each of another incident. A `Retry-After` holds the whole endpoint,
//! since it speaks of the receiver and not of one entry; other failures hold only their incident. A receiver that forgets what
//! is open is told it again, alone, so that what is over cannot be overtaken by what was open. Ends when its input ends and
//! nothing is left, or at once on shutdown: what is left then is still in the committed outbox.

use std::sync::Arc;
use std::time::Duration;

use flowshift_proto::anomaly::EventType;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, Known, request, request_again};
use super::filter::Map;
use super::format::KEPT_OPEN;
use super::memory::{Choice, Memory};
use super::queue::{Item, Queue};
use super::switch::Switch;
use super::transport::Request;
use super::{Delivery, Disabled, DropReason, Endpoint, Gate, Schedule, Transport, UrlDigest, WallClock};
use crate::metrics::pipeline::Share;
use crate::metrics::webhook::WebhookMetrics;

/// An endpoint is done with an entry.
#[derive(Debug)]
pub(super) struct Finished {
    /// Which endpoint, by its place in the configuration.
    pub(super) endpoint: usize,
    /// The entry's id.
    pub(super) id: String,
    /// `None` = delivered.
    pub(super) dropped: Option<DropReason>,
}

/// The oldest entry's age is shown anew at least this often.
const SHOW_AGE_EVERY: Duration = Duration::from_secs(10);
/// How often a receiver that forgets is told what is open; several times within what it is told to keep.
const AGAIN_EVERY: Duration = Duration::from_secs(60);
const _: () = assert!(AGAIN_EVERY.as_secs() * 3 < KEPT_OPEN.as_secs());

/// A task for one endpoint; see the module.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) metrics: WebhookMetrics,
    pub(super) clock: WallClock,
    pub(super) gate: Gate,
    pub(super) finished: mpsc::Sender<Finished>,
    pub(super) shutdown: CancellationToken,
    pub(super) seed: u64,
    pub(super) map: Map,
    pub(super) switch: Switch,
}

/// What changes while the task runs.
struct State {
    queue: Queue,
    chance: SmallRng,
    memory: Memory,
    /// Nothing is sent before.
    hold_until: Instant,
    /// When what is open is told again.
    again_at: Instant,
    /// It is being told now, and nothing else.
    telling_again: bool,
    draining: bool,
    /// Shown as disabled while this owner delivers.
    disabled: Share,
}

/// An ended request.
struct Sent {
    /// None: it told again what is open.
    item: Option<Item>,
    attempt: Attempt,
    took: Duration,
    /// Of the URL it went to; none when there was no request.
    url: Option<UrlDigest>,
}

type Sending = FuturesUnordered<BoxFuture<'static, Sent>>;

impl Worker {
    pub(super) async fn run(self, mut input: mpsc::Receiver<Arc<Delivery>>, mut drain: watch::Receiver<bool>) {
        let mut state = State {
            queue: Queue::default(),
            chance: SmallRng::seed_from_u64(self.seed),
            memory: Memory::default(),
            hold_until: Instant::now(),
            again_at: Instant::now(),
            telling_again: false,
            draining: false,
            disabled: Share::of(&self.metrics.disabled.with_label_values(&[self.endpoint.name()])),
        };
        let mut switched = self.switch.watch();
        // An earlier owner's word may have been taken over before this began.
        self.show_switch(&mut state);
        let mut sending = Sending::new();
        let mut ended = false;
        loop {
            if *drain.borrow_and_update() && !state.draining {
                state.draining = true;
                state.queue.hurry(Instant::now());
            }
            self.give_up_expired(&mut state).await;
            self.start(&mut state, &sending);
            self.show(&state);
            if ended && state.queue.len() == 0 {
                return;
            }
            let wake = self.wake_at(&state, sending.len());
            let gate_shut = !self.gate.is_fresh();
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                Some(sent) = sending.next() => self.settle(&mut state, sent).await,
                next = input.recv(), if !ended => match next {
                    Some(delivery) => {
                        self.accept(&mut state, delivery).await;
                        // A turn costs a walk over the queue: take all there is in one.
                        while let Ok(more) = input.try_recv() {
                            self.accept(&mut state, more).await;
                        }
                    }
                    None => ended = true,
                },
                Ok(()) = drain.changed(), if !state.draining => {}
                Ok(()) = switched.changed() => self.show_switch(&mut state),
                () = self.gate.wait_fresh(), if gate_shut && state.queue.len() > 0 => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn accept(&self, state: &mut State, delivery: Arc<Delivery>) {
        let places = self.map.places();
        if delivery.past {
            return state.memory.recall(&self.endpoint, &delivery, &places);
        }
        if self.switch.is_disabled() {
            if !self.switch.enable_at(self.endpoint.present_url_digest().await) {
                return self.finish(&delivery, Some(DropReason::Disabled)).await;
            }
            tracing::info!(endpoint = self.endpoint.name(), "webhook endpoint has another url and is enabled");
        }
        let first = match state.memory.choose(&self.endpoint, &delivery, &places) {
            Choice::Send { first } => first,
            Choice::Muted => return self.end(&delivery, None, "muted").await,
            Choice::Filtered => return self.end(&delivery, None, "filtered").await,
        };
        let now = Instant::now();
        let age_ms = self.clock.now_ms().saturating_sub(delivery.created_ms);
        // A clock that stepped back makes an entry from the future: it counts as new.
        let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
        let expires = now + self.endpoint.max_age.saturating_sub(age);
        if let Some(older) = state.queue.push(delivery, first, now, expires) {
            self.end(&older, None, "superseded").await;
        }
    }

    async fn give_up_expired(&self, state: &mut State) {
        for delivery in state.queue.expire(Instant::now()) {
            tracing::error!(endpoint = self.endpoint.name(), id = %delivery.id, "webhook entry expired");
            if delivery.kind() == Some(EventType::Resolved) {
                state.memory.given(&self.endpoint, &delivery);
            }
            self.finish(&delivery, Some(DropReason::Expired)).await;
        }
    }

    /// Starts every request that may start now.
    fn start(&self, state: &mut State, sending: &Sending) {
        let now = Instant::now();
        if now < state.hold_until || state.telling_again {
            return;
        }
        if self.is_due_again(state, now) {
            // Alone: what is under way ends first.
            if sending.is_empty() && self.gate.is_fresh() {
                state.telling_again = true;
                sending.push(self.tell_again(state.memory.open()));
            }
            return;
        }
        while sending.len() < self.endpoint.concurrency && now >= state.hold_until && self.gate.is_fresh() {
            let Some(item) = state.queue.take(now) else { return };
            if !self.endpoint.min_interval.is_zero() {
                state.hold_until = now + self.endpoint.min_interval;
            }
            let known = Known { first: item.first, before: state.memory.before(&item.delivery.incident).cloned() };
            sending.push(self.send(item, known));
        }
    }

    fn is_due_again(&self, state: &State, now: Instant) -> bool {
        now >= state.again_at && !state.memory.is_empty() && !state.draining && !self.switch.is_disabled()
    }

    fn send(&self, item: Item, known: Known) -> BoxFuture<'static, Sent> {
        let (transport, endpoint) = (Arc::clone(&self.transport), Arc::clone(&self.endpoint));
        let now_ms = self.clock.now_ms();
        Box::pin(async move {
            let started = Instant::now();
            let request = request(&endpoint, &item.delivery, &known, now_ms).await;
            let (attempt, url) = attempt(&*transport, request).await;
            Sent { item: Some(item), attempt, took: started.elapsed(), url }
        })
    }

    fn tell_again(&self, open: Vec<Arc<Delivery>>) -> BoxFuture<'static, Sent> {
        let (transport, endpoint) = (Arc::clone(&self.transport), Arc::clone(&self.endpoint));
        let now_ms = self.clock.now_ms();
        Box::pin(async move {
            let started = Instant::now();
            let request = request_again(&endpoint, &open, now_ms).await;
            let (attempt, url) = attempt(&*transport, request).await;
            Sent { item: None, attempt, took: started.elapsed(), url }
        })
    }

    async fn settle(&self, state: &mut State, Sent { item, attempt, took, url }: Sent) {
        let name = self.endpoint.name();
        self.metrics.attempts.with_label_values(&[name, attempt.label()]).inc();
        self.metrics.attempt_seconds.with_label_values(&[name]).observe(took.as_secs_f64());
        if attempt == Attempt::Gone {
            // Before anything is reported: whoever commits the entry's end commits this with it.
            self.switch_off(item.as_ref(), url);
            self.show_switch(state);
        }
        let Some(item) = item else { return self.told_again(state, &attempt).await };
        let dropped = match attempt {
            Attempt::Accepted(_) => None,
            Attempt::Gone => Some(DropReason::Disabled),
            Attempt::Unsendable(_) => Some(DropReason::Unsendable),
            // Was under way when another entry got 410.
            _ if self.switch.is_disabled() => Some(DropReason::Disabled),
            failed => return self.try_later(state, item, &failed),
        };
        state.queue.done(&item);
        if let Some(reason) = dropped {
            tracing::error!(endpoint = name, id = %item.delivery.id, %attempt, "webhook entry dropped");
            self.finish(&item.delivery, Some(reason)).await;
        } else {
            state.memory.given(&self.endpoint, &item.delivery);
            self.finish(&item.delivery, None).await;
        }
        if dropped == Some(DropReason::Disabled) {
            self.drop_all(state).await;
        }
    }

    async fn told_again(&self, state: &mut State, attempt: &Attempt) {
        let now = Instant::now();
        state.telling_again = false;
        state.again_at = now + AGAIN_EVERY;
        match attempt {
            Attempt::Accepted(_) => {}
            Attempt::Gone => self.drop_all(state).await,
            failed => {
                self.heed(state, failed, now);
                tracing::warn!(endpoint = self.endpoint.name(), %attempt, "open incidents could not be told again");
            }
        }
    }

    /// A receiver may hold its queue, but not longer than the entries live.
    fn heed(&self, state: &mut State, attempt: &Attempt, now: Instant) -> Option<Duration> {
        let wish = attempt.retry_after()?.min(self.endpoint.max_age);
        state.hold_until = state.hold_until.max(now + wish);
        Some(wish)
    }

    fn try_later(&self, state: &mut State, item: Item, attempt: &Attempt) {
        let now = Instant::now();
        let drain_schedule = state.draining.then(Schedule::draining);
        let schedule = drain_schedule.as_ref().unwrap_or(&self.endpoint.schedule);
        let mut delay = schedule.delay(item.failures.saturating_add(1), state.chance.random::<f64>());
        if let Some(wish) = self.heed(state, attempt, now) {
            delay = delay.max(wish);
        }
        tracing::warn!(
            endpoint = self.endpoint.name(),
            id = %item.delivery.id,
            incident = %item.delivery.incident,
            sequence = item.delivery.sequence,
            failures = item.failures + 1,
            retry_in_seconds = delay.as_secs_f64(),
            %attempt,
            "webhook delivery failed"
        );
        state.queue.put_back(item, now + delay);
    }

    fn switch_off(&self, item: Option<&Item>, url: Option<UrlDigest>) {
        let disabled = Disabled {
            since_ms: self.clock.now_ms(),
            event: item.map(|item| item.delivery.id.clone()),
            url: url.unwrap_or_else(|| self.endpoint.url_digest()),
        };
        if self.switch.disable(disabled) {
            tracing::error!(endpoint = self.endpoint.name(), "webhook endpoint answered 410 and gets nothing more");
        }
    }

    async fn drop_all(&self, state: &mut State) {
        for delivery in state.queue.clear() {
            self.finish(&delivery, Some(DropReason::Disabled)).await;
        }
    }

    fn show_switch(&self, state: &mut State) {
        state.disabled.set(i64::from(self.switch.is_disabled()));
    }

    async fn finish(&self, delivery: &Delivery, dropped: Option<DropReason>) {
        self.end(delivery, dropped, dropped.map_or("delivered", DropReason::as_str)).await;
    }

    async fn end(&self, delivery: &Delivery, dropped: Option<DropReason>, outcome: &str) {
        self.metrics.deliveries.with_label_values(&[self.endpoint.name(), outcome]).inc();
        crash_point!("webhook::before_done");
        let finished = Finished { endpoint: self.index, id: delivery.id.clone(), dropped };
        // The receiving side is gone only when the whole deliverer is: then the outbox keeps the entry.
        drop(self.finished.send(finished).await);
    }

    fn show(&self, state: &State) {
        let name = [self.endpoint.name()];
        self.metrics.queue_length.with_label_values(&name).set(i64::try_from(state.queue.len()).unwrap_or(i64::MAX));
        let age_ms = state.queue.oldest_created_ms().map_or(0, |created| self.clock.now_ms().saturating_sub(created));
        self.metrics.oldest_age.with_label_values(&name).set(age_ms.max(0) as f64 / 1_000.0);
    }

    /// When to look again even if nothing happens.
    fn wake_at(&self, state: &State, under_way: usize) -> Instant {
        let mut wake = Instant::now() + SHOW_AGE_EVERY;
        if let Some(expiry) = state.queue.next_expiry() {
            wake = wake.min(expiry);
        }
        // With all places taken or the gate shut it is not time that lets the next one start.
        if under_way < self.endpoint.concurrency && self.gate.is_fresh() && !state.telling_again {
            if let Some(due) = state.queue.next_due() {
                wake = wake.min(due.max(state.hold_until));
            }
            if !state.memory.is_empty() && !state.draining && !self.switch.is_disabled() && under_way == 0 {
                wake = wake.min(state.again_at.max(state.hold_until));
            }
        }
        wake
    }
}

/// Makes a request, unless it could not be written.
async fn attempt(transport: &dyn Transport, request: Result<Request, Attempt>) -> (Attempt, Option<UrlDigest>) {
    match request {
        Ok(request) => {
            let url = UrlDigest::of(&request.url);
            (Attempt::of(transport.post(request).await), Some(url))
        }
        Err(unsendable) => (unsendable, None),
    }
}
