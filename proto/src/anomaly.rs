//! The events that receivers see: one schema for webhooks, the event log and `--json`.
//!
//! Published as JSON Schema in `schema/anomaly.v1.json` with examples in `examples/`. Times are epoch seconds, values
//! in the unit of the signal (a ratio, or microseconds). Invariant: two runs over the same input give the same bytes,
//! so fields keep their order and numbers are finite.

mod date;
mod operator;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use date::rfc3339;
pub use operator::{Acknowledged, Dismissed, Muted};

/// One line of the event log = `data` of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "flowshift anomaly event, version 1")]
pub struct AnomalyEvent {
    /// What happened to the incident.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// Id of the incident; a re-open is a new `anomaly.opened` with the same id.
    pub incident: String,
    /// 1, 2, .. per incident; a receiver drops what it has seen.
    pub sequence: u64,
    /// Event time of the decision, epoch seconds: the end of the last step that was read.
    pub at: i64,
    /// Estimated start of the change, epoch seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    /// The strongest signal.
    pub signal: Signal,
    /// From the size of the effect: s1 is worst.
    pub severity: Severity,
    /// Whose fault it is, as far as can be told.
    pub verdict: Verdict,
    /// The best guess at the part of the network at fault, also when the verdict abstains.
    pub element: Element,
    /// All pairs affected now; a pair that is left out has left the incident.
    pub pairs: Vec<AffectedPair>,
    /// What was normal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// What was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// How sure it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Why it ended; on `anomaly.resolved` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ResolveReason>,
    /// The incident it went into, when the reason is `merged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// Who takes care of it; on every event of this opening from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledged>,
    /// That it is muted: only receivers that ask for it get the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted: Option<Muted>,
    /// Who said that it is none, when the reason is `not_an_issue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dismissed: Option<Dismissed>,
    /// A sentence for people.
    pub summary: String,
}

/// What happened to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EventType {
    /// It opened, or opened again.
    #[serde(rename = "anomaly.opened")]
    Opened,
    /// Something worth telling changed.
    #[serde(rename = "anomaly.updated")]
    Updated,
    /// It ended.
    #[serde(rename = "anomaly.resolved")]
    Resolved,
}

impl EventType {
    /// The name in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventType::Opened => "anomaly.opened",
            EventType::Updated => "anomaly.updated",
            EventType::Resolved => "anomaly.resolved",
        }
    }
}

/// What got worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Retransmitted segments; values are ratios.
    Retransmit,
    /// Round-trip time; values are microseconds.
    Latency,
    /// Failed connects; values are ratios.
    Connect,
    /// Traffic that is missing; values are ratios of the expected traffic.
    Silence,
}

impl Signal {
    /// The name in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Signal::Retransmit => "retransmit",
            Signal::Latency => "latency",
            Signal::Connect => "connect",
            Signal::Silence => "silence",
        }
    }
}

/// How bad the effect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worst.
    S1,
    /// Bad.
    S2,
    /// Noticeable.
    S3,
    /// Small.
    S4,
}

impl Severity {
    /// The name in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::S1 => "s1",
            Severity::S2 => "s2",
            Severity::S3 => "s3",
            Severity::S4 => "s4",
        }
    }
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// One workload: its own pairs are worse, its neighbours are not.
    Workload,
    /// The provider's network between places: many unrelated pairs through one element are worse.
    ProviderPath,
    /// Several pairs share a cause that cannot be told.
    SharedUnknown,
    /// Too little is known.
    Insufficient,
}

impl Verdict {
    /// The name in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Workload => "workload",
            Verdict::ProviderPath => "provider_path",
            Verdict::SharedUnknown => "shared_unknown",
            Verdict::Insufficient => "insufficient",
        }
    }
}

/// A part of the network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Element {
    /// Kind.
    pub kind: ElementKind,
    /// Id: `subnet-a>subnet-b`, `subnet-a`, `use1-az1`, `use1-az1|use1-az2` (sorted) or `internet`.
    pub id: String,
}

/// A kind of part of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ElementKind {
    /// One directed pair.
    Pair,
    /// One subnet.
    Subnet,
    /// The path between two availability zones, either direction.
    AzPath,
    /// One availability zone.
    Az,
    /// The internet edge.
    Internet,
}

/// A pair affected by an incident.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct AffectedPair {
    /// Source subnet or edge.
    pub src: String,
    /// Destination subnet or edge.
    pub dst: String,
    /// Since when, epoch seconds.
    pub since: i64,
}

