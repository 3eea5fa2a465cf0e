//! SKIP records and what comes after them, state of earlier versions, and webhooks that answer 410.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bound;
mod webhooks;

use std::sync::Arc;

use flowshift_consumer::shard::SequenceNumber;
use flowshift_detector::{FeedKind, Order, Place, Scope, Skips, StepEvidence, Together, Word};
use flowshift_proto::state::{Chunk, Kind};

use super::stored::{BodyV1, BodyV2};
use super::*;
use crate::convert::word;
use crate::metrics::Metrics;

const KIND: FeedKind = FeedKind::Reports;
const START_S: i64 = 1_800_000_000;
const STEP_S: i64 = 60;

fn stage(metrics: &Metrics) -> Correlate {
    Correlate::new(ShardId::new("shardId-0"), Settings::default(), 2, Outlet::new(None, None), metrics.pipeline.clone())
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
        pooled: Vec::new(),
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

/// An operator mutes a zone.
fn mute(said_s: i64) -> Record {
    let scope = Scope { place: Some(Place::Az("az1".into())), signal: None };
    let order = Order::Mute { scope, until_s: START_S + 7_200 };
    record(word::encode(&Word { said_s, by: "ada".into(), note: String::new(), order }))
}

#[test]
fn a_word_forces_a_commit_and_a_next_owner_that_reads_it_again_hears_a_repeat() {
    let metrics = Metrics::new().unwrap();
    let heard = |outcome: &str| metrics.pipeline.operator_words.with_label_values(&["mute", outcome]).get();
    let mut first = stage(&metrics);
    first.process(&quiet(0, 0)).unwrap();
    let before = first.save().unwrap();
    assert_eq!(before.len(), 1, "no part for words before the first");
    first.committed();
    first.process(&mute(START_S)).unwrap();
    assert!(first.urgent());
    let after = first.save().unwrap();
    assert_eq!(
        after.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["shardId-0/correlate", "shardId-0/words"]
    );
    first.committed();
    first.process(&quiet(1, 0)).unwrap();
    assert_eq!(first.save().unwrap().len(), 1, "unchanged words are not written again");

    // Not committed: the next owner reads the word from the evidence and has the same state.
    let mut lost = stage(&metrics);
    lost.restore(before).unwrap();
    lost.process(&mute(START_S)).unwrap();
    assert_eq!(lost.save().unwrap(), after);
    // Committed: its record stands in the stream a second time, because an answer was lost.
    let mut next = stage(&metrics);
    next.restore(after.clone()).unwrap();
    next.process(&mute(START_S)).unwrap();
    assert_eq!((heard("applied"), heard("repeated")), (2, 1));
    assert_eq!(Stored::read(&after).unwrap().unwrap().words.mutes().count(), 1);
    assert!(next.correlator.words() == lost.correlator.words());
}

#[test]
fn words_of_another_version_are_refused_by_name() {
    let words = Chunk { version: 9, kind: Kind::Words, body: Vec::new() }.encode();
    let problem = format!("{:#}", anyhow::Error::new(stored::words(&words).unwrap_err()));
    assert!(problem.contains("operators' words") && problem.contains("version 9"), "{problem}");
}

/// Words as version 1 of their stored form has them: what was stored once stays readable.
const WORDS_V1: &str = "080110061a4d000001156d7574652d63313430393563373062353533373734010203617a3100c0b8cfb4\
    0d036164610080c8ceb40d000115776f72642d3131316130373063386363396566323980c8ceb40d00";

#[test]
fn words_of_version_1_stay_readable() {
    let mut stage = stage(&Metrics::new().unwrap());
    stage.process(&mute(START_S)).unwrap();
    let (_, written) = stage.save().unwrap().remove(1);
    let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, WORDS_V1);
    assert_eq!(&stored::words(&written).unwrap(), stage.correlator.words());
}

/// Their keys did not name the shard: they are read all the same, saved under the shard's own keys and kept there alone.
#[test]
fn parts_under_the_keys_of_older_versions_are_taken_over_with_the_first_commit() {
    let metrics = Metrics::new().unwrap();
    let mut old = stage(&metrics);
    old.unreadable = 7;
    old.changed = true;
    let (key, bytes) = old.save().unwrap().remove(0);
    assert_eq!(key, "shardId-0/correlate");
    let mut new = stage(&metrics);
    new.restore(vec![("correlate".to_owned(), bytes.clone())]).unwrap();
    assert_eq!(new.save().unwrap(), [(key.clone(), bytes.clone())], "saved though nothing changed");
    assert_eq!(new.unreadable, 7);
    assert!(new.keeps(&key) && !new.keeps("correlate") && !new.keeps("shardId-01/correlate"));
    new.restore(vec![(key, bytes)]).unwrap();
    assert_eq!(new.save().unwrap(), []);
}

#[test]
fn state_of_version_2_is_taken_up_again() {
    let mut old = stage(&Metrics::new().unwrap());
    old.process(&quiet(0, 0)).unwrap();
    old.process(&skip(1, 3)).unwrap();
    let v2 = BodyV2 {
        correlator: old.correlator.state().clone(),
        outbox: old.outbox.clone(),
        ended: BTreeSet::from([1]),
        unreadable: 5,
        skips: old.correlator.skips().clone(),
    };
    let stored = Chunk { version: 2, kind: Kind::Correlate, body: postcard::to_stdvec(&v2).unwrap() }.encode();
    let read = Body::decode(&stored).unwrap();
    assert_eq!((read.correlator, read.ended, read.unreadable), (v2.correlator, v2.ended, 5));
    assert_eq!((read.skips, read.together), (v2.skips, Together::default()));
}
