//! Putting bytes into the flows stream past the collector, and faults into the emulator.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::http::{Answer, post};

/// One call in the JSON protocol of Kinesis; the emulator asks for no signature.
pub(crate) fn call(endpoint: &str, operation: &str, request: &Value) -> Answer {
    try_call(endpoint, operation, request).unwrap()
}

/// The same where the connection may break: faults cut answers.
pub(crate) fn try_call(endpoint: &str, operation: &str, request: &Value) -> std::io::Result<Answer> {
    let target = format!("Kinesis_20131202.{operation}");
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
    post(endpoint, "/", &headers, request.to_string().as_bytes())
}

/// Puts payloads in order: all have the same partition key and so the same shard.
pub(crate) fn put(endpoint: &str, stream: &str, key: &str, payloads: &[&[u8]]) {
    for payload in payloads {
        let request = json!({ "StreamName": stream, "PartitionKey": key, "Data": STANDARD.encode(payload) });
        let answer = call(endpoint, "PutRecord", &request);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

/// Puts a payload into the shard that owns a hash key.
pub(crate) fn put_at(endpoint: &str, stream: &str, hash_key: &str, payload: &[u8]) {
    let data = STANDARD.encode(payload);
    let request = json!({ "StreamName": stream, "PartitionKey": "key", "ExplicitHashKey": hash_key, "Data": data });
    let answer = call(endpoint, "PutRecord", &request);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Sets a fault rule.
pub(crate) fn fault(endpoint: &str, rule: Value) {
    let body = json!({ "rules": [rule] }).to_string();
    let answer = post(endpoint, "/_faults", &[("content-type", "application/json")], body.as_bytes()).unwrap();
    assert!(answer.status < 300, "{answer:?}");
}
