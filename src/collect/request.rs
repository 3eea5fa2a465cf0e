//! One POST from headers to answer.
//!
//! The order is: is the door open, is it a type we take, is there room, read, decode off the event loop, put, answer. Whatever
//! way it ends, exactly one outcome is counted, also when the client hangs up (the future is dropped). A body that is refused
//! unread is thrown away before the answer ([`discard`]), as far as is polite, so that the client hears it.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::body::{Encoding, announced_length, discard, media_type, read, unpack};
use super::server::Inner;
use super::{Record, Refusal, agent, flows};
use crate::metrics::collect::CollectMetrics;

/// Which door a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    AgentReports,
    Flows,
    Other,
}

impl Route {
    fn label(self) -> &'static str {
        match self {
            Self::AgentReports => "agent_reports",
            Self::Flows => "flows",
            Self::Other => "other",
        }
    }
}

/// A checked body: its records, and how many flows in it can and cannot be read.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) records: Vec<Record>,
    pub(super) accepted: u64,
    pub(super) malformed: u64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Agent,
    JsonLines,
    FlowBatch,
}

impl Kind {
    fn of(route: Route, headers: &HeaderMap) -> Result<Self, Refusal> {
        let media = media_type(headers);
        match (route, media.as_str()) {
            (Route::AgentReports, "application/x-protobuf" | "application/protobuf") => Ok(Self::Agent),
            (Route::Flows, "application/x-protobuf" | "application/protobuf") => Ok(Self::FlowBatch),
            (Route::Flows, "application/json" | "application/x-ndjson" | "application/jsonl") => Ok(Self::JsonLines),
            _ => Err(Refusal::UnsupportedType(media)),
        }
    }

    fn records(self, body: &Bytes, plain: &Bytes) -> Result<Accepted, Refusal> {
        match self {
            Self::Agent => agent::records(body, plain),
            Self::JsonLines => flows::json_records(plain),
            Self::FlowBatch => flows::batch_records(plain),
        }
    }
}

/// Answers a POST to one of the two routes.
pub(super) async fn post(inner: &Inner, route: Route, headers: HeaderMap, body: Body) -> Response {
    // Taken before the check, so that a close between the two waits for this request.
    let in_flight = inner.in_flight.token();
    let counted = Counted::start(&inner.metrics, route);
    let admitted = match admit(inner, route, &headers) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            // Nothing of it reaches the sink: a close that waited for it would wait for whoever sends.
            drop(in_flight);
            return refuse(inner, counted, &headers, body, refusal).await;
        }
    };
    match take(inner, route, &headers, body, admitted).await {
        Ok((accepted, malformed)) => {
            let flows = |outcome| inner.metrics.flows.with_label_values(&[route.label(), outcome]);
            flows("accepted").inc_by(accepted);
            flows("malformed").inc_by(malformed);
            counted.end("accepted");
            let answer = serde_json::json!({ "accepted": accepted, "malformed": malformed }).to_string();
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], answer).into_response()
        }
        Err(refusal) => counted.refused(&refusal),
    }
}

/// Refuses a request that has no route.
pub(super) async fn stray(inner: &Inner, headers: &HeaderMap, body: Body, refusal: Refusal) -> Response {
    refuse(inner, Counted::start(&inner.metrics, Route::Other), headers, body, refusal).await
}

/// Refuses a request whose body nobody has read.
async fn refuse(inner: &Inner, counted: Counted<'_>, headers: &HeaderMap, body: Body, refusal: Refusal) -> Response {
    if let Ok(_permit) = inner.discards.try_acquire() {
        discard(headers, body, &inner.options).await;
    }
    counted.refused(&refusal)
}

async fn take(
    inner: &Inner,
    route: Route,
    headers: &HeaderMap,
    body: Body,
    (kind, encoding, _room): Admitted,
) -> Result<(u64, u64), Refusal> {
    let body = read(headers, body, &inner.options).await?;
    inner.metrics.body_bytes.with_label_values(&[route.label()]).inc_by(body.len() as u64);
    let accepted = decode(inner, kind, encoding, body).await?;
    let counts = (accepted.accepted, accepted.malformed);
    inner.sink.put(accepted.records).await.inspect_err(|error| {
        tracing::warn!(route = route.label(), %error, "records not put");
    })?;
    crash_point!("collect::before_ack");
    Ok(counts)
}

/// What a body is, and the room it has.
type Admitted = (Kind, Encoding, OwnedSemaphorePermit);

/// What can be said without the body: what it is, and room for it.
fn admit(inner: &Inner, route: Route, headers: &HeaderMap) -> Result<Admitted, Refusal> {
    if inner.in_flight.is_closed() {
        return Err(Refusal::Draining);
    }
    let kind = Kind::of(route, headers)?;
    let encoding = Encoding::of(headers)?;
    let limit = inner.options.max_body_bytes;
    let expected = announced_length(headers).unwrap_or(limit).min(limit);
    let room = inner.room(expected).ok_or(Refusal::Overloaded)?;
    Ok((kind, encoding, room))
}

async fn decode(inner: &Inner, kind: Kind, encoding: Encoding, body: Bytes) -> Result<Accepted, Refusal> {
    let permit = inner.decoders.clone().acquire_owned().await.map_err(|_| Refusal::Draining)?;
    let limit = inner.options.max_decoded_bytes;
    let work = move || {
        let _permit = permit;
        kind.records(&body, &unpack(&body, encoding, limit)?)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "decoding failed");
        Refusal::Internal
    })?
}

/// Counts a request once, as gone when nobody says how it ended.
struct Counted<'m> {
    metrics: &'m CollectMetrics,
    route: Route,
    started: Instant,
    outcome: &'static str,
}

impl<'m> Counted<'m> {
    fn start(metrics: &'m CollectMetrics, route: Route) -> Self {
        metrics.in_flight.inc();
        Self { metrics, route, started: Instant::now(), outcome: "client_gone" }
    }

    fn end(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }

    fn refused(self, refusal: &Refusal) -> Response {
        let (route, reason) = (self.route.label(), refusal.reason());
        tracing::debug!(route, reason, detail = %refusal, "request refused");
        self.end(reason);
        refusal.clone().into_response()
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.request_seconds.observe(self.started.elapsed().as_secs_f64());
        self.metrics.requests.with_label_values(&[self.route.label(), self.outcome]).inc();
    }
}
