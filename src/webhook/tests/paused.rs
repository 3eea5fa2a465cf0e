//! Schedules, order, expiry and the gate, in paused time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;

pub(super) const T0_MS: i64 = 1_795_310_538_000;
pub(super) const OK: Step = Step::Answer(200, None);

/// What a receiver does with one request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Answer(u16, Option<u64>),
    Fail,
    /// Answers with a status after that many seconds.
    Slow(u64, u16),
}

/// A request as the receiver saw it: milliseconds since the start, host, id, timestamp.
pub(super) type Seen = (u64, String, String, i64);

/// Answers by host from a script; after its end always 200.
#[derive(Debug)]
pub(super) struct Script {
    started: Instant,
    steps: Mutex<BTreeMap<String, Vec<Step>>>,
    seen: Mutex<Vec<Seen>>,
    pub(super) bodies: Mutex<Vec<serde_json::Value>>,
}

impl Script {
    pub(super) fn new(hosts: &[(&str, &[Step])]) -> Arc<Self> {
        let steps = hosts.iter().map(|(host, steps)| ((*host).to_owned(), steps.iter().rev().copied().collect()));
        Arc::new(Self {
            started: Instant::now(),
            steps: Mutex::new(steps.collect()),
            seen: Mutex::new(Vec::new()),
            bodies: Mutex::default(),
        })
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Seconds of all requests for an id.
    fn seconds_of(&self, id: &str) -> Vec<u64> {
        self.seen().iter().filter(|seen| seen.2 == id).map(|seen| seen.0 / 1_000).collect()
    }
}

impl Transport for Script {
    fn post(&self, request: Request) -> BoxFuture<'_, Result<Reply, TransportError>> {
        let host = request.url.host_str().unwrap().to_owned();
        let text = |name: &str| request.headers[name].to_str().unwrap().to_owned();
        let at = u64::try_from(self.started.elapsed().as_millis()).unwrap();
        // Only signed formats have one.
        let timestamp = request.headers.get("webhook-timestamp").map_or(0, |t| t.to_str().unwrap().parse().unwrap());
        let id = if request.headers.contains_key("webhook-id") { text("webhook-id") } else { "again".to_owned() };
        self.seen.lock().unwrap().push((at, host.clone(), id, timestamp));
        self.bodies.lock().unwrap().push(serde_json::from_slice(&request.body).unwrap_or_default());
        let step = self.steps.lock().unwrap().get_mut(&host).and_then(Vec::pop).unwrap_or(OK);
        Box::pin(async move {
            match step {
                Step::Answer(status, wish) => Ok(Reply { status, retry_after: wish.map(Duration::from_secs) }),
                Step::Fail => Err(TransportError::Unreachable("connection reset".to_owned())),
                Step::Slow(seconds, status) => {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    Ok(Reply { status, retry_after: None })
                }
            }
        })
    }
}

pub(super) fn options() -> Options {
    let started = Instant::now();
    let now_ms = move || T0_MS + i64::try_from(started.elapsed().as_millis()).unwrap();
    Options { clock: WallClock::from_fn(now_ms), seed: 7, max_pending: 100, ..Options::default() }
}

