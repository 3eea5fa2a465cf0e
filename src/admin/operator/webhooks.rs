//! The webhooks of this process: which are disabled, and enabling them.
//!
//! For: the process that delivers now, the owner of the evidence stream's lease. Not for: the others, which answer that they
//! deliver nothing. Unlike words it changes nothing that is committed: a next owner tries every endpoint anew. Invariant:
//! enabling needs the token.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::routes::answer;
use super::{Inner, Operator};
use crate::webhook::SwitchState;

/// What a process that does not deliver is told to do.
const OWNER: &str = "ask the worker that owns the evidence stream; `flowshift leases list` names it";

pub(super) async fn list(State(operator): State<Operator>) -> Response {
    let show = |state: SwitchState| json!({"webhook": state.name, "format": state.format.as_str(), "disabled": state.disabled});
    let webhooks: Vec<Value> = operator.inner.switches.list().into_iter().map(show).collect();
    answer(StatusCode::OK, &json!({"webhooks": webhooks}))
}

pub(super) async fn enable(State(operator): State<Operator>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let inner = &operator.inner;
    let (outcome, response) = match enabled(inner, &name, &headers) {
        Ok(was_disabled) => (
            "accepted",
            answer(StatusCode::OK, &json!({"webhook": name, "disabled": false, "was_disabled": was_disabled})),
        ),
        Err(refusal) => (refusal.outcome(), refusal.into_response()),
    };
    inner.requests.with_label_values(&[outcome]).inc();
    response
}

fn enabled(inner: &Inner, name: &str, headers: &HeaderMap) -> Result<bool, Refusal> {
    inner.authorize(headers)?;
    let was_disabled = inner.switches.enable(name).ok_or_else(|| {
        let known: Vec<String> = inner.switches.list().into_iter().map(|state| state.name).collect();
        if known.is_empty() {
            return Refusal::not_found("webhook this process delivers to", name, OWNER);
        }
        Refusal::not_found("webhook", name, &format!("use one of {}", known.join(", ")))
    })?;
    tracing::info!(endpoint = name, was_disabled, "webhook enabled by an operator");
    Ok(was_disabled)
}
