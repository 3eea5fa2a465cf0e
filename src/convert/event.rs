//! Anomaly events on their way from CORRELATE to the receivers.
//!
//! For: the detector's event as the published schema, field by field.
//! Not for: signing, delivery and other formats; see the webhooks.
//! Invariant: both types have the same JSON, except that the schema leaves out what is unknown.

use flowshift_detector::event::{self, AffectedPair};
use flowshift_detector::{AnomalyEvent, ElementKind, EventType, Reason, Severity, Signal, Stage, Verdict};
use flowshift_proto::anomaly as wire;

/// The event as receivers see it.
pub fn to_proto(event: &AnomalyEvent) -> wire::AnomalyEvent {
    wire::AnomalyEvent {
        kind: match event.event_type {
            EventType::Opened => wire::EventType::Opened,
            EventType::Updated => wire::EventType::Updated,
            EventType::Resolved => wire::EventType::Resolved,
        },
        incident: event.incident.as_str().to_owned(),
        sequence: u64::from(event.sequence),
        at: event.at,
        started_at: Some(event.started_at),
        signal: signal(event.signal),
        severity: severity(event.severity),
        verdict: verdict(event.verdict),
        element: wire::Element { kind: element_kind(event.element.kind), id: event.element.id.to_string() },
        pairs: event.pairs.iter().map(pair).collect(),
        baseline: Some(baseline(&event.baseline)),
        observed: Some(observed(&event.observed)),
        evidence: Some(evidence(&event.evidence)),
        reason: event.reason.map(reason),
        into: event.into.as_ref().map(|incident| incident.as_str().to_owned()),
        acknowledged: event.acknowledged.as_ref().map(|said| wire::Acknowledged {
            by: said.by.clone(),
            note: said.note.clone(),
            at: said.at,
        }),
        muted: event.muted.as_ref().map(|m| wire::Muted { until: m.until, mutes: m.mutes.clone() }),
        dismissed: event.dismissed.as_ref().map(|said| wire::Dismissed {
            by: said.by.clone(),
            note: said.note.clone(),
            at: said.at,
            until: said.until,
        }),
        summary: event.summary.clone(),
    }
}

fn pair(pair: &AffectedPair) -> wire::AffectedPair {
    wire::AffectedPair { src: pair.src.clone(), dst: pair.dst.clone(), since: pair.since }
}

fn baseline(baseline: &event::BaselineValue) -> wire::Baseline {
    wire::Baseline {
        value: baseline.value,
        n: baseline.n,
        age_s: baseline.age_s,
        stage: match baseline.stage {
            Stage::ClassPrior => wire::Stage::ClassPrior,
            Stage::PairRate => wire::Stage::PairRate,
            Stage::DailySeason => wire::Stage::DailySeason,
            Stage::Settled => wire::Stage::Settled,
        },
    }
}

fn observed(observed: &event::ObservedValue) -> wire::Observed {
    wire::Observed {
        value: observed.value,
        n: observed.n,
        low: observed.low,
        high: observed.high,
        change: observed.change,
    }
}

fn evidence(evidence: &event::EvidenceValue) -> wire::Evidence {
    wire::Evidence {
        nats: evidence.nats,
        of: wire::PairCounts { worse: u64::from(evidence.of.worse), quiet: u64::from(evidence.of.quiet) },
        top_flow_share: Some(evidence.top_flow_share),
        late_share: Some(evidence.late_share),
        truncated: evidence.truncated,
    }
}

fn signal(signal: Signal) -> wire::Signal {
    match signal {
        Signal::Connect => wire::Signal::Connect,
        Signal::Retransmit => wire::Signal::Retransmit,
        Signal::Latency => wire::Signal::Latency,
        Signal::Silence => wire::Signal::Silence,
    }
}

fn severity(severity: Severity) -> wire::Severity {
    match severity {
        Severity::S1 => wire::Severity::S1,
        Severity::S2 => wire::Severity::S2,
        Severity::S3 => wire::Severity::S3,
        Severity::S4 => wire::Severity::S4,
    }
}

fn verdict(verdict: Verdict) -> wire::Verdict {
    match verdict {
        Verdict::Workload => wire::Verdict::Workload,
        Verdict::ProviderPath => wire::Verdict::ProviderPath,
        Verdict::SharedUnknown => wire::Verdict::SharedUnknown,
        Verdict::Insufficient => wire::Verdict::Insufficient,
    }
}

