//! Who is told what: filters over the life of an incident, updates that collapse, receivers that forget, switches.

use std::sync::Arc;
use std::time::Duration;

use EventType::{Opened, Resolved, Updated};
use Severity::{S1, S3};

use super::paused::{OK, Script, Step, T0_MS, options};
use super::*;
use crate::webhook::switch::Switchboard;
use crate::webhook::worker::{Finished, Worker};

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
    let gone = Disabled { since_ms: T0_MS, event: Some("a-1".to_owned()), url: ops().url_digest() };
    assert_eq!((switches.list()[0].disabled.clone(), disabled()), (Some(gone), 1));
    assert_eq!(running.board.look().len(), 1);
    let asked = tokio::spawn(async move { switches.enable("ops").await });
    tokio::task::yield_now().await;
    assert!(running.board.look().is_empty() && !asked.is_finished());
    running.board.commit();
    assert_eq!(asked.await.unwrap(), Ok(true));
    all_done(&mut running, vec![entry("a", 3, T0_MS)]).await;
    assert_eq!((ids(&script), disabled()), (vec!["a-1".to_owned(), "a-3".to_owned()], 0));
}

/// A next owner tried it again, because the disabling stood in the memory of the process alone.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_said_410_to_an_earlier_owner_gets_nothing_and_shows_it_until_this_one_ends() {
    let (script, metrics) = (Script::new(&[]), metrics());
    let gone = Disabled { since_ms: 7, event: None, url: ops().url_digest() };
    let endpoints = vec![ops(), endpoint("audit", "http://audit/hook")];
    let deliverer = Deliverer::with_transport(endpoints, metrics.webhook.clone(), script.clone(), options()).unwrap();
    let mut board = deliverer.board();
    board.begin(&DisabledEndpoints::from([("ops".to_owned(), gone)]));
    let (entries, rx) = mpsc::channel(64);
    let (done, mut outcomes) = mpsc::channel(64);
    let delivering = tokio::spawn(deliverer.run(rx, done, Gate::open(), CancellationToken::new()));
    entries.send(entry("a", 1, T0_MS)).await.unwrap();
    assert_eq!(outcomes.recv().await, Some(dropped("a-1", DropReason::Disabled)));
    assert_eq!(script.seen().into_iter().map(|seen| seen.1).collect::<Vec<_>>(), ["audit"]);
    let disabled = || metrics.webhook.disabled.with_label_values(&["ops"]).get();
    assert_eq!((disabled(), board.has_changed()), (1, false));
    drop(entries);
    delivering.await.unwrap();
    assert_eq!(disabled(), 0, "this process delivers no more");
}

/// A new address of Slack's is written into the file while the process runs.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_said_410_is_enabled_by_another_url_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slack");
    std::fs::write(&file, "http://old/hook\n").unwrap();
    let keys = KeyStore::from_file(Format::Slack, &file).unwrap();
    let slack = Endpoint::new("ops", "http://hooks.slack.test/", keys).unwrap();
    let script = Script::new(&[("old", &[Step::Answer(410, None)])]);
    let mut running = start(&script, vec![slack], &metrics(), options());
    for sequence in [1, 2] {
        running.entries.send(told("a", sequence, Opened, S1, T0_MS)).await.unwrap();
        let id = format!("a-{sequence}");
        assert_eq!(running.outcomes.recv().await, Some(dropped(&id, DropReason::Disabled)));
    }
    assert_eq!(running.board.look().len(), 1);
    std::fs::write(&file, "http://new/hook\n").unwrap();
    all_done(&mut running, vec![told("a", 3, Opened, S1, T0_MS)]).await;
    assert_eq!(script.seen().into_iter().map(|seen| seen.1).collect::<Vec<_>>(), ["old", "new"]);
    assert!(running.board.has_changed() && running.board.look().is_empty());
}

/// The stage commits what it hears of entries: then it must see already why they were dropped.
#[tokio::test(start_paused = true)]
async fn an_endpoint_is_seen_as_disabled_before_any_entry_dropped_for_it_is_reported() {
    let script = Script::new(&[("ops", &[Step::Answer(410, None)])]);
    let switchboard = Switchboard::new(std::iter::once(&ops()));
    let mut board = Board::new(Switches::default(), switchboard.clone());
    // A report waits for the one before it to be taken, so that the moment before it lasts.
    let (finished, mut reports) = mpsc::channel(1);
    finished.send(Finished { endpoint: 0, id: "before".to_owned(), dropped: None }).await.unwrap();
    let worker = Worker {
        index: 0,
        endpoint: Arc::new(ops()),
        transport: script,
        metrics: metrics().webhook.clone(),
        clock: options().clock,
        gate: Gate::open(),
        finished,
        shutdown: CancellationToken::new(),
        seed: 7,
        map: Map::default(),
        switch: switchboard.switch("ops"),
    };
    let (entries, input) = mpsc::channel(1);
    let (_draining, drain) = tokio::sync::watch::channel(false);
    let working = tokio::spawn(worker.run(input, drain));
    entries.send(Arc::new(entry("a", 1, T0_MS))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(board.look()["ops"].event.as_deref(), Some("a-1"));
    drop(entries);
    let mut ends = Vec::new();
    while let Some(report) = reports.recv().await {
        ends.push((report.id, report.dropped));
    }
    assert_eq!(ends, [("before".to_owned(), None), ("a-1".to_owned(), Some(DropReason::Disabled))]);
    working.await.unwrap();
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