fn start(script: &Arc<Script>, names: &[&str], metrics: &Metrics, gate: Gate) -> Running {
    let endpoints = names.iter().map(|name| endpoint(name, &format!("http://{name}/hook"))).collect();
    let deliverer = Deliverer::with_transport(endpoints, metrics.webhook.clone(), script.clone(), options()).unwrap();
    run(deliverer, gate)
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_by_the_schedule_with_the_same_id_and_a_new_timestamp() {
    let failing = [Step::Answer(500, None), Step::Fail, Step::Answer(302, None), Step::Answer(404, None), Step::Fail];
    let script = Script::new(&[("ops", &failing)]);
    let mut running = start(&script, &["ops"], &metrics(), Gate::open());
    running.entries.send(entry("a", 1, T0_MS)).await.unwrap();
    assert_eq!(running.outcomes.recv().await, Some(delivered("a-1")));
    let seen = script.seen();
    assert_eq!(seen.len(), 6);
    for (pair, expected) in seen.windows(2).zip([5, 30, 120, 600, 1_800]) {
        let (gap, expected) = (pair[1].0 - pair[0].0, expected * 1_000);
        assert!(gap * 10 >= expected * 9 && gap * 10 <= expected * 11, "gap {gap} ms, expected {expected} ms");
    }
    for (at, _, id, timestamp) in &seen {
        assert_eq!(id, "a-1");
        assert_eq!(*timestamp, T0_MS / 1_000 + i64::try_from(at / 1_000).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_incident_keeps_its_order_and_does_not_hold_the_others() {
    let script = Script::new(&[("ops", &[Step::Fail])]);
    let mut running = start(&script, &["ops"], &metrics(), Gate::open());
    for (incident, sequence) in [("a", 1), ("a", 2), ("b", 1)] {
        running.entries.send(entry(incident, sequence, T0_MS)).await.unwrap();
    }
    let mut order = Vec::new();
    for _ in 0..3 {
        order.push(running.outcomes.recv().await.unwrap());
    }
    assert_eq!(order, [delivered("b-1"), delivered("a-1"), delivered("a-2")]);
    let ids = script.seen().into_iter().map(|seen| seen.2).collect::<Vec<_>>();
    assert_eq!(ids, ["a-1", "b-1", "a-1", "a-2"]);
}

#[tokio::test(start_paused = true)]
async fn retry_after_holds_the_whole_endpoint_but_not_another() {
    let script = Script::new(&[("ops", &[Step::Answer(429, Some(90))])]);
    let mut running = start(&script, &["ops", "audit"], &metrics(), Gate::open());
    running.entries.send(entry("a", 1, T0_MS)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.entries.send(entry("b", 1, T0_MS)).await.unwrap();
    assert!(running.outcomes.recv().await.is_some() && running.outcomes.recv().await.is_some());
    let of = |host: &str| script.seen().into_iter().filter(|s| s.1 == host).map(|s| s.0 / 1_000).collect::<Vec<_>>();
    assert_eq!(of("ops"), [0, 90, 90]);
    assert_eq!(of("audit"), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn gone_disables_the_endpoint_and_the_entry_ends_when_the_other_endpoint_has_it() {
    let script = Script::new(&[("ops", &[Step::Answer(410, None)]), ("audit", &[Step::Fail])]);
    let metrics = metrics();
    let mut running = start(&script, &["ops", "audit"], &metrics, Gate::open());
    for sequence in [1, 2] {
        running.entries.send(entry("a", sequence, T0_MS)).await.unwrap();
    }
    assert_eq!(running.outcomes.recv().await, Some(dropped("a-1", DropReason::Disabled)));
    assert_eq!(running.outcomes.recv().await, Some(dropped("a-2", DropReason::Disabled)));
    assert_eq!(script.seen().iter().filter(|seen| seen.1 == "ops").count(), 1);
    assert_eq!(script.seen().iter().filter(|seen| seen.1 == "audit").count(), 3);
    let text = metrics.to_text().unwrap();
    for line in [
        "flowshift_webhook_endpoint_disabled{endpoint=\"ops\"} 1",
        "flowshift_webhook_endpoint_disabled{endpoint=\"audit\"} 0",
        "flowshift_webhook_deliveries_total{endpoint=\"ops\",outcome=\"disabled\"} 2",
        "flowshift_webhook_deliveries_total{endpoint=\"audit\",outcome=\"delivered\"} 2",
        "flowshift_webhook_attempts_total{endpoint=\"audit\",outcome=\"unreachable\"} 1",
    ] {
        assert!(text.contains(line), "no line {line} in:\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_when_the_endpoint_was_disabled_is_not_tried_again() {
    let script = Script::new(&[("ops", &[Step::Slow(2, 500), Step::Answer(410, None)])]);
    let mut running = start(&script, &["ops"], &metrics(), Gate::open());
    for (incident, sequence) in [("a", 1), ("b", 1), ("a", 2)] {
        running.entries.send(entry(incident, sequence, T0_MS)).await.unwrap();
    }
    let mut ends = Vec::new();
    for _ in 0..3 {
        ends.push(running.outcomes.recv().await.unwrap());
    }
    assert_eq!(ends, ["b-1", "a-2", "a-1"].map(|id| dropped(id, DropReason::Disabled)));
    assert_eq!(script.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_dropped_when_it_gets_too_old_and_its_successor_goes_on() {
    let script = Script::new(&[("ops", &[Step::Fail; 60])]);
    let mut running = start(&script, &["ops"], &metrics(), Gate::open());
    let hour_ms = 3_600_000;
    running.entries.send(entry("a", 1, T0_MS - 23 * hour_ms)).await.unwrap();
    running.entries.send(entry("b", 1, T0_MS - 25 * hour_ms)).await.unwrap();
    assert_eq!(running.outcomes.recv().await, Some(dropped("b-1", DropReason::Expired)));
    assert_eq!(running.outcomes.recv().await, Some(dropped("a-1", DropReason::Expired)));
    assert_eq!(script.started.elapsed().as_secs(), 3_600);
    assert!(script.seconds_of("b-1").is_empty(), "an expired entry was sent");
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_while_the_lease_is_not_fresh() {
    let (renewed, last) = watch::channel(None);
    let script = Script::new(&[]);
    let mut running = start(&script, &["ops"], &metrics(), Gate::renewal(last, Duration::from_secs(5)));
    running.entries.send(entry("a", 1, T0_MS)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(script.seen().is_empty());
    renewed.send(Some(Instant::now())).unwrap();
    assert_eq!(running.outcomes.recv().await, Some(delivered("a-1")));
    tokio::time::sleep(Duration::from_secs(5)).await;
    running.entries.send(entry("a", 2, T0_MS)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(script.seen().len(), 1, "sent on a stale lease");
}

#[tokio::test(start_paused = true)]
async fn a_drain_tries_waiting_entries_at_once_and_says_when_it_is_empty() {
    let script = Script::new(&[("ops", &[Step::Fail, Step::Fail, Step::Fail])]);
    let running = start(&script, &["ops"], &metrics(), Gate::open());
    running.entries.send(entry("a", 1, T0_MS)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(script.seen().len(), 2, "waits for its 30 s");
    assert_eq!(running.drain.clone().finish(Duration::from_secs(20)).await, 0);
    assert_eq!(script.seen().len(), 4);
    assert!(script.started.elapsed() < Duration::from_secs(12));
    drop(running.entries);
    running.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_limit_and_counts_what_is_left() {
    let script = Script::new(&[("ops", &[Step::Fail; 1_000])]);
    let running = start(&script, &["ops"], &metrics(), Gate::open());
    for sequence in [1, 2, 3] {
        running.entries.send(entry("a", sequence, T0_MS)).await.unwrap();
    }
    assert_eq!(running.drain.clone().finish(Duration::from_secs(20)).await, 3);
    assert_eq!(script.started.elapsed().as_secs(), 20);
    running.shutdown.cancel();
    running.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_slow_receiver_and_reports_nothing() {
    let script = Script::new(&[("ops", &[Step::Slow(60, 200)])]);
    let mut running = start(&script, &["ops"], &metrics(), Gate::open());
    running.entries.send(entry("a", 1, T0_MS)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.shutdown.cancel();
    running.task.await.unwrap();
    assert_eq!(script.started.elapsed().as_secs(), 1);
    assert_eq!(running.outcomes.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_entry_under_way_is_not_taken_twice() {
    let script = Script::new(&[("ops", &[Step::Slow(3, 200)])]);
    let mut running = start(&script, &["ops"], &metrics(), Gate::open());
    for _ in 0..2 {
        running.entries.send(entry("a", 1, T0_MS)).await.unwrap();
    }
    drop(running.entries);
    running.task.await.unwrap();
    assert_eq!(running.outcomes.recv().await, Some(delivered("a-1")));
    assert_eq!(running.outcomes.recv().await, None);
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_signed_is_dropped_with_its_reason() {
    let script = Script::new(&[]);
    let mut running = start(&script, &["ops"], &metrics(), Gate::open());
    let mut bad = entry("a", 1, T0_MS);
    bad.body = Bytes::from_static(b"\xff");
    running.entries.send(bad).await.unwrap();
    assert_eq!(running.outcomes.recv().await, Some(dropped("a-1", DropReason::Unsendable)));
}

#[tokio::test(start_paused = true)]
async fn without_endpoints_every_entry_is_done_at_once() {
    let mut running = start(&Script::new(&[]), &[], &metrics(), Gate::open());
    running.entries.send(entry("a", 1, T0_MS)).await.unwrap();
    assert_eq!(running.outcomes.recv().await, Some(delivered("a-1")));
}

#[test]
fn two_endpoints_of_one_name_are_refused() {
    let endpoints = vec![endpoint("ops", "http://a.test/"), endpoint("ops", "http://b.test/")];
    let error = Deliverer::new(endpoints, metrics().webhook).unwrap_err();
    assert_eq!(error.to_string(), "two webhooks are named ops");
}

#[tokio::test(start_paused = true)]
async fn a_muted_entry_goes_to_the_endpoint_that_asks_for_such_and_is_done_at_the_others_at_once() {
    let (script, metrics) = (Script::new(&[]), metrics());
    let named = |name: &str| endpoint(name, &format!("http://{name}/hook"));
    let endpoints = vec![named("ops"), named("audit").with_muted(true)];
    let deliverer = Deliverer::with_transport(endpoints, metrics.webhook.clone(), script.clone(), options()).unwrap();
    let mut running = run(deliverer, Gate::open());
    running.entries.send(Delivery { muted: true, ..entry("a", 1, T0_MS) }).await.unwrap();
    assert_eq!(running.outcomes.recv().await, Some(delivered("a-1")));
    running.entries.send(entry("a", 2, T0_MS)).await.unwrap();
    assert_eq!(running.outcomes.recv().await, Some(delivered("a-2")));
    let seen: Vec<_> = script.seen().into_iter().map(|seen| (seen.1, seen.2)).collect();
    let of = |host: &str| seen.iter().filter(|seen| seen.0 == host).map(|seen| seen.1.as_str()).collect::<Vec<_>>();
    assert_eq!((of("ops"), of("audit")), (vec!["a-2"], vec!["a-1", "a-2"]));
    let muted = |name| metrics.webhook.deliveries.with_label_values(&[name, "muted"]).get();
    assert_eq!((muted("ops"), muted("audit")), (1, 0));
}
