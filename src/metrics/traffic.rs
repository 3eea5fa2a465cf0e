//! What flows between two ends: seven counters with two labels that name the ends.
//!
//! For: the matrix of zones ([`super::paths`]) and the pairs with the most flows ([`super::pairs`]), which differ in who
//! has labels of their own.

use flowshift_detector::PaneCell;
use prometheus::{Counter, CounterVec, IntCounter, IntCounterVec};

use super::register::{MetricsError, Registrar};

/// The families; clones share them.
#[derive(Debug, Clone)]
pub(super) struct TrafficMetrics {
    flows: IntCounterVec,
    segments: IntCounterVec,
    retransmits: IntCounterVec,
    connects: IntCounterVec,
    connect_failures: IntCounterVec,
    rtt_seconds: CounterVec,
    rtt_readings: IntCounterVec,
}

/// The series of one pair of ends.
#[derive(Debug)]
pub(super) struct Traffic {
    flows: IntCounter,
    segments: IntCounter,
    retransmits: IntCounter,
    connects: IntCounter,
    connect_failures: IntCounter,
    rtt_seconds: Counter,
    rtt_readings: IntCounter,
}

impl TrafficMetrics {
    /// Makes the families `flowshift_KIND_…`; `ends` says in their help texts what the ends are.
    pub(super) fn new(r: &mut Registrar, kind: &str, ends: &str, labels: &[&str; 2]) -> Result<Self, MetricsError> {
        let name = |of: &str| format!("flowshift_{kind}_{of}_total");
        let mut counters =
            |of: &str, what: &str, more: &str| r.counters(&name(of), &format!("{what} {ends}{more}"), labels);
        let flows = counters("flows", "Flow records", ".")?;
        let segments = counters("segments", "TCP segments sent", ", retransmitted ones included.")?;
        let retransmits =
            counters("retransmits", "Retransmitted data segments", "; those of SYNs are failing connections.")?;
        let connects = counters("connects", "Connection attempts", ", never fewer than those that failed.")?;
        let connect_failures =
            counters("connect_failures", "Connection attempts", " that were refused, rejected or not answered.")?;
        let rtt_readings = counters("rtt_readings", "Round-trip times read", ".")?;
        let sum = format!("Sum of the round-trip times read {ends}; divided by the readings, the mean.");
        let rtt_seconds = r.float_counters(&name("rtt_seconds"), &sum, labels)?;
        Ok(Self { flows, segments, retransmits, connects, connect_failures, rtt_seconds, rtt_readings })
    }

    /// The series of these ends, made when they are not there.
    pub(super) fn between(&self, ends: [&str; 2]) -> Traffic {
        Traffic {
            flows: self.flows.with_label_values(&ends),
            segments: self.segments.with_label_values(&ends),
            retransmits: self.retransmits.with_label_values(&ends),
            connects: self.connects.with_label_values(&ends),
            connect_failures: self.connect_failures.with_label_values(&ends),
            rtt_seconds: self.rtt_seconds.with_label_values(&ends),
            rtt_readings: self.rtt_readings.with_label_values(&ends),
        }
    }

    /// Takes the series of these ends away.
    pub(super) fn forget(&self, ends: [&str; 2]) {
        let counters = [
            &self.flows,
            &self.segments,
            &self.retransmits,
            &self.connects,
            &self.connect_failures,
            &self.rtt_readings,
        ];
        // One that is not there is what is wanted.
        counters.into_iter().for_each(|counter| drop(counter.remove_label_values(&ends)));
        drop(self.rtt_seconds.remove_label_values(&ends));
    }
}

impl Traffic {
    /// Counts a pane: seven additions.
    pub(super) fn count(&self, cell: &PaneCell) {
        self.flows.inc_by(cell.counters.flows);
        self.segments.inc_by(cell.counters.segments);
        self.retransmits.inc_by(cell.counters.data_retransmits());
        self.connects.inc_by(cell.counters.attempts());
        self.connect_failures.inc_by(cell.counters.failures());
        self.rtt_readings.inc_by(cell.rtt.readings());
        // Exact up to 2^53 µs, which is 285 years.
        self.rtt_seconds.inc_by(cell.rtt.sum_us() as f64 / 1e6);
    }
}
