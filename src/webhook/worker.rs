//! One endpoint's task: takes entries, sends them, tries again, gives up.
//!
//! Up to the endpoint's concurrency requests are under way, each of another incident. A `Retry-After` holds the whole endpoint,
//! since it speaks of the receiver and not of one entry; other failures hold only their incident. Ends when its input ends
//! and nothing is left, or at once on shutdown: what is left then is still in the committed outbox.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, request};
use super::queue::{Item, Queue};
use super::{Delivery, DropReason, Endpoint, Gate, Schedule, Transport, WallClock};
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
}

/// What changes while the task runs.
struct State {
    queue: Queue,
    chance: SmallRng,
    /// Nothing is sent before.
    hold_until: Instant,
    /// The endpoint answered 410.
    disabled: bool,
    draining: bool,
}

type Sending = FuturesUnordered<BoxFuture<'static, (Item, Attempt, Duration)>>;

impl Worker {
    pub(super) async fn run(self, mut input: mpsc::Receiver<Arc<Delivery>>, mut drain: watch::Receiver<bool>) {
        let mut state = State {
            queue: Queue::default(),
            chance: SmallRng::seed_from_u64(self.seed),
            hold_until: Instant::now(),
            disabled: false,
            draining: false,
        };
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
                Some((item, attempt, took)) = sending.next() => self.settle(&mut state, item, attempt, took).await,
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
                () = self.gate.wait_fresh(), if gate_shut && state.queue.len() > 0 => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn accept(&self, state: &mut State, delivery: Arc<Delivery>) {
        if state.disabled {
            self.finish(&delivery, Some(DropReason::Disabled)).await;
            return;
        }
        if delivery.muted && !self.endpoint.muted {
            self.end(&delivery, None, "muted").await;
            return;
        }
        let now = Instant::now();
        let age_ms = self.clock.now_ms().saturating_sub(delivery.created_ms);
        // A clock that stepped back makes an entry from the future: it counts as new.
        let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
        state.queue.push(delivery, now, now + self.endpoint.max_age.saturating_sub(age));
    }

    async fn give_up_expired(&self, state: &mut State) {
        for delivery in state.queue.expire(Instant::now()) {
            self.finish(&delivery, Some(DropReason::Expired)).await;
        }
    }

    /// Starts every request that may start now.
    fn start(&self, state: &mut State, sending: &Sending) {
        let now = Instant::now();
        if now < state.hold_until {
            return;
        }
        while sending.len() < self.endpoint.concurrency && self.gate.is_fresh() {
            let Some(item) = state.queue.take(now) else { return };
            let made = request(&self.endpoint, &item.delivery, self.clock.now_ms());
            let transport = Arc::clone(&self.transport);
            sending.push(Box::pin(async move {
                let started = Instant::now();
                let attempt = match made {
                    Ok(request) => Attempt::of(transport.post(request).await),
                    Err(unsendable) => unsendable,
                };
                (item, attempt, started.elapsed())
            }));
        }
    }

    async fn settle(&self, state: &mut State, item: Item, attempt: Attempt, took: Duration) {
        let name = self.endpoint.name();
        self.metrics.attempts.with_label_values(&[name, attempt.label()]).inc();
        self.metrics.attempt_seconds.with_label_values(&[name]).observe(took.as_secs_f64());
        let dropped = match attempt {
            Attempt::Accepted(_) => None,
            Attempt::Gone => Some(DropReason::Disabled),
            Attempt::Unsendable(_) => Some(DropReason::Unsendable),
            // Was under way when another entry got 410.
            _ if state.disabled => Some(DropReason::Disabled),
            failed => return self.try_later(state, item, &failed),
        };
        state.queue.done(&item);
        if let Some(reason) = dropped {
            tracing::error!(endpoint = name, id = %item.delivery.id, %attempt, "webhook entry dropped");
            self.finish(&item.delivery, Some(reason)).await;
        } else {
            self.finish(&item.delivery, None).await;
        }
        if dropped == Some(DropReason::Disabled) {
            self.disable(state).await;
        }
    }

    fn try_later(&self, state: &mut State, item: Item, attempt: &Attempt) {
        let now = Instant::now();
        let drain_schedule = state.draining.then(Schedule::draining);
        let schedule = drain_schedule.as_ref().unwrap_or(&self.endpoint.schedule);
        let mut delay = schedule.delay(item.failures.saturating_add(1), state.chance.random::<f64>());
        if let Some(wish) = attempt.retry_after() {
            // A receiver may not hold its queue longer than the entries live.
            let wish = wish.min(self.endpoint.max_age);
            state.hold_until = state.hold_until.max(now + wish);
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

    async fn disable(&self, state: &mut State) {
        if !state.disabled {
            state.disabled = true;
            self.metrics.disabled.with_label_values(&[self.endpoint.name()]).set(1);
            tracing::error!(endpoint = self.endpoint.name(), "webhook endpoint answered 410 and gets nothing more");
        }
        for delivery in state.queue.clear() {
            self.finish(&delivery, Some(DropReason::Disabled)).await;
        }
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
        if under_way < self.endpoint.concurrency
            && self.gate.is_fresh()
            && let Some(due) = state.queue.next_due()
        {
            wake = wake.min(due.max(state.hold_until));
        }
        wake
    }
}
