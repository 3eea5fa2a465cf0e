//! One event in the words of several receivers.
//!
//! For: an outbox entry and the moment of its sending into a body. Not for: signing, sending, or which events an endpoint
//! gets. Invariant: pure; the same entry at the same moment gives the same bytes, and text of others (names, notes) is data
//! in each format and never markup. Golden bodies stand in `proto/examples`. Read `delivery` first.

mod alertmanager;
mod cloudevents;
mod pagerduty;
mod slack;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use flowshift_proto::anomaly::{AnomalyEvent, Severity, Signal, rfc3339};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Delivery;

pub(super) use alertmanager::KEPT_OPEN;

/// The form of a body, and with it how a receiver is proved who sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Standard Webhooks: `{type, timestamp, data}`, signed.
    #[default]
    Standard,
    /// CloudEvents 1.0, structured JSON, signed like `standard`.
    CloudEvents,
    /// Alertmanager's `/api/v2/alerts`.
    Alertmanager,
    /// PagerDuty's Events API v2.
    PagerDuty,
    /// Slack's incoming webhooks.
    Slack,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Standard, Self::CloudEvents, Self::Alertmanager, Self::PagerDuty, Self::Slack];

    /// The word in the settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::CloudEvents => "cloudevents",
            Self::Alertmanager => "alertmanager",
            Self::PagerDuty => "pagerduty",
            Self::Slack => "slack",
        }
    }

    /// Whether requests carry the headers of Standard Webhooks.
    #[must_use]
    pub fn is_signed(self) -> bool {
        matches!(self, Self::Standard | Self::CloudEvents)
    }

    /// Whether what is open must be told again and again, or the receiver forgets it.
    pub(super) fn forgets(self) -> bool {
        self == Self::Alertmanager
    }
}

/// What a body needs beside its entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// Wall-clock time of the sending, milliseconds since 1970.
    pub(super) now_ms: i64,
    /// The job's name.
    pub(super) job: &'a str,
    /// A page about an incident; `{incident}` stands for its id.
    pub(super) link: Option<&'a str>,
    /// PagerDuty's routing key.
    pub(super) routing_key: Option<&'a str>,
    /// The endpoint was told nothing of this incident's opening yet.
    pub(super) first: bool,
    /// What the endpoint was told last of the incident.
    pub(super) before: Option<&'a AnomalyEvent>,
}

impl Context<'_> {
    fn link(&self, incident: &str) -> Option<String> {
        self.link.map(|link| link.replace("{incident}", incident))
    }
}

/// A body as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
}

impl Rendered {
    fn json(value: &Value) -> Self {
        Self { content_type: "application/json", body: Bytes::from(value.to_string()) }
    }
}

/// An entry has no form in a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RenderError {
    /// The body is no JSON.
    #[error("body is not json")]
    Json,
    /// It tells no event that the format has words for.
    #[error("body tells no event that format {0} has words for")]
    NoEvent(&'static str),
    /// A time is outside the years 0 to 9999.
    #[error("time {0} s cannot be written as a date")]
    Time(i64),
    /// The secret is not of the kind the format needs.
    #[error("format {0} has no routing key")]
    NoKey(&'static str),
}

/// The body of `delivery` in `format`.
///
/// # Errors
/// [`RenderError`]: trying again cannot help.
pub(super) fn render(format: Format, delivery: &Delivery, context: &Context<'_>) -> Result<Rendered, RenderError> {
    if format == Format::Standard {
        return Ok(Rendered { content_type: "application/json", body: delivery.body.clone() });
    }
    if format == Format::CloudEvents {
        return cloudevents::render(delivery, context);
    }
    let told = Told::of(delivery, format)?;
    match format {
        Format::Alertmanager => alertmanager::render(&[(&told, context.before)], context),
        Format::PagerDuty => pagerduty::render(&told, context),
        _ => slack::render(&told, context),
    }
}

/// One body that tells all these open incidents again; only for formats that forget.
///
/// # Errors
/// [`RenderError`].
pub(super) fn render_again(open: &[&AnomalyEvent], context: &Context<'_>) -> Result<Rendered, RenderError> {
    let told: Vec<Told<'_>> = open.iter().map(|event| Told::Event(event)).collect();
    let told: Vec<_> = told.iter().map(|told| (told, None)).collect();
    alertmanager::render(&told, context)
}

/// What an entry tells.
#[derive(Debug)]
enum Told<'a> {
    Event(&'a AnomalyEvent),
    /// `webhook test`.
    Test {
        id: String,
        at: i64,
        message: String,
        over: bool,
    },
}

impl<'a> Told<'a> {
    fn of(delivery: &'a Delivery, format: Format) -> Result<Self, RenderError> {
        if let Some(event) = &delivery.event {
            return Ok(Self::Event(event));
        }
        let body: Value = serde_json::from_slice(&delivery.body).map_err(|_| RenderError::Json)?;
        if body["type"] != "webhook.test" {
            return Err(RenderError::NoEvent(format.as_str()));
        }
        Ok(Self::Test {
            id: delivery.incident.clone(),
            at: delivery.created_ms.div_euclid(1_000),
            message: body["data"]["message"].as_str().unwrap_or_default().to_owned(),
            over: body["data"]["resolved"] == true,
        })
    }
}

fn date(epoch_s: i64) -> Result<String, RenderError> {
    rfc3339(epoch_s).ok_or(RenderError::Time(epoch_s))
}

/// The severity in the words of paging systems.
fn paged(severity: Severity) -> &'static str {
    match severity {
        Severity::S1 => "critical",
        Severity::S2 => "error",
        Severity::S3 => "warning",
        Severity::S4 => "info",
    }
}

/// The signal in words for people.
fn signal_words(signal: Signal) -> &'static str {
    match signal {
        Signal::Retransmit => "retransmissions",
        Signal::Latency => "latency",
        Signal::Connect => "failed connects",
        Signal::Silence => "silence",
    }
}

/// The first `limit` characters, with an ellipsis in the place of the last where it was longer.
fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// The first pairs in words, and how many more there are.
fn pairs(event: &AnomalyEvent, most: usize) -> String {
    let named: Vec<String> = event.pairs.iter().take(most).map(|pair| format!("{}>{}", pair.src, pair.dst)).collect();
    match event.pairs.len().saturating_sub(most) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The word of a closed set as events write it.
fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
