//! Who is told what: filters over the life of an incident, updates that collapse, receivers that forget, switches.

use std::sync::Arc;
use std::time::Duration;

use EventType::{Opened, Resolved, Updated};
use Severity::{S1, S3};

use super::paused::{OK, Script, Step, T0_MS, options};
use super::*;

const FLOOR: Filter = Filter {
    min_severity: Some(Severity::S2),
    signals: std::collections::BTreeSet::new(),
    verdicts: std::collections::BTreeSet::new(),
    subnets: Vec::new(),
    azs: std::collections::BTreeSet::new(),
};

fn start(script: &Arc<Script>, endpoints: Vec<Endpoint>, metrics: &Metrics, options: Options) -> Running {
    let deliverer = Deliverer::with_transport(endpoints, metrics.webhook.clone(), script.clone(), options).unwrap();
    run(deliverer, Gate::open())
}

fn ops() -> Endpoint {
    endpoint("ops", "http://ops/hook")
}

fn alertmanager() -> Endpoint {
    Endpoint::new("ops", "http://ops/api/v2/alerts", KeyStore::none(Format::Alertmanager)).unwrap()
}

fn past(delivery: Delivery) -> Delivery {
    Delivery { past: true, ..delivery }
}

async fn all_done(running: &mut Running, entries: Vec<Delivery>) {
    let count = entries.iter().filter(|entry| !entry.past).count();
    for entry in entries {
        running.entries.send(entry).await.unwrap();
    }
    for _ in 0..count {
        assert!(matches!(running.outcomes.recv().await, Some(Outcome::Delivered { .. })));
    }
}

fn ids(script: &Script) -> Vec<String> {
    script.seen().into_iter().map(|seen| seen.2).collect()
}

fn count(metrics: &Metrics, outcome: &str) -> u64 {
    metrics.webhook.deliveries.with_label_values(&["ops", outcome]).get()
}

