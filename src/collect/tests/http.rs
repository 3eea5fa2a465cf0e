//! Good and bad requests over real connections.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flowshift_proto::decode::gzip;
use futures::future::BoxFuture;
use reqwest::{Client, Method, RequestBuilder, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;

/// Keeps records; may refuse, or wait until told.
#[derive(Debug, Default)]
struct Memory {
    records: Mutex<Vec<Record>>,
    refusal: Mutex<Option<SinkError>>,
    /// Held back until `go` when set.
    hold: Mutex<bool>,
    entered: Notify,
    go: Notify,
}

impl RecordSink for Memory {
    fn put(&self, records: Vec<Record>) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async move {
            if *self.hold.lock().unwrap() {
                self.entered.notify_one();
                self.go.notified().await;
            }
            if let Some(error) = self.refusal.lock().unwrap().clone() {
                return Err(error);
            }
            self.records.lock().unwrap().extend(records);
            Ok(())
        })
    }
}

struct Running {
    sink: Arc<Memory>,
    collector: Collector,
    metrics: CollectMetrics,
    address: std::net::SocketAddr,
    client: Client,
}

impl Running {
    async fn start(options: CollectOptions) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let (sink, metrics) = (Arc::new(Memory::default()), metrics());
        let collector = Collector::new(sink.clone(), metrics.clone(), options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = collector.clone();
        tokio::spawn(async move { serve(listener, &serving, std::future::pending()).await });
        Self { sink, collector, metrics, address, client: Client::new() }
    }

    fn request(&self, path: &str, media: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.client.request(Method::POST, url).header("content-type", media).body(body)
    }

    fn counted(&self, route: &str, outcome: &str) -> u64 {
        self.metrics.requests.with_label_values(&[route, outcome]).get()
    }

