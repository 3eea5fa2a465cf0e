//! `[[webhooks]]` as people write it.
//!
//! Part of [`super::Settings`]; what needs two keys is checked in [`crate::config::Webhook`]. Invariant: no key holds a
//! secret except a URL that is one, which `config show` masks.

use std::fmt;
use std::path::PathBuf;

use flowshift_proto::anomaly::{Severity, Signal, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Span;
use crate::config::webhook::masked_url;
use crate::webhook::Format;

/// `[[webhooks]]`
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookSettings {
    /// Name in metrics and logs, unique; 1 to 64 letters, digits, `_`, `.` or `-`. Not set: `webhook-<n>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Form of the bodies: `standard` (Standard Webhooks), `cloudevents` (1.0, structured), `alertmanager`
    /// (`/api/v2/alerts`), `pagerduty` (Events v2) or `slack` (incoming webhook).
    pub format: Format,
    /// Where to POST: an `http://` or `https://` URL without user name or password. Not set: PagerDuty's own for
    /// `pagerduty`; for `slack` the secret is the URL.
    pub url: String,
    /// File that holds the secret, read again for every attempt; at most one of `secret_file` and `secret_env`. What it
    /// is depends on `format`: one or two signing secrets (`whsec_...`, one a line; two during a rotation) for `standard`
    /// and `cloudevents`, the routing key for `pagerduty`, a bearer token for `alertmanager` (may be left out), the whole
    /// URL for `slack` (instead of `url`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// Environment variable that holds the secret; a rotation then needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// Only incidents at least this severe, `s1` (worst) to `s4`. An incident that was told once is told to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_severity: Option<Severity>,
    /// Only incidents of these signals: `retransmit`, `latency`, `connect`, `silence`. Empty: all.
    pub signals: Vec<Signal>,
    /// Only incidents with these verdicts: `workload`, `provider_path`, `shared_unknown`, `insufficient`. Empty: all.
    pub verdicts: Vec<Verdict>,
    /// Only incidents of pairs from or to these subnets, by id or by an address range that holds them or lies in them.
    /// Empty: all.
    pub subnets: Vec<String>,
    /// Only incidents of pairs from or to these availability zones (ids), or placed there. Empty: all.
    pub azs: Vec<String>,
    /// A page about an incident, shown where the format can; `{incident}` stands for its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Shortest time between two requests. Not set: `1s` for `slack`, which asks for it, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_interval: Option<Span>,
    /// Waits before the second, third, .. attempt, each give or take a tenth; the last one repeats.
    pub retry: Vec<Span>,
    /// File with the certificates (PEM) that prove this receiver, instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Whether it may be at a link-local address. Metadata services are there, which hand out credentials to whoever asks.
    pub allow_link_local: bool,
    /// How long one request may take; at most `engine.failover` - `engine.renewal` - 1 s.
    pub timeout: Span,
    /// A delivery that failed for this long is given up, and counted.
    pub max_age: Span,
    /// Whether events of muted incidents are posted as well; they carry `muted`.
    pub muted: bool,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            name: None,
            format: Format::Standard,
            url: String::new(),
            secret_file: None,
            secret_env: None,
            min_severity: None,
            signals: Vec::new(),
            verdicts: Vec::new(),
            subnets: Vec::new(),
            azs: Vec::new(),
            link: None,
            min_interval: None,
            ca_file: None,
            allow_link_local: false,
            retry: [5, 30, 120, 600, 1_800].map(Span::secs).to_vec(),
            timeout: Span::secs(5),
            max_age: Span::secs(24 * 3600),
            muted: false,
        }
    }
}

impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Path and query of some receivers' addresses are secrets.
        let shown = toml::to_string(&Self { url: masked_url(&self.url), ..self.clone() }).unwrap_or_default();
        write!(f, "WebhookSettings {{ {} }}", shown.trim().replace('\n', ", "))
    }
}
