//! An endpoint that answers 410 through commits, crashes, owners and operators, in memory: a stage and its deliverer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::webhook::{
    Board, Deliverer, Disabled, EnableError, Endpoint, Gate, Options, Reply, Request, Secrets, SwitchState, Switches,
    Transport, TransportError,
};

const URL: &str = "http://ops.test/hook?token=T0KEN";

/// Answers every request alike.
#[derive(Debug)]
struct Receiver {
    status: AtomicU16,
    requests: AtomicUsize,
}

impl Receiver {
    fn answering(status: u16) -> Arc<Self> {
        Arc::new(Self { status: AtomicU16::new(status), requests: AtomicUsize::new(0) })
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Transport for Receiver {
    fn post(&self, _: Request) -> BoxFuture<'_, Result<Reply, TransportError>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let status = self.status.load(Ordering::SeqCst);
        Box::pin(async move { Ok(Reply { status, retry_after: None }) })
    }
}

/// What was committed, by its keys.
type Store = BTreeMap<String, bytes::Bytes>;

/// A stage and the endpoint `ops` at a URL; dropped, it is as dead as a killed process.
struct Owner {
    stage: Correlate,
    switches: Switches,
    metrics: Metrics,
    /// Ends the deliverer with it.
    _lost: tokio_util::sync::DropGuard,
}

impl Owner {
    fn begin(store: &Store, receiver: &Arc<Receiver>, url: &str) -> Self {
        let (metrics, switches, lost) = (Metrics::new().unwrap(), Switches::default(), CancellationToken::new());
        let secrets = Secrets::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let endpoints = vec![Endpoint::new("ops", url, secrets).unwrap()];
        let options = Options { switches: switches.clone(), ..Options::default() };
        let deliverer =
            Deliverer::with_transport(endpoints, metrics.webhook.clone(), receiver.clone(), options).unwrap();
        let (queue, entries) = mpsc::channel(16);
        let (done, outcomes) = mpsc::channel(16);
        let (drain, board) = (deliverer.drain_handle(), deliverer.board());
        tokio::spawn(deliverer.run(entries, done, Gate::open(), lost.clone()));
        let outlet = Outlet::new(None, Some(Deliveries { queue, outcomes, drain })).with_board(board);
        let mut stage = Correlate { outlet, ..stage(&metrics) };
        stage.restore(store.clone().into_iter().collect()).unwrap();
        Self { stage, switches, metrics, _lost: lost.drop_guard() }
    }

