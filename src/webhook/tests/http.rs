//! Real receivers on loopback: signatures, statuses, hanging and resetting peers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use standardwebhooks::Webhook;
use tokio::net::TcpListener;

use super::*;

const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A receiver that verifies every request, then answers from its list, then 200.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<Vec<u16>>>,
    /// Ids of verified requests.
    verified: Arc<Mutex<Vec<String>>>,
    agents: Arc<Mutex<Vec<String>>>,
    /// Requests that came by a followed redirect.
    strayed: Arc<Mutex<u32>>,
}

async fn hook(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    for secret in [SECRET, OTHER] {
        if Webhook::new(secret).unwrap().verify(&body, &headers).is_err() {
            return StatusCode::UNAUTHORIZED.into_response();
        }
    }
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(text("content-type"), "application/json");
    receiver.verified.lock().unwrap().push(text("webhook-id"));
    receiver.agents.lock().unwrap().push(text("user-agent"));
    let status = StatusCode::from_u16(receiver.answers.lock().unwrap().pop().unwrap_or(200)).unwrap();
    let mut headers = HeaderMap::new();
    if status.is_redirection() {
        headers.insert(header::LOCATION, "/elsewhere".parse().unwrap());
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(header::RETRY_AFTER, "0".parse().unwrap());
    }
    (status, headers, "answer").into_response()
}

async fn serve(receiver: Receiver) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let strayed = receiver.strayed.clone();
    let elsewhere = async move || *strayed.lock().unwrap() += 1;
    let router = Router::new()
        .route("/hook", post(hook))
        .route("/elsewhere", get(elsewhere.clone()).post(elsewhere))
        .with_state(receiver);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/hook")
}

fn quick(url: &str) -> Endpoint {
    let secrets = Secrets::parse(&format!("{SECRET}\n{OTHER}\n")).unwrap();
    let steps = vec![Duration::from_millis(5)];
    Endpoint::new("ops", url, secrets)
        .unwrap()
        .with_timeout(Duration::from_millis(300))
        .unwrap()
        .with_schedule(Schedule::new(steps).unwrap())
}

fn now_ms() -> i64 {
    WallClock::system().now_ms()
}

#[tokio::test]
async fn every_attempt_carries_both_signatures_and_redirects_are_not_followed() {
    let receiver = Receiver::default();
    *receiver.answers.lock().unwrap() = vec![429, 302, 500];
    let url = serve(receiver.clone()).await;
    let deliverer = Deliverer::new(vec![quick(&url)], metrics().webhook).unwrap();
    let mut running = run(deliverer, Gate::open());
    running.entries.send(entry("a", 1, now_ms())).await.unwrap();
    assert_eq!(running.outcomes.recv().await, Some(delivered("a-1")));
    assert_eq!(*receiver.verified.lock().unwrap(), ["a-1"; 4]);
    assert_eq!(receiver.agents.lock().unwrap()[0], concat!("flowshift/", env!("CARGO_PKG_VERSION")));
    assert_eq!(*receiver.strayed.lock().unwrap(), 0, "a redirect was followed");
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_one_timeout_and_is_tried_again() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", hanging.local_addr().unwrap());
    let metrics = metrics();
    let deliverer = Deliverer::new(vec![quick(&url)], metrics.webhook.clone()).unwrap();
    let running = run(deliverer, Gate::open());
    running.entries.send(entry("a", 1, now_ms())).await.unwrap();
    // Two connections mean that the first attempt was given up; neither is ever answered.
    let first = hanging.accept().await.unwrap();
    let second = hanging.accept().await.unwrap();
    let timeouts = metrics.webhook.attempts.with_label_values(&["ops", "timeout"]).get();
    assert!(timeouts >= 1, "no timeout counted");
    drop((first, second));
    running.shutdown.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn a_receiver_that_resets_the_connection_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = metrics();
    let url = format!("http://{address}/hook");
    let deliverer = Deliverer::new(vec![quick(&url)], metrics.webhook.clone()).unwrap();
    let mut running = run(deliverer, Gate::open());
    running.entries.send(entry("a", 1, now_ms())).await.unwrap();
    let (connection, _) = listener.accept().await.unwrap();
    connection.set_zero_linger().unwrap();
    drop(connection);
    let receiver = Receiver::default();
    let router = Router::new().route("/hook", post(hook)).with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert_eq!(running.outcomes.recv().await, Some(delivered("a-1")));
    assert!(metrics.webhook.attempts.with_label_values(&["ops", "unreachable"]).get() >= 1);
    assert_eq!(receiver.verified.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn one_sending_says_what_the_receiver_answered() {
    let receiver = Receiver::default();
    *receiver.answers.lock().unwrap() = vec![302];
    let url = serve(receiver.clone()).await;
    let error = send_once(&quick(&url), &entry("test", 1, 0)).await.unwrap_err();
    assert_eq!(error.to_string(), "webhook ops not delivered: redirected with status 302, which is not followed");
    assert_eq!(send_once(&quick(&url), &entry("test", 1, 0)).await.unwrap(), 200);
}
