//! What happens to records on their way from a stream to an incident.
//!
//! Every record that comes in ends in `records_accounted` or in exactly one reason of `records_rejected`, so
//! `in = accounted + sum(rejected)` holds whenever nothing is in flight. Stages add per batch, after the commit.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::register::{MetricsError, Registrar};

/// Why a record is in no pane; the same closed set as the decoders' reasons.
pub const REASONS: [&str; 7] = ["malformed", "unmapped", "late", "future", "duplicate", "unsupported", "expired"];

/// Why evidence is dropped: said before, its lane was skipped for the step, not of this job, or not to be read.
pub const DROPPED: [&str; 4] = ["repeated", "skipped", "foreign", "unreadable"];

/// What became of an operator's request: taken, wrong or about nothing, without the token, or not for now.
pub const REQUESTS: [&str; 4] = ["accepted", "refused", "unauthorized", "failed"];

/// What incidents are about, whose fault they are and how bad: the closed sets of the events.
pub const SIGNALS: [&str; 4] = ["connect", "retransmit", "latency", "silence"];
/// See [`SIGNALS`].
pub const VERDICTS: [&str; 4] = ["workload", "provider_path", "shared_unknown", "insufficient"];
/// See [`SIGNALS`].
pub const SEVERITIES: [&str; 4] = ["s1", "s2", "s3", "s4"];

/// What operators say.
pub const VERBS: [&str; 4] = ["acknowledge", "mute", "unmute", "not_an_issue"];
/// What becomes of it.
pub const HEARD: [&str; 5] = ["applied", "repeated", "not_there", "bad_end", "full"];

/// The kinds of feed, each with its own watermark.
pub const FEEDS: [&str; 2] = ["reports", "flow_logs"];

/// Counts of the three stages.
#[derive(Debug, Clone)]
pub struct PipelineMetrics {
    /// Flow records read, by feed kind.
    pub records_in: IntCounterVec,
    /// Flow records in panes.
    pub records_accounted: IntCounter,
    /// Flow records in no pane, by [`REASONS`].
    pub records_rejected: IntCounterVec,
    /// Evidence that CORRELATE dropped, by [`DROPPED`].
    pub evidence_dropped: IntCounterVec,
    /// Incident events that went undelivered, because too many waited.
    pub outbox_dropped: IntCounter,
    /// Operators' words heard by CORRELATE, by verb and outcome (closed sets of the detector).
    pub operator_words: IntCounterVec,
    /// Operators' requests to the admin server, by [`REQUESTS`].
    pub operator_requests: IntCounterVec,
    /// Event-time steps judged by the detector.
    pub steps_judged: IntCounter,
    /// Incidents opened, by signal, verdict and severity (all closed sets of the detector).
    pub incidents_opened: IntCounterVec,
    /// Incidents resolved.
    pub incidents_resolved: IntCounter,
    /// Incidents open now.
    pub incidents_open: IntGauge,
    /// Directed subnet pairs with windows in memory.
    pub subnet_pairs: IntGauge,
}

/// One part of a gauge that several owners share: each sets its own part, and takes it back when it ends.
#[derive(Debug)]
pub struct Share {
    gauge: IntGauge,
    mine: i64,
}

impl Share {
    /// A part of 0.
    #[must_use]
    pub fn of(gauge: &IntGauge) -> Self {
        Self { gauge: gauge.clone(), mine: 0 }
    }

    /// Makes the part this large.
    pub fn set(&mut self, part: i64) {
        self.gauge.add(part.saturating_sub(self.mine));
        self.mine = part;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gauge.sub(self.mine);
    }
}

