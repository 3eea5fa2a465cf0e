//! Anomaly events: what the outside hears.
//!
//! For: the fields of the event format, with an exact JSON form.
//! Not for: delivery; signing, queues and formats are the program's.
//! Invariant: an event is a pure function of the evidence, so a replay gives equal events.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::evidence::{Signal, Stage};
use crate::topology::{Element, Subnet};

/// Id of an incident, made from its content: 16 hexadecimal digits after `inc-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IncidentId(pub(crate) String);

impl IncidentId {
    /// An id as somebody wrote it; whether there is such an incident is another matter.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What happened to the incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventType {
    /// It was opened, or opened again.
    #[serde(rename = "anomaly.opened")]
    Opened,
    /// Its pairs, verdict or severity changed.
    #[serde(rename = "anomaly.updated")]
    Updated,
    /// It is over.
    #[serde(rename = "anomaly.resolved")]
    Resolved,
}

/// How bad it is, by the size of the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// At least 5 % loss or twice the round-trip time, on 100 flows a minute or more.
    S1,
    /// At least 1 % loss or half as much round-trip time again.
    S2,
    /// At least 0.2 % loss or a fifth more round-trip time.
    S3,
    /// Less.
    S4,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Something of ours: one pair or one subnet is worse while its neighbours are not.
    Workload,
    /// The path between or inside zones: many pairs from several subnets are worse together.
    ProviderPath,
    /// Shared, but two explanations are equally good.
    SharedUnknown,
    /// Too few pairs with enough traffic to tell.
    Insufficient,
}

/// Why an incident was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The change went away.
    Recovered,
    /// The change lasted; it is the baseline now.
    NewNormal,
    /// It became part of another incident.
    Merged,
    /// An operator said that it is none.
    NotAnIssue,
}

/// Who took an incident on, and what they said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Who.
    pub by: String,
    /// Why or how, in their words; may be empty.
    pub note: String,
    /// When it was said, by the clock of whoever took it, epoch s.
    pub at: i64,
}

impl Acknowledged {
    /// Whether the same person said the same, whenever.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        (&self.by, &self.note) == (&other.by, &other.note)
    }

    pub(crate) fn until(self, until: i64) -> Dismissed {
        Dismissed { by: self.by, note: self.note, at: self.at, until }
    }
}

/// Who said that an incident is none, and how long the like of it is not raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dismissed {
    /// Who.
    pub by: String,
    /// Why, in their words; may be empty.
    pub note: String,
    /// When it was said, by the clock of whoever took it, epoch s.
    pub at: i64,
    /// Event time from which the pattern may be raised again, epoch s.
    pub until: i64,
}

/// That an incident is muted, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Muted {
    /// Event time at which the first of the mutes ends, epoch s.
    pub until: i64,
    /// Ids of the mutes, sorted.
    pub mutes: Vec<String>,
}

/// A pair that is affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffectedPair {
    /// Source subnet id.
    pub src: String,
    /// Destination subnet id.
    pub dst: String,
    /// Estimated start of the change on this pair, epoch s.
    pub since: i64,
}

impl AffectedPair {
    pub(crate) fn new(src: &Subnet, dst: &Subnet, since: i64) -> Self {
        Self { src: src.id.to_string(), dst: dst.id.to_string(), since }
    }
}

/// The baseline of the pair that drives the incident, in the unit of the signal: ratio (0..=1) for retransmissions and
/// connection failures, µs for latency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BaselineValue {
    /// Its value.
    pub value: f64,
    /// Samples behind it.
    pub n: u64,
    /// Its age in seconds.
    pub age_s: u64,
    /// Its warm-up stage.
    pub stage: Stage,
}

/// What was observed on that pair in the sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ObservedValue {
    /// Its value, in the unit of the signal.
    pub value: f64,
    /// Samples behind it.
    pub n: u64,
    /// Lower end of the 90 % interval of the change, in the unit of the signal.
    pub low: f64,
    /// Upper end of that interval.
    pub high: f64,
    /// Observed value as a multiple of the baseline; `None` when the baseline is 0.
    pub change: Option<f64>,
}

/// How many pairs agree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairCounts {
    /// Pairs across the element that are worse.
    pub worse: u32,
    /// Pairs across the element that have enough traffic and are not.
    pub quiet: u32,
}

/// The evidence behind the event.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EvidenceValue {
    /// Highest score among its pairs, nats.
    pub nats: f64,
    /// Pairs across the element.
    pub of: PairCounts,
    /// Share of the retransmitted segments that one flow record has, 0..=1.
    pub top_flow_share: f64,
    /// Share of late records, 0..=1.
    pub late_share: f64,
    /// Whether any of its pairs is seen through truncated reports.
    pub truncated: bool,
}

/// One event of an incident; its JSON form is the event format. Fields that do not apply are left out of it, so store
/// events in a self-describing form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnomalyEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// Which incident.
    pub incident: IncidentId,
    /// 1, 2, .. per incident; goes on when it re-opens.
    pub sequence: u32,
    /// Event time of the decision: end of the last step read, epoch s.
    pub at: i64,
    /// Estimated start of the change, epoch s.
    pub started_at: i64,
    /// The strongest signal.
    pub signal: Signal,
    /// How bad.
    pub severity: Severity,
    /// Whose fault.
    pub verdict: Verdict,
    /// Best guess at what is at fault, also when the verdict abstains.
    pub element: Element,
    /// All pairs affected now, sorted.
    pub pairs: Vec<AffectedPair>,
    /// Baseline of the strongest pair.
    pub baseline: BaselineValue,
    /// Observation on that pair.
    pub observed: ObservedValue,
    /// What it rests on.
    pub evidence: EvidenceValue,
    /// Why it was resolved.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// The incident it became part of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub into: Option<IncidentId>,
    /// Who takes care of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acknowledged: Option<Acknowledged>,
    /// That it is muted: receivers hear of it only if they want to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub muted: Option<Muted>,
    /// Who said that it is none, when the reason is that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dismissed: Option<Dismissed>,
    /// One sentence for people, with numbers that can be checked.
    pub summary: String,
}
