//! The deliverer against a scripted transport in paused time, and against real receivers on loopback.

mod http;
mod outage;
mod paused;
mod told;

use std::sync::Arc;

use bytes::Bytes;
use flowshift_proto::anomaly::{EventType, Severity, WebhookBody};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::metrics::Metrics;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn endpoint(name: &str, url: &str) -> Endpoint {
    Endpoint::new(name, url, Secrets::parse(SECRET).unwrap()).unwrap()
}

fn entry(incident: &str, sequence: u64, created_ms: i64) -> Delivery {
    Delivery {
        id: format!("{incident}-{sequence}"),
        incident: incident.to_owned(),
        sequence,
        created_ms,
        muted: false,
        past: false,
        event: None,
        body: Bytes::from(format!(r#"{{"type":"anomaly.opened","data":{{"sequence":{sequence}}}}}"#)),
    }
}

/// An entry that tells an event.
fn told(incident: &str, sequence: u64, kind: EventType, severity: Severity, created_ms: i64) -> Delivery {
    let example = include_str!("../../proto/examples/anomaly.opened.json");
    let mut event = serde_json::from_str::<WebhookBody>(example).unwrap().data;
    (event.incident, event.sequence, event.kind, event.severity) = (incident.to_owned(), sequence, kind, severity);
    let body = Bytes::from(serde_json::to_string(&event.to_webhook().unwrap()).unwrap());
    Delivery { body, event: Some(Arc::new(event)), ..entry(incident, sequence, created_ms) }
}

fn delivered(id: &str) -> Outcome {
    Outcome::Delivered { id: id.to_owned() }
}

fn dropped(id: &str, reason: DropReason) -> Outcome {
    Outcome::Dropped { id: id.to_owned(), reason }
}

/// A deliverer that runs, and its ends.
struct Running {
    board: Board,
    entries: mpsc::Sender<Delivery>,
    outcomes: mpsc::Receiver<Outcome>,
    drain: DrainHandle,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn run(deliverer: Deliverer, gate: Gate) -> Running {
    let (entries, rx) = mpsc::channel(64);
    let (done, outcomes) = mpsc::channel(64);
    let (drain, shutdown) = (deliverer.drain_handle(), CancellationToken::new());
    let mut board = deliverer.board();
    board.begin(&DisabledEndpoints::new());
    let task = tokio::spawn(deliverer.run(rx, done, gate, shutdown.clone()));
    Running { board, entries, outcomes, drain, shutdown, task }
}

fn metrics() -> Metrics {
    Metrics::new().unwrap()
}