#[tokio::test(start_paused = true)]
async fn an_incident_that_was_told_is_told_to_its_end_and_one_below_the_filter_is_not_told() {
    let (script, metrics) = (Script::new(&[]), metrics());
    let mut running = start(&script, vec![ops().with_filter(FLOOR)], &metrics, options());
    let entries = vec![
        told("mild", 1, Opened, S3, T0_MS),
        told("bad", 1, Opened, S1, T0_MS),
        told("worse", 1, Opened, S3, T0_MS),
        told("worse", 2, Updated, S1, T0_MS),
        told("mild", 2, Resolved, S3, T0_MS),
        told("bad", 2, Resolved, S3, T0_MS),
        // It opens again below the filter.
        told("bad", 3, Opened, S3, T0_MS),
        told("worse", 3, Resolved, S3, T0_MS),
    ];
    for entry in entries {
        all_done(&mut running, vec![entry]).await;
    }
    assert_eq!(ids(&script), ["bad-1", "worse-2", "bad-2", "worse-3"]);
    assert_eq!((count(&metrics, "delivered"), count(&metrics, "filtered")), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn a_next_owner_knows_from_what_was_delivered_who_has_to_hear_the_end() {
    let (script, metrics) = (Script::new(&[]), metrics());
    let mut running = start(&script, vec![ops().with_filter(FLOOR)], &metrics, options());
    let entries = vec![
        past(told("bad", 1, Opened, S1, T0_MS)),
        past(told("mild", 1, Opened, S3, T0_MS)),
        told("bad", 2, Resolved, S3, T0_MS),
        told("mild", 2, Resolved, S3, T0_MS),
    ];
    all_done(&mut running, entries).await;
    assert_eq!(ids(&script), ["bad-2"]);
}

#[tokio::test(start_paused = true)]
async fn updates_that_wait_collapse_into_the_last_and_nothing_else_does() {
    let (script, metrics) = (Script::new(&[("ops", &[Step::Fail])]), metrics());
    let mut running = start(&script, vec![ops()], &metrics, options());
    let mut entries = vec![told("a", 1, Opened, S1, T0_MS)];
    entries.extend((2..=4).map(|sequence| told("a", sequence, Updated, S1, T0_MS)));
    entries.push(told("a", 5, Resolved, S1, T0_MS));
    entries.push(told("a", 6, Opened, S1, T0_MS));
    entries.push(told("a", 7, Updated, S1, T0_MS));
    all_done(&mut running, entries).await;
    assert_eq!(ids(&script), ["a-1", "a-1", "a-4", "a-5", "a-6", "a-7"]);
    assert_eq!(count(&metrics, "superseded"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_forgets_is_told_what_is_open_every_minute_until_its_end_and_by_a_next_owner_at_once() {
    let (script, metrics) = (Script::new(&[]), metrics());
    let mut running = start(&script, vec![alertmanager()], &metrics, options());
    running.entries.send(past(told("old", 1, Opened, S1, T0_MS))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ids(&script), ["again"], "state is asserted again after a takeover");
    all_done(&mut running, vec![told("new", 1, Opened, S1, T0_MS)]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ids(&script), ["again", "new-1", "again"]);
    let again = script.bodies.lock().unwrap()[2].clone();
    let incidents: Vec<_> = again.as_array().unwrap().iter().map(|alert| &alert["labels"]["incident"]).collect();
    assert_eq!(incidents, ["new", "old"]);
    assert_eq!(again[0]["endsAt"], flowshift_proto::anomaly::rfc3339(T0_MS / 1_000 + 60 + 300).unwrap());
    for incident in ["old", "new"] {
        all_done(&mut running, vec![told(incident, 2, Resolved, S1, T0_MS)]).await;
    }
    let before = script.seen().len();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(script.seen().len(), before, "nothing is open");
}

#[tokio::test(start_paused = true)]
async fn an_end_is_never_overtaken_by_what_is_told_again() {
    let steps = [OK, Step::Slow(3, 200), OK];
    let (script, metrics) = (Script::new(&[("ops", &steps)]), metrics());
    let mut running = start(&script, vec![alertmanager()], &metrics, options());
    all_done(&mut running, vec![told("a", 1, Opened, S1, T0_MS)]).await;
    // The second request tells it again, and takes three seconds.
    tokio::time::sleep(Duration::from_secs(61)).await;
    all_done(&mut running, vec![told("a", 2, Resolved, S1, T0_MS)]).await;
    let at: Vec<u64> = script.seen().into_iter().map(|seen| seen.0 / 1_000).collect();
    assert!(at[2] >= at[1] + 3, "the end was sent while the alert was told again: {at:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_said_410_gets_what_comes_after_it_was_enabled() {
    let (script, metrics) = (Script::new(&[("ops", &[Step::Answer(410, None)])]), metrics());
    let options = options();
    let switches = options.switches.clone();
    let mut running = start(&script, vec![ops()], &metrics, options);
    for sequence in [1, 2] {
        running.entries.send(entry("a", sequence, T0_MS)).await.unwrap();
        let id = format!("a-{sequence}");
        assert_eq!(running.outcomes.recv().await, Some(dropped(&id, DropReason::Disabled)));
    }
    let disabled = || metrics.webhook.disabled.with_label_values(&["ops"]).get();
    assert_eq!((switches.list()[0].disabled, disabled()), (true, 1));
    assert_eq!(switches.enable("ops"), Some(true));
    all_done(&mut running, vec![entry("a", 3, T0_MS)]).await;
    assert_eq!((ids(&script), disabled()), (vec!["a-1".to_owned(), "a-3".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn a_shortest_time_between_requests_holds_all_incidents() {
    let (script, metrics) = (Script::new(&[]), metrics());
    let slow = ops().with_min_interval(Duration::from_secs(1));
    let mut running = start(&script, vec![slow], &metrics, options());
    all_done(&mut running, ["a", "b", "c"].map(|incident| entry(incident, 1, T0_MS)).to_vec()).await;
    let at: Vec<u64> = script.seen().into_iter().map(|seen| seen.0).collect();
    assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 1_000), "{at:?}");
}
