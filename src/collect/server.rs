//! The collector's routes and its life: open, closing, closed.
//!
//! [`Collector::close`] shuts the door first (503 from then on) and resolves when the last request inside has its answer. Close
//! the sink after that: then every record that was answered 200 is in Kinesis and none comes later.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::request::{self, Route};
use super::{CollectOptions, RecordSink, Refusal};
use crate::metrics::collect::CollectMetrics;

/// The unit in which held bytes are counted.
const KIB: usize = 1 << 10;
/// Bodies of refused requests that are thrown away at once.
const DISCARDS: usize = 64;

/// The collector; clones share it.
#[derive(Debug, Clone)]
pub struct Collector {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) sink: Arc<dyn RecordSink>,
    pub(super) metrics: CollectMetrics,
    pub(super) options: CollectOptions,
    /// Every request inside holds a token; closed = no more come in.
    pub(super) in_flight: TaskTracker,
    pub(super) decoders: Arc<Semaphore>,
    /// Bodies thrown away at once; a connection buffers up to 400 KB of one. More are refused unread.
    pub(super) discards: Semaphore,
    held: Arc<Semaphore>,
}

impl Inner {
    /// Room for a body, given back on drop; `None` when there is none now.
    pub(super) fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(KIB).max(1)).ok()?;
        Arc::clone(&self.held).try_acquire_many_owned(units).ok()
    }
}

impl Collector {
    /// An open collector over a sink.
    #[must_use]
    pub fn new(sink: Arc<dyn RecordSink>, metrics: CollectMetrics, options: CollectOptions) -> Self {
        let held = options.max_held_bytes.max(options.max_body_bytes).div_ceil(KIB).min(Semaphore::MAX_PERMITS);
        let inner = Inner {
            sink,
            metrics,
            decoders: Arc::new(Semaphore::new(options.decoders.max(1))),
            discards: Semaphore::new(DISCARDS),
            held: Arc::new(Semaphore::new(held)),
            in_flight: TaskTracker::new(),
            options,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The routes.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/agent-reports", post(agent_reports))
            .route("/publish", post(agent_reports))
            .route("/v1/flows", post(flows))
            .method_not_allowed_fallback(wrong_method)
            .fallback(no_path)
            .with_state(Arc::clone(&self.inner))
    }

    /// Answers new requests 503 from now on and resolves when those inside are answered.
    pub async fn close(&self) {
        self.inner.in_flight.close();
        self.inner.in_flight.wait().await;
    }
}

/// Serves the collector until `shutdown` resolves; requests inside are answered first.
///
/// # Errors
/// What accepting connections said.
pub async fn serve(
    listener: TcpListener,
    collector: &Collector,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, collector.router()).with_graceful_shutdown(shutdown).await
}

async fn agent_reports(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Body) -> Response {
    request::post(&inner, Route::AgentReports, headers, body).await
}

async fn flows(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Body) -> Response {
    request::post(&inner, Route::Flows, headers, body).await
}

async fn wrong_method(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Body) -> Response {
    request::stray(&inner, &headers, body, Refusal::Method).await
}

async fn no_path(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Body) -> Response {
    request::stray(&inner, &headers, body, Refusal::NotFound).await
}
