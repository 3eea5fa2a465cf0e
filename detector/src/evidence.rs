//! What a lane says about one step: the only thing that crosses from the lanes to the correlator.
//!
//! For: a compact, exact account of a step: rows for pairs that are worse, sums for all that are quiet.
//! Not for: raw counts; those stay in the lane.
//! Invariant: all numbers are integers (scores in milli-nats), all lists are sorted by id, so equal states give equal
//! bytes.

use serde::{Deserialize, Serialize};

use crate::feed::FeedKind;
use crate::topology::{Element, Pair};

/// What was measured to be worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Connection attempts fail.
    Connect,
    /// Segments are retransmitted.
    Retransmit,
    /// Round-trip times have grown.
    Latency,
    /// Traffic collapsed while its reporters still report, and what is left times out.
    Silence,
}

impl Signal {
    /// The name in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Retransmit => "retransmit",
            Self::Latency => "latency",
            Self::Silence => "silence",
        }
    }
}

/// How much history a pair's baseline has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Under an hour: the prior of the path class dominates; only added loss of 1 % or more is looked for.
    ClassPrior,
    /// No day of history at this time of day: the pair's own level, with a widened null.
    PairRate,
    /// A week or more of history at this time of day.
    Settled,
    /// Less than a week of history at this time of day. (Last, because stored numbers stay what they are.)
    DailySeason,
}

impl Stage {
    /// Whether the baseline knows the time of day.
    pub(crate) fn has_season(self) -> bool {
        matches!(self, Self::DailySeason | Self::Settled)
    }
}

/// Baseline and observation in the unit of the signal: parts per million of segments or attempts for
/// [`Signal::Retransmit`] and [`Signal::Connect`], of the expected flows for [`Signal::Silence`], µs of round-trip time for [`Signal::Latency`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Baseline value.
    pub baseline: i64,
    /// Samples behind the baseline (segments, attempts, flow records).
    pub baseline_n: u64,
    /// Age of the baseline: seconds since its first learned step.
    pub baseline_age_s: u64,
    /// Value observed in the sliding window that ends with the step.
    pub observed: i64,
    /// Samples behind the observation.
    pub observed_n: u64,
    /// Seconds the observation spans: the panes of the sliding window since the change began.
    pub observed_s: u32,
    /// Which quantile baseline and observation are (50 or 90); 0 for ratios.
    pub quantile_pct: u8,
    /// Lower end of the 90 % interval of the change (observed − baseline).
    pub low: i64,
    /// Upper end of that interval.
    pub high: i64,
}

/// One signal of one pair that is above 1 nat or alarmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRow {
    /// Which signal.
    pub signal: Signal,
    /// Accumulated score, milli-nats.
    pub score_mn: i64,
    /// Score that opens an incident, milli-nats.
    pub threshold_mn: i64,
    /// Whether the pair is alarmed: from the step that crossed the threshold until recovery.
    pub alarmed: bool,
    /// Whether the pair's baseline was moved to the new level in this step, which ends the alarm.
    pub new_normal: bool,
    /// Estimated start of the change, epoch s.
    pub since_s: i64,
    /// Sizes for people and for the severity.
    pub effect: Effect,
}

/// One pair with at least one signal above 1 nat or alarmed; told about also in steps without traffic (with 0 flows) until it
/// is contradicted or forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairRow {
    /// The pair.
    pub pair: Pair,
    /// Flow records in the step.
    pub flows: u64,
    /// Segments in the step.
    pub segments: u64,
    /// Share of the retransmitted segments that the worst single flow record has, parts per million.
    pub top_flow_share_ppm: u32,
    /// Share of late records, parts per million.
    pub late_share_ppm: u32,
    /// Whether the step was too biased to be judged (truncated agents).
    pub truncated: bool,
    /// Stage of the baseline.
    pub stage: Stage,
    /// The signals, sorted.
    pub signals: Vec<SignalRow>,
}