/// What was normal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Baseline {
    /// Value in the unit of the signal.
    pub value: f64,
    /// Samples behind it.
    pub n: u64,
    /// Its age, seconds.
    pub age_s: u64,
    /// Warm-up stage it has reached.
    pub stage: Stage,
}

/// How much history a baseline has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Under an hour: what paths of its class usually do dominates.
    ClassPrior,
    /// No day of history at this time of day: the pair's own level, judged with caution.
    PairRate,
    /// Less than a week of history at this time of day.
    DailySeason,
    /// A week or more of it.
    Settled,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Observed {
    /// Value in the unit of the signal.
    pub value: f64,
    /// Samples behind it.
    pub n: u64,
    /// Lower end of the 90 % interval of the change.
    pub low: f64,
    /// Upper end of the 90 % interval of the change.
    pub high: f64,
    /// Observed value as a multiple of the baseline; absent when the baseline is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<f64>,
}

/// How sure it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// Evidence against "nothing changed", nats.
    pub nats: f64,
    /// Pairs of the element.
    pub of: PairCounts,
    /// Share of the retransmitted segments that one flow record has, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_flow_share: Option<f64>,
    /// Share of late records, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_share: Option<f64>,
    /// Reports were cut at their size limit.
    pub truncated: bool,
}

/// Pairs of an element by what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairCounts {
    /// Pairs that got worse.
    pub worse: u64,
    /// Pairs that did not.
    pub quiet: u64,
}

/// Why an incident ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResolveReason {
    /// Back to normal.
    Recovered,
    /// The change lasted so long that it is the new normal.
    NewNormal,
    /// It went into another incident (`into`).
    Merged,
    /// An operator said that it is none (`dismissed`).
    NotAnIssue,
}

/// The body of a webhook in Standard Webhooks form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookBody {
    /// The event's type, as in `data`.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// Event time of the decision, RFC 3339, UTC.
    pub timestamp: String,
    /// The event.
    pub data: AnomalyEvent,
}

/// An event cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum AnomalyError {
    /// A number is infinite or not a number.
    #[error("{field} of incident {incident} is {value}")]
    NotFinite {
        /// Field.
        field: &'static str,
        /// Incident.
        incident: String,
        /// Value.
        value: f64,
    },
    /// A time is outside the years 0 to 9999.
    #[error("time {0} s cannot be written as a date")]
    Time(i64),
    /// The JSON writer failed.
    #[error("event cannot be written as json: {0}")]
    Json(#[from] serde_json::Error),
}

impl AnomalyEvent {
    /// The event as one line of JSON without a line end.
    ///
    /// # Errors
    /// When a number is not finite.
    pub fn to_json(&self) -> Result<String, AnomalyError> {
        self.check_finite()?;
        Ok(serde_json::to_string(self)?)
    }

    /// The body of a webhook about this event.
    ///
    /// # Errors
    /// When a number is not finite, or the time cannot be written as a date.
    pub fn to_webhook(&self) -> Result<WebhookBody, AnomalyError> {
        self.check_finite()?;
        let timestamp = rfc3339(self.at).ok_or(AnomalyError::Time(self.at))?;
        Ok(WebhookBody { kind: self.kind, timestamp, data: self.clone() })
    }

    fn check_finite(&self) -> Result<(), AnomalyError> {
        let baseline = self.baseline.iter().map(|b| ("baseline.value", b.value));
        let observed = self.observed.iter().flat_map(|o| {
            [
                ("observed.value", o.value),
                ("observed.low", o.low),
                ("observed.high", o.high),
                ("observed.change", o.change.unwrap_or(0.0)),
            ]
        });
        let evidence = self.evidence.iter().flat_map(|e| {
            let shares = [("evidence.top_flow_share", e.top_flow_share), ("evidence.late_share", e.late_share)];
            let shares = shares.map(|(field, share)| (field, share.unwrap_or(0.0)));
            [("evidence.nats", e.nats)].into_iter().chain(shares)
        });
        match baseline.chain(observed).chain(evidence).find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((field, value)) => Err(AnomalyError::NotFinite { field, incident: self.incident.clone(), value }),
        }
    }
}

/// The JSON Schema of [`AnomalyEvent`] and [`WebhookBody`], as published in `schema/anomaly.v1.json`.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(WebhookBody).to_value()
}