    /// Commits an event of this number, and lets it be delivered or dropped.
    async fn tell(&mut self, store: &mut Store, sequence: u64) {
        let example = include_str!("../../../../proto/examples/anomaly.opened.json");
        let mut event = serde_json::from_str::<flowshift_proto::anomaly::WebhookBody>(example).unwrap().data;
        event.sequence = sequence;
        self.stage.outbox.add(&event).unwrap();
        self.stage.urgent = true;
        self.commit(store);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Says which parts were written.
    fn commit(&mut self, store: &mut Store) -> Vec<String> {
        let parts = self.stage.save().unwrap();
        let names = parts.iter().map(|(key, _)| name(key).to_owned()).collect();
        store.extend(parts);
        self.stage.committed();
        names
    }

    fn since_ms(&self) -> Option<i64> {
        let [SwitchState { disabled, .. }] = <[_; 1]>::try_from(self.switches.list()).unwrap();
        disabled.map(|disabled| disabled.since_ms)
    }

    fn shown(&self) -> i64 {
        self.metrics.webhook.disabled.with_label_values(&["ops"]).get()
    }
}

fn stored(store: &Store) -> Stored {
    Stored::read(&store.clone().into_iter().collect::<Vec<_>>()).unwrap().unwrap()
}

/// An owner found its endpoint answering 410, and committed it.
async fn disabled(receiver: &Arc<Receiver>) -> (Store, Owner) {
    let mut store = Store::new();
    let mut owner = Owner::begin(&store, receiver, URL);
    owner.tell(&mut store, 1).await;
    owner.stage.idle().unwrap();
    owner.commit(&mut store);
    (store, owner)
}

/// It stood in the memory of the process alone, so that every owner asked the receiver again.
#[tokio::test(start_paused = true)]
async fn the_commit_that_drops_an_entry_for_a_410_holds_why_and_the_next_owner_asks_nobody() {
    let receiver = Receiver::answering(410);
    let mut store = Store::new();
    let mut first = Owner::begin(&store, &receiver, URL);
    first.tell(&mut store, 1).await;
    assert!(!store.contains_key("shardId-0/webhooks") && !first.stage.urgent());
    // Killed now, it is found out anew.
    let lost = Owner::begin(&store, &receiver, URL);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((receiver.requests(), lost.since_ms().is_some()), (2, true));

    first.stage.idle().unwrap();
    assert!(first.stage.urgent(), "it does not wait for records");
    assert_eq!(first.commit(&mut store), ["correlate", "webhooks"]);
    let committed = stored(&store);
    assert!(committed.body.outbox.is_delivered() && committed.webhooks.contains_key("ops"));
    assert!(committed.webhooks["ops"].event == Some(committed.body.outbox.entries()[0].id.clone()));
    let bytes = String::from_utf8_lossy(&store["shardId-0/webhooks"]).into_owned();
    assert!(!bytes.contains("T0KEN") && !bytes.contains("ops.test"), "{bytes:?}");
    let since_ms = first.since_ms();
    drop(first);

    let mut next = Owner::begin(&store, &receiver, URL);
    next.tell(&mut store, 2).await;
    next.stage.idle().unwrap();
    assert_eq!(next.commit(&mut store), ["correlate"], "unchanged it is not written again");
    assert!(stored(&store).body.outbox.is_delivered());
    assert_eq!((receiver.requests(), next.shown(), next.since_ms()), (2, 1, since_ms));
}

#[tokio::test(start_paused = true)]
async fn an_operator_is_answered_when_enabling_is_committed_and_a_next_owner_delivers() {
    let receiver = Receiver::answering(410);
    let (mut store, mut owner) = disabled(&receiver).await;
    receiver.status.store(204, Ordering::SeqCst);
    let before = store.clone();
    let switches = owner.switches.clone();
    let asked = tokio::spawn(async move { switches.enable("ops").await });
    tokio::task::yield_now().await;
    owner.stage.idle().unwrap();
    assert!(owner.stage.urgent() && !asked.is_finished(), "answered before it is committed");
    owner.commit(&mut store);
    assert_eq!(asked.await.unwrap(), Ok(true));
    drop(owner);

    let mut next = Owner::begin(&store, &receiver, URL);
    next.tell(&mut store, 2).await;
    assert_eq!((receiver.requests(), next.shown(), next.since_ms()), (2, 0, None));
    drop(next);
    // An owner that goes before its commit answers that it is not done.
    let without = Owner::begin(&before, &receiver, URL);
    let switches = without.switches.clone();
    let asked = tokio::spawn(async move { switches.enable("ops").await });
    tokio::task::yield_now().await;
    drop(without);
    assert_eq!(asked.await.unwrap(), Err(EnableError::Lost("ops".to_owned())));
    assert!(Owner::begin(&before, &receiver, URL).since_ms().is_some());
}

#[tokio::test(start_paused = true)]
async fn another_url_or_no_endpoint_of_the_name_forgets_it_with_the_next_commit() {
    let receiver = Receiver::answering(410);
    let (store, _) = disabled(&receiver).await;
    let mut moved = Owner::begin(&store, &receiver, "http://ops.test/hook?token=OTHER");
    assert_eq!(moved.since_ms(), None);
    let mut after = store.clone();
    moved.stage.idle().unwrap();
    moved.commit(&mut after);
    assert!(stored(&after).webhooks.is_empty());

    let metrics = Metrics::new().unwrap();
    let outlet = Outlet::new(None, None).with_board(Board::default());
    let mut removed = Correlate { outlet, ..stage(&metrics) };
    removed.restore(store.clone().into_iter().collect()).unwrap();
    removed.idle().unwrap();
    let written = removed.save().unwrap();
    assert!(stored(&store.into_iter().chain(written).collect()).webhooks.is_empty());
}

/// Of endpoints it cannot reach, or must not in a dry run, an owner knows nothing: it keeps what is committed, also where
/// it saves everything anew because it comes from a parent shard.
#[tokio::test(start_paused = true)]
async fn an_owner_that_does_not_deliver_keeps_what_is_committed() {
    let (store, _) = disabled(&Receiver::answering(410)).await;
    let metrics = Metrics::new().unwrap();
    for outlet in [Outlet::held(None), Outlet::new(None, None)] {
        let mut child = Correlate { outlet, shard: ShardId::new("shardId-1"), ..stage(&metrics) };
        child.restore(store.clone().into_iter().collect()).unwrap();
        child.idle().unwrap();
        let own: Store = child.save().unwrap().into_iter().filter(|(key, _)| child.keeps(key)).collect();
        assert_eq!(stored(&own).webhooks, stored(&store).webhooks);
        assert_eq!(own["shardId-1/webhooks"], store["shardId-0/webhooks"]);
    }
}

/// Disabled webhooks as version 1 of their stored form has them: what was stored once stays readable.
const WEBHOOKS_V1: &str = "080110071a3f0205616761696e82c0e285e3680091a67e9c64bc7e646f01cbe2977c4994\
    036f707380c0e285e36801056576745f3191a67e9c64bc7e646f01cbe2977c4994";

#[test]
fn disabled_webhooks_come_back_as_they_were_and_those_of_version_1_stay_readable() {
    let url = crate::webhook::UrlDigest::of(&URL.parse().unwrap());
    let of = |since_ms, event: Option<&str>| Disabled { since_ms, event: event.map(str::to_owned), url };
    let webhooks = DisabledEndpoints::from([
        ("again".to_owned(), of(1_800_000_000_001, None)),
        ("ops".to_owned(), of(1_800_000_000_000, Some("evt_1"))),
    ]);
    let (key, written) = stored::disabled_part(&webhooks).unwrap();
    let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((key.as_str(), hex.as_str()), ("webhooks", WEBHOOKS_V1));
    assert_eq!(stored::disabled(&written).unwrap(), webhooks);
}

#[test]
fn disabled_webhooks_of_another_version_are_refused_by_name() {
    let newer = Chunk { version: 2, kind: Kind::Webhooks, body: Vec::new() }.encode();
    let problem = format!("{:#}", anyhow::Error::new(stored::disabled(&newer).unwrap_err()));
    assert!(problem.contains("disabled webhooks") && problem.contains("version 2"), "{problem}");
    let words = Chunk { version: 1, kind: Kind::Words, body: Vec::new() }.encode();
    assert!(stored::disabled(&words).is_err(), "words are no webhooks");
}