impl PipelineMetrics {
    /// Makes the metrics with every reason and feed at zero.
    ///
    /// # Errors
    /// [`MetricsError::Register`] on a name taken twice.
    pub fn new(registrar: &mut Registrar) -> Result<Self, MetricsError> {
        let records_in =
            registrar.counters("flowshift_records_in_total", "Flow records read from the input stream.", &["feed"])?;
        let records_rejected = registrar.counters(
            "flowshift_records_rejected_total",
            "Flow records that are in no pane, by the one reason that applies.",
            &["reason"],
        )?;
        let evidence_dropped = registrar.counters(
            "flowshift_evidence_dropped_total",
            "Evidence records that are in no incident, by reason: repeated, skipped (they came after their lane had been skipped for the step), foreign or unreadable.",
            &["reason"],
        )?;
        for reason in DROPPED {
            evidence_dropped.with_label_values(&[reason]).inc_by(0);
        }
        let outbox_dropped = registrar.counter(
            "flowshift_outbox_dropped_total",
            "Incident events dropped before all receivers had them, because 2000 of them waited.",
        )?;
        let operator_requests = registrar.counters(
            "flowshift_operator_requests_total",
            "Operators' commands to the admin server: accepted, refused, unauthorized or failed (not put, or state not readable).",
            &["outcome"],
        )?;
        for outcome in REQUESTS {
            operator_requests.with_label_values(&[outcome]).inc_by(0);
        }
        for feed in FEEDS {
            records_in.with_label_values(&[feed]).inc_by(0);
        }
        for reason in REASONS {
            records_rejected.with_label_values(&[reason]).inc_by(0);
        }
        let operator_words = registrar.counters(
            "flowshift_operator_words_total",
            "Operators' words heard: acknowledge, mute, unmute or not_an_issue, by what became of them.",
            &["verb", "outcome"],
        )?;
        let incidents_opened = registrar.counters(
            "flowshift_incidents_opened_total",
            "Incidents opened, by the signal that opened them, first verdict and first severity.",
            &["signal", "verdict", "severity"],
        )?;
        // A counter that is not there before its first event has no increase at that event.
        for (verb, outcome) in VERBS.iter().flat_map(|verb| HEARD.map(|outcome| (verb, outcome))) {
            operator_words.with_label_values(&[verb, outcome]).inc_by(0);
        }
        for (signal, verdict) in SIGNALS.iter().flat_map(|signal| VERDICTS.map(|verdict| (signal, verdict))) {
            for severity in SEVERITIES {
                incidents_opened.with_label_values(&[signal, verdict, severity]).inc_by(0);
            }
        }
        Ok(Self {
            records_in,
            records_rejected,
            evidence_dropped,
            outbox_dropped,
            records_accounted: registrar
                .counter("flowshift_records_accounted_total", "Flow records whose counters are in panes.")?,
            operator_words,
            operator_requests,
            steps_judged: registrar
                .counter("flowshift_steps_judged_total", "Steps of event time judged by the detector.")?,
            incidents_opened,
            incidents_resolved: registrar.counter("flowshift_incidents_resolved_total", "Incidents resolved.")?,
            incidents_open: registrar.int_gauge("flowshift_incidents_open", "Incidents open now.")?,
            subnet_pairs: registrar
                .int_gauge("flowshift_subnet_pairs", "Directed subnet pairs with windows in memory.")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use flowshift_detector as detector;
    use flowshift_proto::anomaly::{Severity, Signal, Verdict};
    use flowshift_proto::reason::Reason;

    use super::*;

    #[test]
    fn closed_sets_of_labels_are_those_of_events_and_words() {
        use Verdict::{Insufficient, ProviderPath, SharedUnknown, Workload};
        let signals = [Signal::Connect, Signal::Retransmit, Signal::Latency, Signal::Silence];
        assert_eq!(signals.map(Signal::as_str), SIGNALS);
        assert_eq!([Workload, ProviderPath, SharedUnknown, Insufficient].map(Verdict::as_str), VERDICTS);
        assert_eq!([Severity::S1, Severity::S2, Severity::S3, Severity::S4].map(Severity::as_str), SEVERITIES);
        use detector::Outcome::{Applied, BadEnd, Full, NotThere, Repeated};
        assert_eq!([Applied, Repeated, NotThere, BadEnd, Full].map(detector::Outcome::as_str), HEARD);
    }

    /// Each reducer set the gauge to its own pairs: it showed those of the one that had saved last. And a worker that
    /// gave the incidents away went on showing them as open.
    #[test]
    fn owners_share_a_gauge_and_take_their_part_back() {
        let gauge = IntGauge::new("pairs", "Pairs.").unwrap();
        let (mut one, mut other) = (Share::of(&gauge), Share::of(&gauge));
        one.set(5);
        other.set(2);
        one.set(4);
        assert_eq!(gauge.get(), 6);
        drop(one);
        assert_eq!(gauge.get(), 2);
    }

    #[test]
    fn the_reasons_are_those_of_the_decoders() {
        assert!(Reason::iter().map(Reason::as_str).eq(REASONS));
    }
}
