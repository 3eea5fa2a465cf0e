//! A door before DynamoDB that throttles, fails, and loses answers of what was applied: dynoxide has no fault hooks.
//!
//! It forwards whole HTTP/1.1 requests, one at a time per connection, and decides by its own seed what happens to each.
//! Not here: any knowledge of tables. Invariant: a request that is refused never reaches DynamoDB, one that is cut
//! always did.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::chance::Chance;

/// How often what happens, each from 0 to 1; the rest passes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// `ProvisionedThroughputExceededException`, not applied.
    pub(crate) throttled: f64,
    /// `InternalServerError` (500), not applied.
    pub(crate) failed: f64,
    /// Applied, and the connection dropped without an answer.
    pub(crate) cut: f64,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) passed: u64,
    pub(crate) throttled: u64,
    pub(crate) failed: u64,
    pub(crate) cut: u64,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    chance: Chance,
    seen: Seen,
}

enum Fate {
    Pass,
    /// With this status and exception.
    Refuse(&'static str, &'static str),
    Cut,
}

/// The running door.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// Serves `listener` in the current runtime, before the server at `upstream`.
    pub(crate) fn start(listener: TcpListener, upstream: String, chance: Chance) -> Self {
        let state = State { weather: Weather::default(), chance, seen: Seen::default() };
        let proxy = Self { state: Arc::new(Mutex::new(state)) };
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (proxy, upstream) = (serving.clone(), upstream.clone());
                tokio::spawn(async move {
                    // Either side may go away at any moment: workers are killed here.
                    proxy.serve(client, &upstream).await.ok();
                });
            }
        });
        proxy
    }

    /// From now on.
    pub(crate) fn set(&self, weather: Weather) {
        self.state.lock().unwrap().weather = weather;
    }

    /// What happened so far.
    pub(crate) fn seen(&self) -> Seen {
        self.state.lock().unwrap().seen
    }

    fn decide(&self) -> Fate {
        let State { weather, chance, seen } = &mut *self.state.lock().unwrap();
        let point = chance.share();
        if point < weather.throttled {
            seen.throttled += 1;
            return Fate::Refuse("400 Bad Request", "ProvisionedThroughputExceededException");
        }
        if point < weather.throttled + weather.failed {
            seen.failed += 1;
            return Fate::Refuse("500 Internal Server Error", "InternalServerError");
        }
        if point < weather.throttled + weather.failed + weather.cut {
            seen.cut += 1;
            return Fate::Cut;
        }
        seen.passed += 1;
        Fate::Pass
    }

    async fn serve(&self, mut client: TcpStream, upstream: &str) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut server = TcpStream::connect(upstream).await?;
        server.set_nodelay(true)?;
        let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
        while let Some(request) = message(&mut client, &mut from_client).await? {
            match self.decide() {
                Fate::Refuse(status, exception) => client.write_all(refusal(status, exception).as_bytes()).await?,
                fate => {
                    server.write_all(&request).await?;
                    let answer = message(&mut server, &mut from_server).await?;
                    let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
                    if matches!(fate, Fate::Cut) {
                        return Ok(());
                    }
                    client.write_all(&answer).await?;
                }
            }
        }
        Ok(())
    }
}

/// One whole HTTP message with a `content-length`; `None` when the other side closed between two.
async fn message(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|text| text.trim().parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
            let whole = end + 4 + length;
            while read.len() < whole {
                if stream.read_buf(read).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let rest = read.split_off(whole);
            return Ok(Some(std::mem::replace(read, rest)));
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}

fn refusal(status: &str, exception: &str) -> String {
    let kind = format!("com.amazonaws.dynamodb.v20120810#{exception}");
    let body = json!({ "__type": kind, "message": "refused by the test" }).to_string();
    let head = "content-type: application/x-amz-json-1.0\r\ncontent-length";
    format!("HTTP/1.1 {status}\r\n{head}: {}\r\n\r\n{body}", body.len())
}
