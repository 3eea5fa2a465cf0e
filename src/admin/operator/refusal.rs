//! Why a request is not taken, and what the operator is told.
//!
//! One JSON form for all: `{"error", "detail", "fix"}`, with `field` and `value` where a field is at fault. `error` is
//! a word of a closed set for programs; the rest is for people. Invariant: a value is shown cut to what a person reads,
//! and the token never.

use std::fmt;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Characters of a value that are shown.
const SHOWN: usize = 120;

/// A request that is not taken.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    error: &'static str,
    detail: String,
    at: Option<Box<(String, Value)>>,
    fix: String,
}

impl Refusal {
    fn new(status: StatusCode, error: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status, error, detail: detail.into(), at: None, fix: fix.into() }
    }

    /// A field of the body is wrong.
    pub(super) fn field(name: &str, value: &Value, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let at = Some(Box::new((name.to_owned(), shown(value))));
        Self { at, ..Self::new(StatusCode::BAD_REQUEST, "invalid", detail, fix) }
    }

    /// A field names what the topology does not have.
    pub(super) fn unknown(name: &str, value: &Value, detail: impl Into<String>, fix: impl fmt::Display) -> Self {
        let fix = format!("{fix}; or send \"force\": true (--force) to mute it all the same");
        let at = Some(Box::new((name.to_owned(), shown(value))));
        Self { at, ..Self::new(StatusCode::BAD_REQUEST, "unknown", detail, fix) }
    }

    /// Whether the topology has what a field names cannot be said.
    pub(super) fn no_topology() -> Self {
        let fix = "see the log of this process; or send \"force\": true (--force) to mute it unseen";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_topology", "the topology in force cannot be read", fix)
    }

    /// The body is no object of JSON.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        let fix = "send one JSON object, such as {\"by\": \"ada\", \"note\": \"on it\"}";
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail, fix)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let detail = format!("the body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail, "shorten the note")
    }

    pub(super) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not arrive in time", "send it again")
    }

    /// No token is configured.
    pub(super) fn off() -> Self {
        let fix = "set admin.token_file or admin.token_env and start again";
        Self::new(StatusCode::FORBIDDEN, "off", "commands are off: no token is configured", fix)
    }

    pub(super) fn unauthorized() -> Self {
        let fix = "send the header `Authorization: Bearer TOKEN` with the token of admin.token_file or admin.token_env";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "the token is missing or wrong", fix)
    }

    /// What the path names is not there.
    pub(super) fn not_found(what: &str, id: &str, fix: &str) -> Self {
        let value = Value::from(id);
        let detail = format!("no {what} has this id");
        let at = Some(Box::new(("id".to_owned(), shown(&value))));
        Self { at, ..Self::new(StatusCode::NOT_FOUND, "not_found", detail, fix) }
    }

    /// It is there, and over.
    pub(super) fn over(id: &str) -> Self {
        let at = Some(Box::new(("id".to_owned(), shown(&Value::from(id)))));
        let fix = "only open incidents can be spoken of; GET /v1/incidents lists them";
        Self { at, ..Self::new(StatusCode::CONFLICT, "over", "the incident is resolved", fix) }
    }

    /// Kinesis or DynamoDB did not answer as it should.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        let fix = "send it again: a word said twice counts once";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail, fix)
    }

    /// It was done here, and may be forgotten by the next owner.
    pub(super) fn not_kept(detail: impl Into<String>, fix: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_kept", detail, fix)
    }

    /// Its outcome in metrics.
    pub(super) fn outcome(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "unauthorized",
            status if status.is_server_error() => "failed",
            _ => "refused",
        }
    }
}

fn shown(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= SHOWN {
        return value.clone();
    }
    Value::from(text.chars().take(SHOWN).chain(['…']).collect::<String>())
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({"error": self.error, "detail": self.detail, "fix": self.fix});
        if let Some((field, value)) = self.at.map(|at| *at) {
            (body["field"], body["value"]) = (field.into(), value);
        }
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
        }
        response
    }
}
