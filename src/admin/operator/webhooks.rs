//! The webhooks of this process: which are disabled, and enabling them.
//!
//! For: the process that delivers now, the owner of the evidence stream's lease. Not for: the others, which answer that they
//! deliver nothing. Unlike a word it goes to the owner alone, and not through the evidence stream. Invariants: enabling needs
//! the token, and is answered 200 only when it is committed.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::refusal::Refusal;
use super::routes::answer;
use super::{Inner, Operator};
use crate::webhook::{EnableError, SwitchState};

/// What a process that does not deliver is told to do.
const OWNER: &str = "ask the worker that owns the evidence stream; `flowshift leases list` names it";
/// How long a commit may take.
const COMMIT: Duration = Duration::from_secs(15);

pub(super) async fn list(State(operator): State<Operator>) -> Response {
    let webhooks: Vec<Value> = operator.inner.switches.list().into_iter().map(show).collect();
    answer(StatusCode::OK, &json!({"webhooks": webhooks}))
}

fn show(state: SwitchState) -> Value {
    let mut told =
        json!({"webhook": state.name, "format": state.format.as_str(), "disabled": state.disabled.is_some()});
    if let Some(disabled) = state.disabled {
        (told["disabled_since"], told["event"]) = (disabled.since_ms.div_euclid(1_000).into(), disabled.event.into());
    }
    told
}

pub(super) async fn enable(State(operator): State<Operator>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let inner = &operator.inner;
    let (outcome, response) = match enabled(inner, &name, &headers).await {
        Ok((was_disabled, disabled)) => (
            "accepted",
            answer(StatusCode::OK, &json!({"webhook": name, "disabled": disabled, "was_disabled": was_disabled})),
        ),
        Err(refusal) => (refusal.outcome(), refusal.into_response()),
    };
    inner.requests.with_label_values(&[outcome]).inc();
    response
}

/// Whether it was disabled, and whether it is now: it may have answered 410 again.
async fn enabled(inner: &Inner, name: &str, headers: &HeaderMap) -> Result<(bool, bool), Refusal> {
    inner.authorize(headers)?;
    let was_disabled = match timeout(COMMIT, inner.switches.enable(name)).await {
        Ok(Ok(was_disabled)) => was_disabled,
        Ok(Err(EnableError::Unknown(_))) => return Err(unknown(inner, name)),
        Ok(Err(error @ EnableError::Lost(_))) => return Err(Refusal::not_kept(error.to_string(), OWNER)),
        Err(_) => {
            let detail =
                format!("webhook {name} gets entries again, but that is not committed after {} s", COMMIT.as_secs());
            return Err(Refusal::not_kept(detail, "send it again: enabling twice is enabling once"));
        }
    };
    tracing::info!(endpoint = name, was_disabled, "webhook enabled by an operator");
    let now = inner.switches.list().into_iter().find(|state| state.name == name);
    Ok((was_disabled, now.is_some_and(|state| state.disabled.is_some())))
}

fn unknown(inner: &Inner, name: &str) -> Refusal {
    let known: Vec<String> = inner.switches.list().into_iter().map(|state| state.name).collect();
    if known.is_empty() {
        return Refusal::not_found("webhook this process delivers to", name, OWNER);
    }
    Refusal::not_found("webhook", name, &format!("use one of {}", known.join(", ")))
}
