//! The deliverer against a scripted transport in paused time, and against real receivers on loopback.

mod http;
mod paused;

use bytes::Bytes;
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
        body: Bytes::from(format!(r#"{{"type":"anomaly.opened","data":{{"sequence":{sequence}}}}}"#)),
    }
}

fn delivered(id: &str) -> Outcome {
    Outcome::Delivered { id: id.to_owned() }
}

fn dropped(id: &str, reason: DropReason) -> Outcome {
    Outcome::Dropped { id: id.to_owned(), reason }
}

/// A deliverer that runs, and its ends.
struct Running {
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
    let task = tokio::spawn(deliverer.run(rx, done, gate, shutdown.clone()));
    Running { entries, outcomes, drain, shutdown, task }
}

fn metrics() -> Metrics {
    Metrics::new().unwrap()
}
