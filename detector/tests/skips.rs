//! Lanes that are not waited for: the others' steps go on, what comes too late is dropped once, later steps count again.
#![allow(clippy::unwrap_used)]

mod traffic;

use flowshift_detector::{
    AnomalyEvent, Applied, Correlator, CorrelatorState, EventType, FeedKind, Settings, Skips, StepEvidence,
};
use traffic::{FAIR, KIND, START_S, STEP_S, Weather, traffic};

fn nothing(start_s: i64, steps: u64) -> StepEvidence {
    StepEvidence {
        kind: KIND,
        step_start_s: start_s,
        step_s: Settings::default().step_s(),
        steps,
        last: false,
        elements: Vec::new(),
        pooled: Vec::new(),
        rows: Vec::new(),
        rows_left_out: 0,
    }
}

/// The evidence of a lane whose pairs have a fault, by steps.
fn faulty_lane() -> Vec<StepEvidence> {
    let panes = traffic(21, 110, |pair, _, step| match (pair, step) {
        (3, 90..) => Weather { loss: 0.05, ..FAIR },
        _ => Weather { flows: 25.0, ..FAIR },
    });
    let mut said = traffic::run(&panes).evidence;
    said.retain(|evidence| !evidence.last);
    said
}

fn opened(events: &[AnomalyEvent]) -> usize {
    events.iter().filter(|event| event.event_type == EventType::Opened).count()
}

#[test]
fn the_steps_of_the_other_lanes_go_on_without_a_skipped_one() {
    let said = faulty_lane();
    let mut waiting = Correlator::new(Settings::default(), 2);
    said.iter().for_each(|evidence| assert_eq!(waiting.apply(0, evidence), Applied::Taken));
    assert!(waiting.advance().is_empty(), "lane 1 has said nothing");
    let until_s = said.last().unwrap().end_s();
    assert_eq!(waiting.skip(1, KIND, until_s), Applied::Taken);
    assert!(opened(&waiting.advance()) > 0);
    assert_eq!(waiting.skip(1, KIND, until_s), Applied::Repeated, "idempotent");
    assert_eq!(waiting.skip(1, KIND, until_s - STEP_S), Applied::Repeated, "an earlier one says nothing new");
    assert_eq!(waiting.skip(2, KIND, until_s), Applied::Foreign);
    assert_eq!(waiting.skip(1, FeedKind::FlowLogs, until_s), Applied::Foreign);
}

#[test]
fn what_comes_too_late_is_dropped_once_and_later_steps_count_again() {
    let step = |n: i64| START_S + n * STEP_S;
    let mut correlator = Correlator::new(Settings::default(), 2);
    for lane in 0..2 {
        assert_eq!(correlator.apply(lane, &nothing(step(0), 1)), Applied::Taken);
    }
    assert_eq!(correlator.skip(1, KIND, step(3) + 7), Applied::Taken, "whole steps only");
    assert_eq!(correlator.skips().waiting().collect::<Vec<_>>(), [(KIND, 1, step(3))]);
    assert_eq!(correlator.apply(1, &nothing(step(0), 1)), Applied::Repeated, "said before it was skipped");
    assert_eq!(correlator.apply(1, &nothing(step(1), 1)), Applied::Skipped);
    assert_eq!(correlator.apply(1, &nothing(step(1), 1)), Applied::Repeated, "counted once");
    assert_eq!(correlator.apply(1, &nothing(step(2), 1)), Applied::Skipped);
    assert_eq!(correlator.apply(1, &nothing(step(3), 1)), Applied::Taken);
    assert_eq!((correlator.skips().late_steps, correlator.skips().waiting().count()), (2, 0));
    assert_eq!(correlator.skip(1, KIND, step(4)), Applied::Repeated, "it has spoken for that");
}

#[test]
fn a_run_of_empty_steps_that_goes_on_behind_the_skipped_ones_is_taken() {
    let mut correlator = Correlator::new(Settings::default(), 1);
    assert_eq!(correlator.skip(0, KIND, START_S + 2 * STEP_S), Applied::Taken);
    assert_eq!(correlator.apply(0, &nothing(START_S, 5)), Applied::Taken);
    assert_eq!(correlator.skips().waiting().count(), 0);
}

#[test]
fn an_end_that_comes_too_late_is_still_an_end() {
    let mut correlator = Correlator::new(Settings::default(), 1);
    assert_eq!(correlator.apply(0, &nothing(START_S, 1)), Applied::Taken);
    assert_eq!(correlator.skip(0, KIND, START_S + 3 * STEP_S), Applied::Taken);
    let last = StepEvidence { last: true, ..nothing(START_S + STEP_S, 1) };
    assert_eq!(correlator.apply(0, &last), Applied::Skipped);
    assert_eq!(correlator.apply(0, &nothing(START_S + 9 * STEP_S, 1)), Applied::Repeated, "the lane has ended");
}

#[test]
fn an_incident_does_not_recover_because_its_lane_is_not_heard() {
    let said = faulty_lane();
    let open_at = |lane_stays: bool| {
        let mut correlator = Correlator::new(Settings::default(), 2);
        let mut events = Vec::new();
        let mut until_s = 0;
        // Up to the first incident, then lane 0 falls silent, or has nothing to say.
        for evidence in &said {
            until_s = evidence.end_s();
            assert_eq!(correlator.apply(0, evidence), Applied::Taken);
            assert_eq!(correlator.apply(1, &nothing(evidence.step_start_s, evidence.steps)), Applied::Taken);
            events.extend(correlator.advance());
            if opened(&events) > 0 {
                break;
            }
        }
        let before = correlator.state().open_incidents().count();
        assert!(before > 0);
        for n in 0..20 {
            let start_s = until_s + n * STEP_S;
            assert_eq!(correlator.apply(1, &nothing(start_s, 1)), Applied::Taken);
            if lane_stays {
                assert_eq!(correlator.apply(0, &nothing(start_s, 1)), Applied::Taken);
            } else {
                assert_eq!(correlator.skip(0, KIND, start_s + STEP_S), Applied::Taken);
            }
            correlator.advance();
        }
        (before, correlator.state().open_incidents().count())
    };
    assert_eq!(open_at(true).1, 0);
    let (before, after) = open_at(false);
    assert_eq!(before, after, "nobody saw it recover");
}

#[test]
fn skips_survive_their_stored_form() {
    let mut correlator = Correlator::new(Settings::default(), 2);
    assert_eq!(correlator.apply(0, &nothing(START_S, 1)), Applied::Taken);
    assert_eq!(correlator.skip(0, KIND, START_S + 4 * STEP_S), Applied::Taken);
    let stored = postcard::to_allocvec(&(correlator.state(), correlator.skips())).unwrap();
    let (state, skips) = postcard::from_bytes::<(CorrelatorState, Skips)>(&stored).unwrap();
    let mut again = Correlator::from_state(Settings::default(), state).unwrap().with_skips(skips);
    assert_eq!(again.apply(0, &nothing(START_S + STEP_S, 1)), Applied::Skipped);
    assert_eq!(again.apply(0, &nothing(START_S + 4 * STEP_S, 1)), Applied::Taken);
}
