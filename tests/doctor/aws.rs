//! Kinesis and DynamoDB for a doctor to look at, each behind a door that can refuse calls and tell a wrong time.
//!
//! The emulator and dynoxide know no permissions: the door answers `AccessDeniedException` for the calls it is told to,
//! whatever their arguments, as IAM does before the service sees them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dynoxide::Database;
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::support::http::{self, Answer};

/// What the doors do from now on.
#[derive(Debug, Default, Clone)]
pub(crate) struct Order {
    /// Calls that are denied, as in `GetRecords`.
    pub(crate) denied: Vec<&'static str>,
    /// The `Date` of answers.
    pub(crate) date: Option<&'static str>,
}

/// The running services; they end when dropped.
#[derive(Debug)]
pub(crate) struct Aws {
    /// `host:port` of the door before Kinesis.
    pub(crate) kinesis: String,
    /// `host:port` of the door before DynamoDB.
    pub(crate) dynamodb: String,
    order: Arc<Mutex<Order>>,
    _emulator: Emulator,
    /// Dropped last: it carries everything above.
    _runtime: Runtime,
}

/// A door.
#[derive(Debug, Clone)]
struct Door {
    upstream: String,
    client: reqwest::Client,
    order: Arc<Mutex<Order>>,
}

impl Aws {
    /// Both services, empty. A stream stays DELETING and CREATING for good when `slow`.
    pub(crate) fn start(slow: bool) -> Self {
        // Fails when a provider is installed already, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let delay = std::time::Duration::from_secs(if slow { 3600 } else { 0 });
        let config = EmulatorConfig { transition_delay: delay, ..EmulatorConfig::default() };
        let order = Arc::new(Mutex::new(Order::default()));
        let (emulator, doors) = runtime.block_on(async {
            let emulator = Emulator::start(config, loopback).await.unwrap();
            let listener = TcpListener::bind(loopback).await.unwrap();
            let dynamodb = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(dynoxide::server::serve_on(listener, Database::memory().unwrap()));
            let mut doors = Vec::new();
            for upstream in [emulator.endpoint_url(), dynamodb] {
                let listener = TcpListener::bind(loopback).await.unwrap();
                doors.push(listener.local_addr().unwrap().to_string());
                let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
                let door = Door { upstream, client, order: Arc::clone(&order) };
                let router = axum::Router::new().fallback(pass).with_state(door);
                tokio::spawn(async move { axum::serve(listener, router).await });
            }
            (emulator, doors)
        });
        let [kinesis, dynamodb] = <[String; 2]>::try_from(doors).unwrap();
        Self { kinesis, dynamodb, order, _emulator: emulator, _runtime: runtime }
    }

    /// Both services with the streams and tables of the job `flowshift`.
    pub(crate) fn complete() -> Self {
        let aws = Self::start(false);
        for stream in ["flowshift-flows", "flowshift-exchange", "flowshift-evidence"] {
            aws.stream(stream);
        }
        for table in ["flowshift-flows-leases", "flowshift-exchange-leases", "flowshift-evidence-leases"] {
            aws.table(table, "leaseKey");
        }
        aws.table("flowshift-state", "k");
        aws
    }

    /// Makes a stream of one shard.
    pub(crate) fn stream(&self, name: &str) {
        let answer = self.kinesis("CreateStream", &json!({ "StreamName": name, "ShardCount": 1 }));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Makes a table with this hash key.
    pub(crate) fn table(&self, name: &str, key: &str) {
        let request = json!({
            "TableName": name, "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [{ "AttributeName": key, "KeyType": "HASH" }],
            "AttributeDefinitions": [{ "AttributeName": key, "AttributeType": "S" }],
        });
        let answer = self.dynamodb("CreateTable", &request);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// A call on Kinesis.
    pub(crate) fn kinesis(&self, operation: &str, request: &Value) -> Answer {
        call(&self.kinesis, "application/x-amz-json-1.1", &format!("Kinesis_20131202.{operation}"), request)
    }

    /// A call on DynamoDB.
    pub(crate) fn dynamodb(&self, operation: &str, request: &Value) -> Answer {
        call(&self.dynamodb, "application/x-amz-json-1.0", &format!("DynamoDB_20120810.{operation}"), request)
    }

    /// What the doors do from now on.
    pub(crate) fn order(&self, order: Order) {
        *self.order.lock().unwrap() = order;
    }
}

fn call(endpoint: &str, content: &str, target: &str, request: &Value) -> Answer {
    let credential =
        "AWS4-HMAC-SHA256 Credential=a/20261122/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0";
    let headers = [
        ("content-type", content),
        ("x-amz-target", target),
        ("authorization", credential),
        ("x-amz-date", "20261122T080000Z"),
    ];
    http::post(endpoint, "/", &headers, request.to_string().as_bytes()).unwrap()
}

async fn pass(State(door): State<Door>, headers: HeaderMap, body: Bytes) -> Response {
    let order = door.order.lock().unwrap().clone();
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default();
    let mut response = if order.denied.contains(&operation) {
        let text = format!("User: arn:aws:sts::1:assumed-role/poor/pod is not authorized to perform: {operation}");
        let refused = json!({ "__type": "AccessDeniedException", "message": text, "Message": text });
        (StatusCode::BAD_REQUEST, refused.to_string()).into_response()
    } else {
        let mut forwarded = headers.clone();
        for hop in [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            forwarded.remove(hop);
        }
        let sent = door.client.post(&door.upstream).headers(forwarded).body(body).send().await.unwrap();
        let status = sent.status();
        let content = sent.headers().get(header::CONTENT_TYPE).cloned();
        let mut response = (status, sent.bytes().await.unwrap()).into_response();
        if let Some(content) = content {
            response.headers_mut().insert(header::CONTENT_TYPE, content);
        }
        response
    };
    if let Some(date) = order.date {
        response.headers_mut().insert(header::DATE, date.parse().unwrap());
    }
    response
}