    fn records(&self) -> Vec<Record> {
        self.sink.records.lock().unwrap().clone()
    }
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/x-ndjson";
const AGENT: &str = "/v1/agent-reports";
const FLOWS: &str = "/v1/flows";
const LINE: &str =
    r#"{"ts_ms":1795310538000,"interval_ms":10000,"src":"10.0.0.1","dst":"10.0.1.1","bytes":7,"unknown":{"a":[1]}}"#;

fn agent_body() -> Vec<u8> {
    use flowshift_proto::agent_report::{AgentFlow, AgentReport, FlowStats, encode};
    let flow = AgentFlow {
        local: "10.0.0.1".parse().unwrap(),
        remote: "10.0.1.1".parse().unwrap(),
        local_port: 0,
        remote_port: 443,
        protocol: 6,
        stats: FlowStats::default(),
    };
    encode(&AgentReport {
        instance_id: "i-0abc".to_owned(),
        time_unix_nano: 1_795_310_538_000_000_000,
        flows: vec![flow],
        ..AgentReport::default()
    })
}

async fn answer(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    (status, response.text().await.unwrap())
}

#[tokio::test]
async fn an_agents_post_is_taken_on_both_paths_with_its_signature_ignored() {
    let running = Running::start(CollectOptions::default()).await;
    let body = gzip(&agent_body());
    for path in [AGENT, "/publish"] {
        let request = running
            .request(path, PROTOBUF, body.clone())
            .header("content-encoding", "gzip")
            .header("authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/x, Signature=00")
            .header("x-amz-date", "20261122T012218Z");
        let got = answer(request.send().await.unwrap()).await;
        assert_eq!(got, (200, r#"{"accepted":1,"malformed":0}"#.to_owned()));
    }
    assert_eq!(running.counted("agent_reports", "accepted"), 2);
    let records = running.records();
    assert!(records.iter().all(|record| record.data == body && record.partition_key.as_str() == "i-0abc"));
    assert_eq!(records.len(), 2);
}

#[tokio::test]
async fn json_lines_and_batches_are_taken_plain_and_compressed() {
    use flowshift_proto::flow::{FeedKind, FlowRecord};
    let running = Running::start(CollectOptions::default()).await;
    let lines = format!("{LINE}\nbad\n{LINE}");
    let got =
        answer(running.request(FLOWS, "application/json; charset=utf-8", lines.clone()).send().await.unwrap()).await;
    assert_eq!(got, (200, r#"{"accepted":2,"malformed":1}"#.to_owned()));
    let packed = running.request(FLOWS, JSON, gzip(lines.as_bytes())).header("content-encoding", "gzip");
    assert_eq!(answer(packed.send().await.unwrap()).await, got);
    let flow = FlowRecord::new(0, 1_000, "10.0.0.1".parse().unwrap(), "10.0.1.1".parse().unwrap());
    let batch = flowshift_proto::flow_batch::encode(FeedKind::Reports, [&flow]);
    assert_eq!(running.request(FLOWS, PROTOBUF, batch.clone()).send().await.unwrap().status(), 200);
    let records = running.records();
    assert_eq!(records[0].data, lines.as_bytes());
    assert_eq!(records[0], records[1], "a repeat must meet the first in one shard with the same bytes");
    assert_eq!(records[2].data, batch);
    assert_eq!(running.metrics.flows.with_label_values(&["flows", "malformed"]).get(), 2);
}

#[tokio::test]
async fn every_bad_body_has_its_status_reason_and_count() {
    let options = CollectOptions { max_body_bytes: 1 << 20, max_decoded_bytes: 4 << 20, ..CollectOptions::default() };
    let running = Running::start(options).await;
    let half = gzip(&agent_body());
    let half = half[..half.len() / 2].to_vec();
    let bomb = gzip(&vec![b' '; 8 << 20]);
    assert!(bomb.len() < 1 << 20);
    let random = (0..1_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect::<Vec<_>>();
    let overflow = LINE.replace("\"bytes\":7", "\"bytes\":99999999999999999999999");
    let none: &[(&str, &str)] = &[];
    let packed: &[(&str, &str)] = &[("content-encoding", "gzip")];
    let cases = [
        (AGENT, PROTOBUF, none, vec![], 400, "empty"),
        (AGENT, PROTOBUF, packed, vec![], 400, "empty"),
        (AGENT, PROTOBUF, packed, gzip(b""), 400, "empty"),
        (AGENT, PROTOBUF, packed, half, 400, "malformed"),
        (AGENT, PROTOBUF, packed, agent_body(), 400, "malformed"),
        (AGENT, PROTOBUF, none, random.clone(), 400, "malformed"),
        (AGENT, PROTOBUF, packed, bomb.clone(), 413, "decoded_too_large"),
        (AGENT, PROTOBUF, none, vec![0; 3 << 20], 413, "body_too_large"),
        (AGENT, PROTOBUF, none, vec![0; 10 << 20], 413, "body_too_large"),
        (AGENT, JSON, none, agent_body(), 415, "unsupported_type"),
        (AGENT, "", none, agent_body(), 415, "unsupported_type"),
        (AGENT, PROTOBUF, &[("content-encoding", "br")], agent_body(), 415, "unsupported_encoding"),
        (AGENT, PROTOBUF, &[("content-encoding", "gzip, gzip")], agent_body(), 415, "unsupported_encoding"),
        (FLOWS, "text/plain", none, LINE.into(), 415, "unsupported_type"),
        (FLOWS, JSON, none, b"\n\n".to_vec(), 400, "empty"),
        (FLOWS, JSON, none, random.clone(), 400, "malformed"),
        (FLOWS, JSON, none, overflow.into(), 400, "malformed"),
        (FLOWS, JSON, packed, bomb, 413, "decoded_too_large"),
        (FLOWS, PROTOBUF, none, random, 400, "malformed"),
        ("/v2/flows", JSON, none, LINE.into(), 404, "not_found"),
    ];
    for (path, media, headers, body, status, reason) in cases {
        let route = match path {
            AGENT => "agent_reports",
            FLOWS => "flows",
            _ => "other",
        };
        let before = running.counted(route, reason);
        let mut request = running.request(path, media, body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (got, text) = answer(request.send().await.unwrap()).await;
        let json = serde_json::from_str::<serde_json::Value>(&text).unwrap();
        assert_eq!((got, json["error"].as_str()), (status, Some(reason)), "{path} {media} {text}");
        assert!(json["detail"].as_str().is_some_and(|detail| !detail.is_empty() && detail.len() < 500), "{text}");
        assert_eq!(running.counted(route, reason), before + 1, "{path} {reason}");
    }
    let wrong = running.client.get(format!("http://{}{FLOWS}", running.address)).send().await.unwrap();
    assert_eq!((wrong.status().as_u16(), &wrong.headers()["allow"] == "POST"), (405, true));
    assert!(running.records().is_empty(), "a refused body reached the sink");
    assert_eq!(running.metrics.in_flight.get(), 0);
    assert_eq!(running.request(FLOWS, JSON, LINE).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn throttling_and_outage_are_told_with_a_time_to_come_again() {
    let running = Running::start(CollectOptions::default()).await;
    let detail = "arn:secret refused".to_owned();
    for (error, status, reason, after) in [
        (SinkError::Throttled { retry_after: Duration::from_millis(1_200) }, 429, "throttled", "2"),
        (SinkError::Unavailable { detail }, 503, "unavailable", "5"),
    ] {
        *running.sink.refusal.lock().unwrap() = Some(error);
        let response = running.request(FLOWS, JSON, LINE).send().await.unwrap();
        assert_eq!(response.headers()["retry-after"], after);
        let (got, text) = answer(response).await;
        assert_eq!(got, status);
        assert!(text.contains(reason) && !text.contains("arn:"), "{text}");
        assert_eq!(running.counted("flows", reason), 1);
    }
}

#[tokio::test]
async fn bodies_above_the_memory_limit_are_refused_until_there_is_room() {
    let options = CollectOptions { max_held_bytes: 1 << 10, max_body_bytes: 1 << 10, ..CollectOptions::default() };
    let running = Running::start(options).await;
    *running.sink.hold.lock().unwrap() = true;
    let first = tokio::spawn(running.request(FLOWS, JSON, LINE).send());
    running.sink.entered.notified().await;
    let second = running.request(FLOWS, JSON, LINE).send().await.unwrap();
    assert_eq!((second.status().as_u16(), &second.headers()["retry-after"] == "1"), (429, true));
    assert_eq!(running.counted("flows", "overloaded"), 1);
    *running.sink.hold.lock().unwrap() = false;
    running.sink.go.notify_one();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(running.request(FLOWS, JSON, LINE).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn closing_refuses_new_requests_and_waits_for_those_inside() {
    let running = Running::start(CollectOptions::default()).await;
    *running.sink.hold.lock().unwrap() = true;
    let inside = tokio::spawn(running.request(FLOWS, JSON, LINE).send());
    running.sink.entered.notified().await;
    let mut closing = Box::pin(running.collector.close());
    assert!(futures::poll!(&mut closing).is_pending());
    let late = running.request(FLOWS, JSON, LINE).send().await.unwrap();
    assert_eq!(late.status(), 503);
    assert!(answer(late).await.1.contains("draining"));
    assert!(futures::poll!(&mut closing).is_pending());
    running.sink.go.notify_one();
    closing.await;
    assert_eq!(inside.await.unwrap().unwrap().status(), 200);
    assert_eq!(running.records().len(), 1);
}

/// The connection was closed over the unread body, so a sender saw a reset in place of the 503 that says when to come
/// again.
#[tokio::test]
async fn a_sender_with_a_large_body_hears_why_it_is_refused() {
    let running = Running::start(CollectOptions::default()).await;
    running.collector.close().await;
    let body = vec![b' '; 8 << 20];
    for (path, status) in [(FLOWS, "503"), ("/publish", "503"), ("/nowhere", "404")] {
        // A sender that listens once it has sent everything, as most do.
        let mut sender = TcpStream::connect(running.address).await.unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        sender.write_all(head.as_bytes()).await.unwrap();
        sender.write_all(&body).await.unwrap();
        let mut answer = String::new();
        sender.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    assert_eq!((running.counted("flows", "draining"), running.metrics.in_flight.get()), (1, 0));
}

/// It waited for whoever was sending a body that nobody takes, and so for as long as somebody did.
#[tokio::test]
async fn a_closing_collector_does_not_wait_for_those_it_refuses() {
    let running = Running::start(CollectOptions::default()).await;
    let head = format!("POST {FLOWS} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: 10\r\n\r\n");
    running.collector.close().await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    silent.write_all(head.as_bytes()).await.unwrap();
    while running.metrics.in_flight.get() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(futures::poll!(Box::pin(running.collector.close())).is_ready());
    assert_eq!(running.metrics.in_flight.get(), 1, "it is still refusing");
}

/// A closing collector's connections end with their answers, so it must not wait long for what it throws away.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_thrown_away_is_not_waited_for_long() {
    let body = axum::body::Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let began = tokio::time::Instant::now();
    super::body::discard(&axum::http::HeaderMap::new(), body, &CollectOptions::default()).await;
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test]
async fn a_client_that_stops_sending_is_timed_out() {
    let options = CollectOptions { body_timeout: Duration::from_millis(50), ..CollectOptions::default() };
    let running = Running::start(options).await;
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    let head = format!("POST {FLOWS} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: 100\r\n\r\n{{");
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
    assert_eq!(running.counted("flows", "body_timeout"), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_is_counted_and_does_not_hold_the_close() {
    let running = Running::start(CollectOptions::default()).await;
    let mut gone = TcpStream::connect(running.address).await.unwrap();
    let head = format!("POST {FLOWS} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: 100\r\n\r\n{{");
    gone.write_all(head.as_bytes()).await.unwrap();
    while running.metrics.in_flight.get() == 0 {
        tokio::task::yield_now().await;
    }
    drop(gone);
    running.collector.close().await;
    assert_eq!(running.counted("flows", "client_gone"), 1);
}

/// Every captured body of two real agents; skipped where the captures are not beside the repository.
#[tokio::test]
async fn all_captured_agent_posts_are_taken() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/nfm/two-subnets/agent-a");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED: no captures in ../shared/data");
        return;
    };
    let running = Running::start(CollectOptions::default()).await;
    let mut paths = entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    paths.sort();
    let mut sent = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "gz")) {
        let body = Bytes::from(std::fs::read(path).unwrap());
        let request = running.request("/publish", PROTOBUF, body.clone()).header("content-encoding", "gzip");
        let got = answer(request.send().await.unwrap()).await;
        assert_eq!(got.0, 200, "{path:?}: {}", got.1);
        sent.push(body);
    }
    assert!(!sent.is_empty());
    assert_eq!(running.records().into_iter().map(|record| record.data).collect::<Vec<_>>(), sent);
}
