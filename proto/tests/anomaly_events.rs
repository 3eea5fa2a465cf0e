//! The published schema and examples of anomaly events, against the types.
//!
//! After a change of the types that is meant, write the schema anew with
//! `FLOWSHIFT_WRITE_SCHEMA=1 cargo test -p flowshift-proto --test anomaly_events`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use flowshift_proto::anomaly::{AnomalyError, AnomalyEvent, EventType, ResolveReason, WebhookBody, json_schema};
use serde_json::Value;

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn example(name: &str) -> String {
    std::fs::read_to_string(folder("examples").join(name)).unwrap()
}

const EXAMPLES: [(&str, EventType); 7] = [
    ("anomaly.opened.json", EventType::Opened),
    ("anomaly.updated.json", EventType::Updated),
    ("anomaly.resolved.json", EventType::Resolved),
    ("anomaly.resolved-merged.json", EventType::Resolved),
    ("anomaly.opened-muted.json", EventType::Opened),
    ("anomaly.updated-acknowledged.json", EventType::Updated),
    ("anomaly.resolved-not-an-issue.json", EventType::Resolved),
];

#[test]
fn the_published_schema_is_that_of_the_types() {
    let path = folder("schema").join("anomaly.v1.json");
    let current = format!("{}\n", serde_json::to_string_pretty(&json_schema()).unwrap());
    if std::env::var_os("FLOWSHIFT_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), current, "write it anew if the change is meant");
}

#[test]
fn every_example_is_a_webhook_body_that_survives_the_types_unchanged() {
    for (name, kind) in EXAMPLES {
        let text = example(name);
        let body: WebhookBody = serde_json::from_str(&text).unwrap();
        assert_eq!((body.kind, body.data.kind), (kind, kind), "{name}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(&body).unwrap(), value, "{name} has a field that the types do not know");
        assert_eq!(body.data.to_webhook().unwrap(), body, "{name}");
        assert_eq!(serde_json::from_str::<AnomalyEvent>(&body.data.to_json().unwrap()).unwrap(), body.data);
        assert_eq!(body.data.reason.is_some(), kind == EventType::Resolved, "{name}");
        assert_eq!(body.data.into.is_some(), body.data.reason == Some(ResolveReason::Merged), "{name}");
        assert_eq!(body.data.dismissed.is_some(), body.data.reason == Some(ResolveReason::NotAnIssue), "{name}");
    }
}

#[test]
fn every_event_type_signal_and_required_field_of_the_event_format_is_in_the_schema() {
    let schema = json_schema();
    let text = schema.to_string();
    for word in ["anomaly.opened", "anomaly.updated", "anomaly.resolved", "retransmit", "latency", "connect", "silence"]
    {
        assert!(text.contains(&format!("\"{word}\"")), "{word}");
    }
    let required = schema.pointer("/$defs/AnomalyEvent/required").unwrap().as_array().unwrap();
    for field in ["type", "incident", "sequence", "at", "signal", "severity", "verdict", "element", "pairs", "summary"]
    {
        assert!(required.contains(&Value::from(field)), "{field}");
    }
}

#[test]
fn a_number_that_is_not_finite_is_an_error_and_never_written() {
    let body: WebhookBody = serde_json::from_str(&example("anomaly.opened.json")).unwrap();
    let mut event = body.data;
    event.observed.as_mut().unwrap().high = f64::NAN;
    assert!(matches!(event.to_json(), Err(AnomalyError::NotFinite { field: "observed.high", .. })));
    assert!(event.to_webhook().is_err());
}
