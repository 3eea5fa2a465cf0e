//! The routes of an operator's door, and the way of a command.
//!
//! A command passes the token, the body's limits, its fields and a look at what it names, is put into the evidence
//! stream, and is answered when Kinesis has it. Not here: what it does. Invariant: 202 is answered only for what the
//! stream acknowledged.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use flowshift_consumer::log::{Entry, put_all};
use flowshift_detector::{IncidentId, Order, Word};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::fields::{self, Fields};
use super::refusal::Refusal;
use super::{Inner, Operator, webhooks};
use crate::convert::word;

/// Bytes of the largest body.
const LIMIT: usize = 16 << 10;
/// How long a body may take.
const BODY: Duration = Duration::from_secs(10);
/// How long Kinesis may take.
const PUT: Duration = Duration::from_secs(15);
/// Partition key of words.
const KEY: &str = "operator";

/// The routes under `/v1`.
pub fn routes(operator: Operator) -> Router {
    Router::new()
        .route("/v1/incidents", get(async |State(o): State<Operator>| show(&o, super::view::View::incidents).await))
        .route("/v1/mutes", get(async |State(o): State<Operator>| show(&o, super::view::View::mutes).await).post(mute))
        .route("/v1/words/{id}", get(heard))
        .route("/v1/incidents/{id}/acknowledge", post(acknowledge))
        .route("/v1/incidents/{id}/not-an-issue", post(not_an_issue))
        .route("/v1/mutes/{id}/unmute", post(unmute))
        .route("/v1/webhooks", get(webhooks::list))
        .route("/v1/webhooks/{name}/enable", post(webhooks::enable))
        .with_state(operator)
}

async fn show(operator: &Operator, what: impl Fn(&super::view::View, i64) -> Value) -> Response {
    match operator.inner.view().await {
        Ok(view) => answer(StatusCode::OK, &what(&view, operator.inner.now_s())),
        Err(refusal) => refusal.into_response(),
    }
}

async fn heard(State(operator): State<Operator>, Path(id): Path<String>) -> Response {
    let word = async {
        let id = fields::id("word", &id, "take the id from the answer to the command")?;
        Ok(operator.inner.view().await?.word(id))
    };
    word.await.map_or_else(Refusal::into_response, |word| answer(StatusCode::OK, &word))
}

async fn acknowledge(
    State(operator): State<Operator>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let take = async |inner: &Inner, mut fields: Fields| {
        let (by, note) = fields.speaker()?;
        fields.finish("`by` and `note`")?;
        let id = fields::id("open incident", &id, OPEN)?;
        inner.view().await?.open(id)?;
        Ok((by, note, Order::Acknowledge(IncidentId::new(id))))
    };
    command(&operator.inner, &headers, body, take).await
}

async fn not_an_issue(
    State(operator): State<Operator>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let take = async |inner: &Inner, mut fields: Fields| {
        let (by, note) = fields.speaker()?;
        let until_s = fields.end(&inner.clock)?;
        fields.finish("`by`, `note`, `for` and `until`")?;
        let id = fields::id("open incident", &id, OPEN)?;
        let view = inner.view().await?;
        if !view.dismissed_by(id, &by, &note) {
            view.open(id)?;
        }
        Ok((by, note, Order::NotAnIssue { incident: IncidentId::new(id), until_s }))
    };
    command(&operator.inner, &headers, body, take).await
}

async fn mute(State(operator): State<Operator>, headers: HeaderMap, body: Body) -> Response {
    let take = async |inner: &Inner, mut fields: Fields| {
        let (by, note) = fields.speaker()?;
        let (scope, until_s) = (fields.scope()?, fields.end(&inner.clock)?);
        let force = fields.flag("force")?;
        fields.finish("`pair`, `subnet` or `az`, `signal`, `for` or `until`, `force`, `by` and `note`")?;
        let scope = if force { scope } else { inner.known.check(scope)? };
        Ok((by, note, Order::Mute { scope, until_s }))
    };
    command(&operator.inner, &headers, body, take).await
}

async fn unmute(State(operator): State<Operator>, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let take = async |inner: &Inner, mut fields: Fields| {
        let (by, note) = fields.speaker()?;
        fields.finish("`by` and `note`")?;
        let id = fields::id("mute or dismissal", &id, "GET /v1/mutes lists them")?;
        inner.view().await?.muted(id)?;
        Ok((by, note, Order::Unmute(id.to_owned())))
    };
    command(&operator.inner, &headers, body, take).await
}

const OPEN: &str = "GET /v1/incidents lists the open ones";

/// Takes one command: `take` reads its fields and looks up what they name.
async fn command(
    inner: &Inner,
    headers: &HeaderMap,
    body: Body,
    take: impl AsyncFnOnce(&Inner, Fields) -> Result<(String, String, Order), Refusal>,
) -> Response {
    let said: Result<Word, Refusal> = async {
        inner.authorize(headers)?;
        let body = timeout(BODY, to_bytes(body, LIMIT)).await.map_err(|_| Refusal::too_slow())?;
        let fields = Fields::parse(&body.map_err(|_| Refusal::too_large(LIMIT))?)?;
        let (by, note, order) = take(inner, fields).await?;
        let word = Word { said_s: inner.now_s(), by, note, order };
        inner.put(&word).await?;
        Ok(word)
    }
    .await;
    let (outcome, response) = match said {
        Ok(word) => {
            let mut told = json!({"id": word.id()});
            if let Order::Mute { scope, until_s } = &word.order {
                (told["mute"], told["until"]) = (scope.mute_id().into(), (*until_s).into());
            }
            ("accepted", answer(StatusCode::ACCEPTED, &told))
        }
        Err(refusal) => (refusal.outcome(), refusal.into_response()),
    };
    inner.requests.with_label_values(&[outcome]).inc();
    response
}

pub(super) fn answer(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

impl Inner {
    fn now_s(&self) -> i64 {
        self.clock.now_ms().div_euclid(1_000)
    }

    pub(super) fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let token = self.token.as_ref().ok_or_else(Refusal::off)?.current();
        let told = headers.get(header::AUTHORIZATION).is_some_and(|header| token.is_in(header.as_bytes()));
        if told {
            return Ok(());
        }
        tracing::warn!("a command without the right token was refused");
        Err(Refusal::unauthorized())
    }

    /// Puts the word into the evidence stream and waits until it is there.
    async fn put(&self, word: &Word) -> Result<(), Refusal> {
        let data = Bytes::from(word::encode(word));
        let entry = Entry { partition_key: KEY.to_owned(), hash_key: None, data };
        let stop = CancellationToken::new();
        let put = put_all(&*self.log, &self.evidence, vec![entry], &stop, |_| {});
        let failed = match timeout(PUT, put).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", PUT.as_secs()),
        };
        tracing::warn!(word = word.id(), error = failed, "a command could not be put");
        Err(Refusal::unavailable("the command could not be put into the evidence stream"))
    }
}