fn element_kind(kind: ElementKind) -> wire::ElementKind {
    match kind {
        ElementKind::Pair => wire::ElementKind::Pair,
        ElementKind::Subnet => wire::ElementKind::Subnet,
        ElementKind::Az => wire::ElementKind::Az,
        ElementKind::AzPath => wire::ElementKind::AzPath,
        ElementKind::Internet => wire::ElementKind::Internet,
    }
}

fn reason(reason: Reason) -> wire::ResolveReason {
    match reason {
        Reason::Recovered => wire::ResolveReason::Recovered,
        Reason::NewNormal => wire::ResolveReason::NewNormal,
        Reason::Merged => wire::ResolveReason::Merged,
        Reason::NotAnIssue => wire::ResolveReason::NotAnIssue,
    }
}

#[cfg(test)]
mod tests {
    use flowshift_detector::AnomalyEvent;
    use serde_json::{Value, json};

    use super::{to_proto, wire};

    fn full() -> Value {
        json!({
            "type": "anomaly.opened", "incident": "inc-3f9a0c5d2b7e4811", "sequence": 4, "at": 1_795_310_600,
            "started_at": 1_795_310_580, "signal": "retransmit", "severity": "s1", "verdict": "workload",
            "element": {"kind": "pair", "id": "subnet-a>subnet-b"},
            "pairs": [{"src": "subnet-a", "dst": "subnet-b", "since": 1_795_310_580},
                      {"src": "subnet-a", "dst": "internet", "since": 1_795_310_590}],
            "baseline": {"value": 0.0002, "n": 7_010, "age_s": 40, "stage": "class_prior"},
            "observed": {"value": 0.049, "n": 3_620, "low": 0.0431, "high": 0.0549, "change": 245.0},
            "evidence": {"nats": 27.4, "of": {"worse": 1, "quiet": 13}, "top_flow_share": 0.31, "late_share": 0.02,
                         "truncated": true},
            "acknowledged": {"by": "ada", "note": "on it", "at": 1_795_310_655},
            "muted": {"until": 1_795_314_200, "mutes": ["mute-1", "mute-2"]},
            "dismissed": {"by": "bob", "note": "", "at": 1_795_310_760, "until": 1_795_397_160},
            "summary": "subnet-a → subnet-b: 4.9 % of segments retransmitted"
        })
    }

    /// The detector's event, converted, must be what the schema's own reader makes of the same JSON.
    fn assert_same(json: &Value) {
        let event: AnomalyEvent = serde_json::from_value(json.clone()).unwrap();
        let expected: wire::AnomalyEvent = serde_json::from_value(json.clone()).unwrap();
        let converted = to_proto(&event);
        assert_eq!(converted, expected);
        assert_eq!(serde_json::from_str::<Value>(&converted.to_json().unwrap()).unwrap(), *json);
    }

    #[test]
    fn every_field_arrives_under_its_own_name() {
        assert_same(&full());
        let resolved = [("type", json!("anomaly.resolved")), ("reason", json!("merged")), ("into", json!("inc-1"))];
        let mut json = full();
        for (field, value) in resolved {
            json[field] = value;
        }
        assert_same(&json);
    }

    #[test]
    fn every_member_of_every_closed_set_keeps_its_name() {
        let sets: [(&str, &[&str]); 7] = [
            ("/type", &["anomaly.opened", "anomaly.updated", "anomaly.resolved"]),
            ("/signal", &["retransmit", "latency", "connect", "silence"]),
            ("/severity", &["s1", "s2", "s3", "s4"]),
            ("/verdict", &["workload", "provider_path", "shared_unknown", "insufficient"]),
            ("/element/kind", &["pair", "subnet", "az_path", "az", "internet"]),
            ("/baseline/stage", &["class_prior", "pair_rate", "daily_season", "settled"]),
            ("/reason", &["recovered", "new_normal", "merged", "not_an_issue"]),
        ];
        for (pointer, names) in sets {
            for name in names {
                let mut json = full();
                json["reason"] = json!("recovered");
                *json.pointer_mut(pointer).unwrap() = json!(name);
                assert_same(&json);
            }
        }
    }

    #[test]
    fn a_change_from_nothing_has_no_ratio() {
        let mut json = full();
        json["observed"].as_object_mut().unwrap().remove("change");
        assert_same(&json);
    }
}