/// What the pairs of one path element say: the quiet ones (no row), and in the last two sums all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementSum {
    /// The element.
    pub element: Element,
    /// Quiet pairs that crossed it in the sliding window that ends with this step.
    pub pairs: u32,
    /// Those with enough traffic in that window to have shown a fault.
    pub powered: u32,
    /// Weight with which they count against a fault of the element, milli-nats (positive).
    pub against_mn: i64,
    /// Evidence of the last minutes, faded, for an added loss of 0.5 %, summed over all judged pairs across the element,
    /// the quiet and the worse, each clipped to ±4 nats, milli-nats.
    pub loss_mn: i64,
    /// The same for a shift of the round-trip times.
    pub latency_mn: i64,
}

/// Faults of one signal whose evidence is summed over pairs.
pub const POOLED: usize = 4;
/// The signals whose evidence is summed over pairs.
pub const POOLED_SIGNALS: [Signal; 3] = [Signal::Connect, Signal::Retransmit, Signal::Latency];

/// Evidence of one step alone, in milli-nats, by signal (as in [`POOLED_SIGNALS`]) and by fault looked for.
pub type PooledNats = [[i64; POOLED]; POOLED_SIGNALS.len()];

/// What all judged pairs across one path element, the quiet and the worse, say about this step alone: each pair's
/// log-likelihood ratio for a fault of some size, clipped to -1.5..=3 nats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PooledSum {
    /// The element.
    pub element: Element,
    /// Sums over the pairs.
    pub sum_mn: PooledNats,
    /// The largest of one pair, at least 0: without it one pair's fault cannot pass for the element's.
    pub top_mn: PooledNats,
}

/// The evidence of one lane for one step of one feed kind, or for a run of steps in which nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEvidence {
    /// The feed kind.
    pub kind: FeedKind,
    /// Start of the (first) step, epoch s.
    pub step_start_s: i64,
    /// Length of a step, s.
    pub step_s: u32,
    /// Number of steps covered; above 1 only for steps without elements and rows.
    pub steps: u64,
    /// Whether the input has ended: the lane counts as empty ever after. With `steps` 0 nothing else is said.
    pub last: bool,
    /// Sums over quiet pairs, sorted by element.
    pub elements: Vec<ElementSum>,
    /// What the pairs of each element say together, sorted by element; all of it zero is left out.
    pub pooled: Vec<PooledSum>,
    /// Pairs that are worse, sorted by pair.
    pub rows: Vec<PairRow>,
    /// Rows left out because the evidence of a step is bounded; the weakest go first.
    pub rows_left_out: u32,
}

impl PooledSum {
    /// Nothing said yet.
    pub fn nothing(element: Element) -> Self {
        Self { element, sum_mn: PooledNats::default(), top_mn: PooledNats::default() }
    }

    /// Adds what others say: their sums and the largest among them.
    pub fn add(&mut self, sum_mn: &PooledNats, top_mn: &PooledNats) {
        let both = self.sum_mn.as_flattened_mut().iter_mut().zip(self.top_mn.as_flattened_mut());
        let other = sum_mn.as_flattened().iter().zip(top_mn.as_flattened());
        for ((sum, top), (more, largest)) in both.zip(other) {
            *sum = sum.saturating_add(*more);
            *top = (*top).max(*largest);
        }
    }

    /// Whether nothing was said.
    pub fn is_zero(&self) -> bool {
        self.sum_mn == PooledNats::default() && self.top_mn == PooledNats::default()
    }
}

impl StepEvidence {
    /// End of the last covered step, epoch s.
    pub fn end_s(&self) -> i64 {
        let covered = i64::try_from(self.steps).unwrap_or(i64::MAX).saturating_mul(i64::from(self.step_s));
        self.step_start_s.saturating_add(covered)
    }

    /// Whether nothing happened in the covered steps.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty() && self.pooled.is_empty() && self.rows.is_empty() && self.rows_left_out == 0
    }
}
