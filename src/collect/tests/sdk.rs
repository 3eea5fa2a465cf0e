//! The SDK's side against a scripted Kinesis on loopback: what is sent, and how answers are sorted.

use std::sync::{Arc, Mutex};

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

type Shared = Arc<Mutex<(Vec<(u16, Value)>, Vec<Value>)>>;

async fn kinesis(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["x-amz-target"], "Kinesis_20131202.PutRecords");
    let mut shared = shared.lock().unwrap();
    shared.1.push(serde_json::from_slice(&body).unwrap());
    let (status, answer) = shared.0.remove(0);
    let headers = [("content-type", "application/x-amz-json-1.1")];
    (StatusCode::from_u16(status).unwrap(), headers, answer.to_string()).into_response()
}

async fn stream(answers: Vec<(u16, Value)>) -> (KinesisStream, Shared) {
    let shared = Shared::new(Mutex::new((answers, Vec::new())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(kinesis).with_state(shared.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (stream_at(url), shared)
}

fn stream_at(url: String) -> KinesisStream {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
        .region(Region::from_static("us-east-1"))
        .endpoint_url(url)
        .http_client(http)
        .build();
    KinesisStream::new(aws_sdk_kinesis::Client::from_conf(config), "flows".to_owned())
}

fn records() -> Vec<Record> {
    ["one", "two", "three"]
        .map(|text| Record { partition_key: PartitionKey::of_agent("i-1"), data: text.into() })
        .to_vec()
}

#[tokio::test]
async fn each_record_has_its_own_result() {
    let answer = json!({"FailedRecordCount": 2, "Records": [
        {"SequenceNumber": "1", "ShardId": "shardId-000000000000"},
        {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow"},
        {"ErrorCode": "InternalFailure", "ErrorMessage": "oops"},
    ]});
    let (stream, shared) = stream(vec![(200, answer)]).await;
    let results = stream.put_records(records()).await.unwrap();
    assert_eq!(results, [Ok(()), Err(EntryError::Throttled), Err(EntryError::Internal("InternalFailure".to_owned()))]);
    let sent = &shared.lock().unwrap().1[0];
    assert_eq!(sent["StreamName"], "flows");
    assert_eq!(sent["Records"][2], json!({"Data": "dGhyZWU=", "PartitionKey": "i-1"}));
}

#[tokio::test]
async fn failed_calls_are_sorted_by_what_can_help_and_never_repeated_here() {
    let error = |name: &str| json!({"__type": name, "message": "m"});
    let cases = [
        (400, error("ProvisionedThroughputExceededException"), CallError::Throttled),
        (400, error("KMSThrottlingException"), CallError::Throttled),
        (400, error("ResourceNotFoundException"), CallError::Rejected("ResourceNotFoundException: m".to_owned())),
        (400, error("AccessDeniedException"), CallError::Rejected("AccessDeniedException: m".to_owned())),
        (500, error("InternalFailure"), CallError::Unavailable("InternalFailure: m".to_owned())),
        // A server in between that knows no error codes.
        (503, json!({}), CallError::Unavailable("response error: unhandled error: Error".to_owned())),
    ];
    let answers = cases.iter().map(|(status, answer, _)| (*status, answer.clone())).collect();
    let (stream, shared) = stream(answers).await;
    for (count, (_, _, expected)) in cases.into_iter().enumerate() {
        assert_eq!(stream.put_records(records()).await.unwrap_err(), expected);
        assert_eq!(shared.lock().unwrap().1.len(), count + 1);
    }
}

#[tokio::test]
async fn a_closed_port_is_unavailable() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let closed = stream_at(format!("http://127.0.0.1:{port}"));
    assert!(matches!(closed.put_records(records()).await, Err(CallError::Unavailable(_))));
}
