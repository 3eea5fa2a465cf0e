//! One request to the admin server, and its answer or what it says is wrong.
//!
//! Invariant: the token goes to the address that was given and nowhere else: no redirect is followed, no proxy used.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use reqwest::{RequestBuilder, StatusCode, Url, header, redirect};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::super::Failure;
use crate::admin::operator::Token;
use crate::cli::Door;

/// Environment variable with the token.
const TOKEN: &str = "FLOWSHIFT_ADMIN_TOKEN";
/// How long one request may take: the server itself waits for Kinesis.
const REQUEST: Duration = Duration::from_secs(30);
/// How long `--wait` waits, and how often it asks.
const PATIENCE: Duration = Duration::from_secs(60);
const ASK: Duration = Duration::from_secs(1);

/// A way to one admin server.
pub(in crate::command) struct Client {
    http: reqwest::Client,
    base: Url,
    bearer: Option<String>,
}

impl Client {
    /// To that door; `token` is given for commands, with the file to read it from.
    pub(in crate::command) fn new(door: &Door, token: Option<Option<&Path>>) -> Result<Self, Failure> {
        // A bare address is meant as it is written elsewhere: host and port.
        let text = if door.admin.contains("://") { door.admin.clone() } else { format!("http://{}", door.admin) };
        let base = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let base = base.ok_or_else(|| {
            Failure::usage(anyhow!("--admin {}: write an address such as http://127.0.0.1:9464", door.admin))
        })?;
        let bearer = token.map(|file| bearer(file)).transpose()?;
        // Fails when a provider is installed already, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut http = reqwest::Client::builder().redirect(redirect::Policy::none()).no_proxy().timeout(REQUEST);
        if base.scheme() == "http" {
            http = http.tls_certs_only([]);
        }
        Ok(Self { http: http.build().map_err(Failure::start)?, base, bearer })
    }

    pub(in crate::command) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(self.http.get(self.url(path)?)).await
    }

    pub(in crate::command) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.http.post(self.url(path)?).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(body.to_string())).await
    }

    /// What became of a word, once the job has heard it and committed that.
    pub(in crate::command) async fn outcome(&self, id: &str) -> Result<String, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // State that cannot be read now, as before a job's first commit, is as good as not heard yet.
            let told = self.get(&format!("/v1/words/{id}")).await.unwrap_or_default();
            match told["outcome"].as_str() {
                Some("pending") | None if Instant::now() < deadline => sleep(ASK).await,
                Some("pending") | None => {
                    let why = format!("word {id} is taken, but was not heard within {} s", PATIENCE.as_secs());
                    return Err(Failure::start(anyhow!("{why}: is a `run` of role all or detect alive?")));
                }
                Some(outcome) => return Ok(outcome.to_owned()),
            }
        }
    }

    fn url(&self, path: &str) -> Result<Url, Failure> {
        self.base.join(path).map_err(Failure::usage)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let request = match &self.bearer {
            Some(bearer) => request.header(header::AUTHORIZATION, bearer),
            None => request,
        };
        let answer = request.send().await.with_context(|| format!("no answer from {}", self.base))?;
        let status = answer.status();
        let text = answer.text().await.with_context(|| format!("answer of {} is cut", self.base))?;
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() && body.is_object() {
            return Ok(body);
        }
        let error = anyhow!("{}", told(&self.base, status, &body));
        Err(if status.is_client_error() && body["error"].is_string() {
            Failure::usage(error)
        } else {
            Failure::start(error)
        })
    }
}

fn bearer(file: Option<&Path>) -> Result<String, Failure> {
    let token = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("--token-file {}", path.display()));
            Token::parse("--token-file", &text.map_err(Failure::usage)?)
        }
        None => {
            let text = std::env::var(TOKEN).map_err(|_| {
                Failure::usage(anyhow!(
                    "no token: give --token-file FILE or set {TOKEN} (the server's admin.token_file)"
                ))
            })?;
            Token::parse(TOKEN, &text)
        }
    };
    Ok(token.map_err(Failure::usage)?.bearer())
}

/// What the server says is wrong: the field, its value and the fix.
fn told(base: &Url, status: StatusCode, body: &Value) -> String {
    let text = |key: &str| body[key].as_str().unwrap_or_default();
    if text("error").is_empty() {
        return format!("{base} answered {status}, which is none of flowshift's answers");
    }
    let field = match (text("field"), &body["value"]) {
        ("", _) => String::new(),
        (field, Value::Null) => format!("{field}: "),
        (field, value) => format!("{field} {value}: "),
    };
    // What comes back over the network must not steer a terminal.
    let line = format!("{field}{}; {}", text("detail"), text("fix"));
    line.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
