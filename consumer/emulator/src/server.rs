//! HTTP: from a request to an operation and back, faults included.
//!
//! Each connection has a [`Cutter`] that the handler can pull, so that a call can take effect and its answer never
//! leave the process. Nothing here knows what an operation does.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State, connect_info::Connected},
    http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE},
    response::Response,
    serve::{IncomingStream, Listener},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

use crate::{
    api::{self, subscribe},
    error::ApiError,
    faults::{Decision, FaultRule},
    service::Service,
};

/// Most bytes of a request body: 10 MiB of records in base64, with room for keys and names.
const MAX_BODY: usize = 24 << 20;
const JSON: &str = "application/x-amz-json-1.1";
const EVENTS: &str = "application/vnd.amazon.eventstream";
const TARGET_PREFIX: &str = "Kinesis_20131202.";

/// Cuts one connection: from then on nothing more is written to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cutter(Arc<AtomicBool>);

impl Cutter {
    fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

/// A connection that can be cut.
#[derive(Debug)]
pub(crate) struct CuttableStream {
    stream: TcpStream,
    cutter: Cutter,
}

/// Listens on TCP and makes every connection cuttable.
#[derive(Debug)]
pub(crate) struct CuttableListener(pub(crate) TcpListener);

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (CuttableStream, Self::Addr) {
        let (stream, addr) = Listener::accept(&mut self.0).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        (CuttableStream { stream, cutter: Cutter::default() }, addr)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Cutter {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().cutter.clone()
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.cutter.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.cutter.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cutter.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The whole HTTP surface.
pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new().fallback(handle).with_state(service)
}

async fn handle(
    State(service): State<Arc<Service>>,
    ConnectInfo(cutter): ConnectInfo<Cutter>,
    request: Request,
) -> Response {
    match (request.method(), request.uri().path()) {
        (_, "/_faults") => return faults(&service, request).await,
        (&Method::GET, "/_stats") => return json_response(200, &json!(service.counters.snapshot())),
        (&Method::POST, "/") => {}
        (method, path) => {
            let error = ApiError::unknown_operation(format!("{method} {path} is not here; operations are POST /"));
            return refuse(&service, "none", &ApiError { status: 404, ..error });
        }
    }
    let operation = match operation(&request) {
        Ok(operation) => operation,
        Err(error) => return refuse(&service, "none", &error),
    };
    let Ok(body) = axum::body::to_bytes(request.into_body(), MAX_BODY).await else {
        let error = ApiError::serialization(format!("the request is cut short or larger than {MAX_BODY} bytes"));
        return refuse(&service, operation, &ApiError { status: 413, ..error });
    };
    let decision = decide(&service, operation, &body).await;
    if let Some(error) = &decision.error {
        service.counters.answer(operation, "injected");
        return error_response(error);
    }
    let answer = run(&service, operation, &body, &decision);
    if decision.cut || answer.is_none() {
        service.counters.answer(operation, "cut");
        cutter.cut();
    }
    answer.unwrap_or_default()
}

/// Reads the operation from the headers.
fn operation(request: &Request) -> Result<&'static str, ApiError> {
    let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let content_type = header("content-type");
    let kind = content_type.split(';').next().unwrap_or("").trim();
    if kind != JSON && kind != "application/json" {
        let shown: String = kind.chars().take(80).collect();
        return Err(ApiError::serialization(format!(
            "content type {shown:?} is not supported, use {JSON} (CBOR is not supported)"
        )));
    }
    let target: String = header("x-amz-target").chars().take(120).collect();
    let name = target.strip_prefix(TARGET_PREFIX).unwrap_or("");
    let known = api::OPERATIONS.iter().find(|o| **o == name);
    known.copied().ok_or_else(|| {
        ApiError::unknown_operation(format!("x-amz-target {target:?} is not an operation of this emulator"))
    })
}

/// Asks the fault rules, and waits if they say so.
async fn decide(service: &Service, operation: &str, body: &[u8]) -> Decision {
    if !service.faults.is_active() {
        return Decision::default();
    }
    let decision = service.faults.decide(operation, &api::target(body));
    if !decision.latency.is_zero() {
        tokio::time::sleep(decision.latency).await;
    }
    decision
}

/// Runs an operation; `None` when the emulator is off.
fn run(service: &Arc<Service>, operation: &str, body: &[u8], decision: &Decision) -> Option<Response> {
    let _power = service.powered()?;
    let answer = if operation == "SubscribeToShard" {
        subscribe::subscribe(service, body).map(|events| (EVENTS, Body::from_stream(events)))
    } else {
        api::call(service, operation, body, decision.partial.as_ref()).map(|json| (JSON, Body::from(json)))
    };
    Some(match answer {
        Ok((content_type, body)) => {
            service.counters.answer(operation, "ok");
            response(200, content_type, body)
        }
        Err(error) => refuse(service, operation, &error),
    })
}

/// Counts and writes an error of ours.
fn refuse(service: &Service, operation: &str, error: &ApiError) -> Response {
    service.counters.answer(operation, &error.code);
    error_response(error)
}

/// Writes an error as the SDKs type it.
fn error_response(error: &ApiError) -> Response {
    let mut response = json_response(error.status, &json!({"__type": error.code, "message": error.message}));
    if let Ok(kind) = HeaderValue::from_str(&error.code) {
        response.headers_mut().insert("x-amzn-errortype", kind);
    }
    response
}

fn json_response(status: u16, value: &serde_json::Value) -> Response {
    response(status, JSON, Body::from(value.to_string()))
}

fn response(status: u16, content_type: &'static str, body: Body) -> Response {
    static REQUESTS: AtomicU64 = AtomicU64::new(1);
    let id = format!("00000000-0000-0000-0000-{:012x}", REQUESTS.fetch_add(1, Ordering::Relaxed));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    response
}

/// The body of `POST /_faults`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetFaults {
    seed: Option<u64>,
    #[serde(default)]
    rules: Vec<FaultRule>,
}

async fn faults(service: &Service, request: Request) -> Response {
    let error = |status, message: String| json_response(status, &json!({"message": message}));
    match *request.method() {
        Method::GET => {}
        Method::DELETE => service.faults.clear(),
        Method::POST => {
            let Ok(body) = axum::body::to_bytes(request.into_body(), MAX_BODY).await else {
                return error(413, "the body is too large".to_owned());
            };
            let set: SetFaults = match serde_json::from_slice(&body) {
                Ok(set) => set,
                Err(reason) => return error(400, reason.to_string()),
            };
            if let Err(reason) = service.faults.add_all(set.rules) {
                return error(400, reason.to_string());
            }
            if let Some(seed) = set.seed {
                service.faults.seed(seed);
            }
        }
        _ => return error(405, "use GET, POST or DELETE".to_owned()),
    }
    json_response(200, &json!({"rules": service.faults.rules()}))
}
