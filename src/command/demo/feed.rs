//! The agents: makes their reports slice by slice of simulated time and POSTs them to the collector at the demo's speed.
//!
//! A slice is sent whole and answered before the next one starts, so nothing arrives later, in event time, than a slice
//! is long, far below the allowed lateness. Not here: what becomes of the reports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use flowshift_proto::agent_report::encode_gzip;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, StatusCode, Url};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::simulate::Region;

/// Simulated seconds sent at once.
const SLICE_S: i64 = 10;
/// Simulated seconds that pass in one second.
pub(super) const SPEED: f64 = 51.0;
/// Requests under way at once.
const CONNECTIONS: usize = 4;
/// Slices made ahead.
const AHEAD: usize = 8;
/// Tries of one report while the collector is busy, and the pause between them.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// How far the agents are; written by the feed, read by the screen.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Simulated seconds since the start.
    pub(super) offset_s: AtomicI64,
    /// Reports answered 200.
    pub(super) reports: AtomicU64,
    /// Flow records in them.
    pub(super) records: AtomicU64,
}

struct Body {
    gzip: Bytes,
    records: u64,
}

struct Slice {
    end_s: i64,
    bodies: Vec<Body>,
}

/// Sends everything.
///
/// # Errors
/// The collector refuses a report, or is busy for seconds.
pub(super) async fn play(region: Arc<Region>, collector: SocketAddr, progress: &Progress) -> anyhow::Result<()> {
    let url = Url::parse(&format!("http://{collector}/v1/agent-reports"))?;
    let client = client()?;
    let (sender, mut slices) = mpsc::channel(AHEAD);
    let making = tokio::task::spawn_blocking(move || make(&region, &sender));
    let began = Instant::now();
    while let Some(Slice { end_s, bodies }) = slices.recv().await {
        tokio::time::sleep_until(began + Duration::from_secs_f64(end_s as f64 / SPEED)).await;
        let posts = bodies.into_iter().map(|body| post(&client, &url, body, progress));
        stream::iter(posts).buffer_unordered(CONNECTIONS).try_collect::<Vec<()>>().await?;
        progress.offset_s.store(end_s, Ordering::Relaxed);
    }
    making.await.context("the simulation stopped")
}

/// Makes the slices; a receiver that went away ends it.
fn make(region: &Region, sender: &mpsc::Sender<Slice>) {
    let mut slice = Slice { end_s: SLICE_S, bodies: Vec::new() };
    for report in region.reports(0, Region::DEMO_SECONDS) {
        let offset_ms = report.time_ms - region.start_s().saturating_mul(1000);
        while offset_ms >= slice.end_s * 1000 {
            let next = Slice { end_s: slice.end_s + SLICE_S, bodies: Vec::new() };
            if sender.blocking_send(std::mem::replace(&mut slice, next)).is_err() {
                return;
            }
        }
        let records = report.flows.len() as u64;
        slice.bodies.push(Body { gzip: encode_gzip(&report.into_agent_report()).into(), records });
    }
    // Nobody waits for the last slice when the demo was interrupted.
    sender.blocking_send(slice).ok();
}

async fn post(client: &Client, url: &Url, body: Body, progress: &Progress) -> anyhow::Result<()> {
    for _ in 0..TRIES {
        let request = client.post(url.clone()).header("content-type", "application/x-protobuf");
        let sent = request.header("content-encoding", "gzip").body(body.gzip.clone()).send().await;
        match sent.context("the collector does not answer")?.status() {
            StatusCode::OK => {
                progress.reports.fetch_add(1, Ordering::Relaxed);
                progress.records.fetch_add(body.records, Ordering::Relaxed);
                return Ok(());
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(PAUSE).await,
            status => bail!("the collector refused a report: {status}"),
        }
    }
    bail!("the collector was busy for {:?}", PAUSE * TRIES as u32)
}

fn client() -> anyhow::Result<Client> {
    // Fails when a provider is installed already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    Ok(Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(30)).build()?)
}
