//! What is planted on top of the noise, and what it does to a pair at a time.
//!
//! Each kind changes one thing only, so that a test can say what must move and what must not. Times are offsets from
//! the region's start.

use serde::Serialize;

/// What kind of change is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlantedKind {
    /// A share `magnitude` of the segments is lost and sent again.
    Loss,
    /// RTT is longer by the share `magnitude`.
    Rtt,
    /// A share `magnitude` of the connection attempts is refused.
    ConnectFailures,
    /// Benign: `magnitude` times the flows, otherwise as before.
    Surge,
    /// Benign: a share `magnitude` more flows, all from new peers 2.5 times as far away.
    NewClients,
}

impl PlantedKind {
    /// The signal of the incident that must open; `None`: none may open.
    pub fn signal(self) -> Option<&'static str> {
        match self {
            Self::Loss => Some("retransmit"),
            Self::Rtt => Some("latency"),
            Self::ConnectFailures => Some("connect"),
            Self::Surge | Self::NewClients => None,
        }
    }
}

/// The element of the network that was hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Element {
    /// `pair` or `az_path`.
    pub kind: &'static str,
    /// `subnet-a>subnet-b` or `use1-az1|use1-az2`.
    pub id: String,
}

/// One planted change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planted {
    /// For people.
    pub name: String,
    /// What changes.
    pub kind: PlantedKind,
    /// How much, in the unit of the kind.
    pub magnitude: f64,
    /// Where.
    pub element: Element,
    /// The directed pairs hit, (source, destination).
    pub pairs: Vec<(String, String)>,
    /// Start, seconds after the region's start.
    pub start_s: i64,
    /// End, exclusive.
    pub end_s: i64,
    /// The signal of the incident that must open; `None`: benign, none may open.
    pub signal: Option<&'static str>,
}

/// What the planted changes do to one pair in one interval; all zero: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Effect {
    /// Added chance that a segment is lost.
    pub(super) loss: f64,
    /// Added logarithm of the RTT, and the share of the interval it holds for.
    pub(super) rtt_log: f64,
    pub(super) rtt_share: f64,
    /// Chance that an attempt is refused.
    pub(super) refused: f64,
    /// Added flows of known peers, as a share of the usual.
    pub(super) more: f64,
    /// Added flows of new peers, as a share of the usual.
    pub(super) newcomers: f64,
}

impl Effect {
    /// Adds what `planted` does in `[from_ms, to_ms)`, in proportion to the overlap: an agent's counters cannot tell
    /// when within its interval something happened.
    pub(super) fn add(&mut self, planted: &Planted, from_ms: i64, to_ms: i64) {
        let start = planted.start_s.saturating_mul(1000).max(from_ms);
        let end = planted.end_s.saturating_mul(1000).min(to_ms);
        if end <= start {
            return;
        }
        let share = (end - start) as f64 / (to_ms - from_ms).max(1) as f64;
        match planted.kind {
            PlantedKind::Loss => self.loss += planted.magnitude * share,
            PlantedKind::Rtt => {
                self.rtt_log = planted.magnitude.ln_1p();
                self.rtt_share = share;
            }
            PlantedKind::ConnectFailures => self.refused += planted.magnitude * share,
            PlantedKind::Surge => self.more += (planted.magnitude - 1.0) * share,
            PlantedKind::NewClients => self.newcomers += planted.magnitude * share,
        }
    }
}
