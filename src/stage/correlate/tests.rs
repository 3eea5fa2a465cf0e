//! SKIP records and what comes after them, and state of earlier versions.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use flowshift_consumer::shard::SequenceNumber;
use flowshift_detector::{FeedKind, Skips, StepEvidence};
use flowshift_proto::state::{Chunk, Kind};

use super::stored::BodyV1;
use super::*;
use crate::metrics::Metrics;

const KIND: FeedKind = FeedKind::Reports;
const START_S: i64 = 1_800_000_000;
const STEP_S: i64 = 60;

fn stage(metrics: &Metrics) -> Correlate {
    Correlate::new(Settings::default(), 2, Outlet::new(None, None), metrics.pipeline.clone())
}

fn record(data: Vec<u8>) -> Record {
    Record {
        sequence: SequenceNumber::new("1").unwrap(),
        sub_sequence: 0,
        arrived_ms: 0,
        partition_key: Arc::from("0"),
        data: data.into(),
    }
}

/// A lane saw nothing in the step of this number.
fn quiet(lane: u16, step: i64) -> Record {
    let evidence = StepEvidence {
        kind: KIND,
        step_start_s: START_S + step * STEP_S,
        step_s: Settings::default().step_s(),
        steps: 1,
        last: false,
        elements: Vec::new(),
        rows: Vec::new(),
        rows_left_out: 0,
    };
    record(evidence::encode(lane, b"", &evidence))
}

/// Nobody waits for the lane before the step of this number.
fn skip(lane: u16, step: i64) -> Record {
    record(evidence::encode_skip(lane, KIND, Settings::default().step_s(), START_S + step * STEP_S))
}

fn dropped(metrics: &Metrics, reason: &str) -> u64 {
    metrics.pipeline.evidence_dropped.with_label_values(&[reason]).get()
}

#[test]
fn evidence_behind_a_skip_is_dropped_under_its_own_reason_and_stays_so_after_a_restart() {
    let metrics = Metrics::new().unwrap();
    let mut first = stage(&metrics);
    for said in [quiet(0, 0), quiet(1, 0), quiet(0, 1), quiet(0, 2), skip(1, 3), skip(1, 3)] {
        first.process(&said).unwrap();
    }
    first.process(&quiet(1, 1)).unwrap();
    assert_eq!((dropped(&metrics, "skipped"), dropped(&metrics, "repeated")), (1, 0));

    let mut next = stage(&metrics);
    next.restore(first.save().unwrap()).unwrap();
    for said in [quiet(1, 1), quiet(1, 2), quiet(1, 3)] {
        next.process(&said).unwrap();
    }
    assert_eq!((dropped(&metrics, "skipped"), dropped(&metrics, "repeated")), (2, 1));
    assert_eq!(next.correlator.skips().late_steps, 2);
    next.process(&record(b"nothing of ours".to_vec())).unwrap();
    assert_eq!(dropped(&metrics, "unreadable"), 1);
}

#[test]
fn state_of_version_1_is_taken_up_again() {
    let mut old = stage(&Metrics::new().unwrap());
    old.process(&quiet(0, 0)).unwrap();
    let v1 = BodyV1 {
        correlator: old.correlator.state().clone(),
        outbox: old.outbox.clone(),
        ended: BTreeSet::from([1]),
        unreadable: 5,
    };
    let body = postcard::to_stdvec(&v1).unwrap();
    let stored = Chunk { version: 1, kind: Kind::Correlate, body }.encode();
    let read = Body::decode(&stored).unwrap();
    assert_eq!((read.correlator, read.ended, read.unreadable), (v1.correlator, v1.ended, 5));
    assert_eq!(read.skips, Skips::default());
}
