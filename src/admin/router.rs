//! The admin routes.
//!
//! A probe answers 200 or 503 with `{"status":"ok"|"failing","reasons":{component: reason}}`. `/metrics` is Prometheus text.
//! Nothing here waits for anything but its own reply.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::operator::{Operator, routes};
use super::{Health, Probe};
use crate::metrics::Metrics;

/// Where the admin port listens unless configured: loopback only.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9464));

#[derive(Debug, Clone)]
struct Shared {
    metrics: Metrics,
    health: Health,
}

/// The admin routes over the given metrics and health; with an operator's door where the process has one.
pub fn router(metrics: Metrics, health: Health, operator: Option<Operator>) -> Router {
    let door = operator.map(routes).unwrap_or_default();
    Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(async |State(shared): State<Shared>| probe(&shared, Probe::Alive)))
        .route("/readyz", get(async |State(shared): State<Shared>| probe(&shared, Probe::Ready)))
        .route("/startupz", get(async |State(shared): State<Shared>| probe(&shared, Probe::Started)))
        .with_state(Shared { metrics, health })
        .merge(door)
}

/// Serves the admin routes until `shutdown` resolves; requests being answered then are finished.
///
/// # Errors
/// What accepting connections said.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    operator: Option<Operator>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(metrics, health, operator)).with_graceful_shutdown(shutdown).await
}

async fn scrape(State(shared): State<Shared>) -> Response {
    match shared.metrics.to_text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "scrape failed");
            (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

fn probe(shared: &Shared, probe: Probe) -> Response {
    let reasons = shared.health.reasons(probe);
    let (status, word) =
        if reasons.is_empty() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "failing") };
    let body = serde_json::json!({ "status": word, "reasons": reasons }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    struct Running {
        base: String,
        health: Health,
        metrics: Metrics,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<std::io::Result<()>>,
    }

    async fn start() -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (metrics, health) = (Metrics::new().unwrap(), Health::new());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { drop(stopped.await) };
        let task = tokio::spawn(serve(listener, metrics.clone(), health.clone(), None, shutdown));
        Running { base, health, metrics, stop, task }
    }

    async fn get(url: String) -> (u16, String, String) {
        drop(rustls::crypto::ring::default_provider().install_default());
        let answer = reqwest::get(url).await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn probes_say_why_not_and_then_yes() {
        let running = start().await;
        let (status, kind, body) = get(format!("{}/readyz", running.base)).await;
        assert_eq!((status, kind.as_str()), (503, "application/json"));
        assert_eq!(body, r#"{"reasons":{"start":"not finished"},"status":"failing"}"#);
        assert_eq!(get(format!("{}/startupz", running.base)).await.0, 503);
        assert_eq!(get(format!("{}/livez", running.base)).await.0, 200);
        running.health.mark_started();
        for path in ["readyz", "startupz", "livez"] {
            let (status, _, body) = get(format!("{}/{path}", running.base)).await;
            assert_eq!((status, body.as_str()), (200, r#"{"reasons":{},"status":"ok"}"#), "{path}");
        }
    }

    #[tokio::test]
    async fn a_scrape_is_prometheus_text_with_live_counts() {
        let running = start().await;
        running.metrics.pipeline.records_accounted.inc_by(7);
        let (status, kind, body) = get(format!("{}/metrics", running.base)).await;
        assert_eq!(status, 200);
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        assert!(body.contains("\nflowshift_records_accounted_total 7\n"), "{body}");
    }

    #[tokio::test]
    async fn it_stops_when_told_and_not_before() {
        let running = start().await;
        assert!(!running.task.is_finished());
        running.stop.send(()).unwrap();
        running.task.await.unwrap().unwrap();
    }

    #[test]
    fn the_default_address_is_loopback() {
        assert!(DEFAULT_ADDRESS.ip().is_loopback());
    }
}
