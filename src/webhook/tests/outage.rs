//! A receiver of each format that fails in every way for an hour: afterwards it has everything, in order, under the same ids.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use EventType::{Opened, Resolved, Updated};
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::paused::{T0_MS, options};
use super::*;

const DOWN: Duration = Duration::from_secs(3_600);
const INCIDENTS: u64 = 12;
const NAMES: [&str; 5] = ["standard", "cloudevents", "alertmanager", "pagerduty", "slack"];

/// A request: when (s), to whom, its id and body.
type Seen = (u64, String, String, Bytes);

/// For an hour each request fails in the next of six ways, sometimes after it was taken.
#[derive(Debug)]
struct Outage {
    started: Instant,
    seen: Mutex<Vec<Seen>>,
    taken: Mutex<Vec<Seen>>,
    refused: Mutex<BTreeMap<String, u32>>,
}

impl Transport for Outage {
    fn post(&self, request: Request) -> BoxFuture<'_, Result<Reply, TransportError>> {
        let host = request.url.host_str().unwrap().to_owned();
        let id = request.headers.get("webhook-id").map(|id| id.to_str().unwrap().to_owned());
        // What is told again belongs to no entry.
        let Some(id) = id else { return Box::pin(async { Ok(Reply { status: 200, retry_after: None }) }) };
        let seen = (self.started.elapsed().as_secs(), host.clone(), id, request.body);
        self.seen.lock().unwrap().push(seen.clone());
        let reply = |status, wish: Option<u64>| Ok(Reply { status, retry_after: wish.map(Duration::from_secs) });
        if self.started.elapsed() >= DOWN {
            self.taken.lock().unwrap().push(seen);
            return Box::pin(async move { reply(200, None) });
        }
        let mut refused = self.refused.lock().unwrap();
        let number = refused.entry(host).and_modify(|n| *n += 1).or_default();
        let answer = match *number % 6 {
            0 => reply(500, None),
            1 => reply(429, Some(40)),
            2 => reply(302, None),
            3 => Err(TransportError::Unreachable("connection reset".to_owned())),
            4 => reply(503, None),
            // The receiver has it, the answer is lost.
            _ => {
                self.taken.lock().unwrap().push(seen);
                return Box::pin(async move {
                    tokio::time::sleep(request.timeout).await;
                    Err(TransportError::Timeout)
                });
            }
        };
        Box::pin(async move { answer })
    }
}

fn endpoints() -> Vec<Endpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "0123456789abcdef0123456789abcdef").unwrap();
    let routing = KeyStore::from_file(Format::PagerDuty, &path).unwrap();
    std::fs::write(&path, SECRET).unwrap();
    let keys = [
        KeyStore::from_file(Format::Standard, &path).unwrap(),
        KeyStore::from_file(Format::CloudEvents, &path).unwrap(),
        KeyStore::none(Format::Alertmanager),
        routing,
        KeyStore::none(Format::Slack),
    ];
    // The files are gone now: the keys stay.
    let make = |(name, keys): (&str, KeyStore)| Endpoint::new(name, &format!("http://{name}/hook"), keys).unwrap();
    NAMES.into_iter().zip(keys).map(make).collect()
}

#[tokio::test(start_paused = true)]
async fn after_an_hour_down_every_receiver_has_everything_in_order_under_the_same_ids() {
    let outage = Arc::new(Outage {
        started: Instant::now(),
        seen: Mutex::default(),
        taken: Mutex::default(),
        refused: Mutex::default(),
    });
    let metrics = metrics();
    let deliverer = Deliverer::with_transport(endpoints(), metrics.webhook.clone(), outage.clone(), options()).unwrap();
    let mut running = run(deliverer, Gate::open());
    let mut sent = 0;
    for minute in 0..50 {
        let incident = format!("inc-{:02}", minute % INCIDENTS);
        let kind = match minute / INCIDENTS {
            0 => Opened,
            1 | 2 => Updated,
            _ => Resolved,
        };
        let now_ms = T0_MS + i64::try_from(minute * 60_000).unwrap();
        running.entries.send(told(&incident, 1 + minute / INCIDENTS, kind, Severity::S1, now_ms)).await.unwrap();
        sent += 1;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    for _ in 0..sent {
        assert!(matches!(running.outcomes.recv().await, Some(Outcome::Delivered { .. })));
    }
    assert!(outage.started.elapsed() > DOWN);
    let taken = outage.taken.lock().unwrap().clone();
    for name in NAMES {
        let of = |seen: &[Seen]| seen.iter().filter(|seen| seen.1 == name).cloned().collect::<Vec<_>>();
        let ended = |outcome| metrics.webhook.deliveries.with_label_values(&[name, outcome]).get();
        assert_eq!(ended("delivered") + ended("superseded"), sent, "{name}");
        assert_eq!(ended("superseded"), INCIDENTS, "{name}: of two updates of an incident the first");
        for number in 0..INCIDENTS {
            let incident = format!("inc-{number:02}-");
            let mut ids: Vec<String> = of(&taken).into_iter().map(|seen| seen.2).collect();
            ids.retain(|id| id.starts_with(&incident));
            ids.dedup();
            let last = if number < 2 { vec![5] } else { vec![] };
            let wanted: Vec<String> = [1, 3, 4].into_iter().chain(last).map(|n| format!("{incident}{n}")).collect();
            assert_eq!(ids, wanted, "{name}");
        }
        let seen = of(&outage.seen.lock().unwrap());
        assert!(seen.iter().any(|seen| seen.0 < 3_600), "{name} was never tried while down");
        if name != "alertmanager" {
            let mut bodies: BTreeMap<String, Bytes> = BTreeMap::new();
            for (_, _, id, body) in seen {
                assert_eq!(*bodies.entry(id).or_insert_with(|| body.clone()), body, "{name}: another body, one id");
            }
        }
    }
    assert!(taken.iter().any(|seen| seen.0 < 3_600), "no answer was lost");
}
