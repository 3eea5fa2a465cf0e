//! What opens an incident, what does not, and what is said about it.
#![allow(clippy::unwrap_used)]

mod traffic;

use flowshift_detector::{
    AnomalyEvent, Applied, Correlator, EventType, FeedKind, LaneDetector, MergeOutcome, Pair, Reason, Settings,
    Severity, Signal, Verdict,
};
use traffic::{FAIR, START_S, STEP_S, Weather, run, traffic};

/// Two hours of quiet, then the fault.
const QUIET: i64 = 120;

fn during(step: i64, length: i64) -> bool {
    (QUIET..QUIET + length).contains(&step)
}

fn of_type(events: &[AnomalyEvent], event_type: EventType) -> Vec<&AnomalyEvent> {
    events.iter().filter(|e| e.event_type == event_type).collect()
}

fn on_az_path(pair: &Pair) -> bool {
    pair.elements().iter().any(|e| &*e.id == "az1|az2")
}

#[test]
fn quiet_traffic_raises_nothing() {
    assert!(run(&traffic(1, 240, |_, _, _| FAIR)).events.is_empty());
}

#[test]
fn loss_on_one_pair_is_one_incident_that_blames_the_workload_and_ends() {
    let run = run(&traffic(2, QUIET + 60, |i, _, step| match (i, during(step, 20)) {
        (3, true) => Weather { loss: 0.05, ..FAIR },
        _ => FAIR,
    }));
    let opened = of_type(&run.events, EventType::Opened);
    assert_eq!(opened.len(), 1);
    let event = opened[0];
    assert!(event.at <= START_S + (QUIET + 3) * STEP_S, "opened within three steps");
    assert_eq!((event.signal, event.verdict), (Signal::Retransmit, Verdict::Workload));
    assert_eq!(event.started_at, START_S + QUIET * STEP_S);
    assert!((event.observed.value - 0.05).abs() < 0.01, "{}", event.summary);
    assert!(event.observed.low < 0.05 && event.observed.high > 0.04);
    assert!(event.summary.contains("% of segments retransmitted (baseline 0.0"), "{}", event.summary);
    let resolved = of_type(&run.events, EventType::Resolved);
    assert_eq!(resolved.len(), 1);
    assert_eq!(resolved[0].reason, Some(Reason::Recovered));
    assert!(resolved[0].at <= START_S + (QUIET + 20 + 10) * STEP_S, "resolved within ten minutes");
    let numbers: Vec<u32> = run.events.iter().map(|e| e.sequence).collect();
    assert_eq!(numbers, (1..=u32::try_from(numbers.len()).unwrap()).collect::<Vec<_>>());
}

#[test]
fn five_times_the_traffic_raises_nothing() {
    let run = run(&traffic(3, QUIET + 40, |i, _, step| match (i, during(step, 20)) {
        (4, true) => Weather { flows: 200.0, ..FAIR },
        _ => FAIR,
    }));
    assert!(run.events.is_empty(), "{}", run.events[0].summary);
}

#[test]
fn new_far_clients_are_no_latency_incident() {
    let run = run(&traffic(4, QUIET + 60, |i, _, step| match (i, during(step, 40)) {
        (5, true) => Weather { new_clients: 0.5, ..FAIR },
        _ => FAIR,
    }));
    assert!(run.events.is_empty(), "{}", run.events[0].summary);
}

#[test]
fn three_flows_in_ten_that_take_twice_as_long_are_found_by_what_their_peers_usually_take() {
    // Near and far peers: among their round trips a doubled one is nothing unusual.
    let thin = Weather { flows: 6.0, apart: 0.1, ..FAIR };
    let mut panes = traffic(19, 3 * QUIET + 50, |i, _, step| match (i, during(step - 2 * QUIET, 40)) {
        (3, true) => Weather { doubled: 0.3, ..thin },
        _ => thin,
    });
    let hit = traffic::pairs()[3].clone();
    panes.retain(|(_, pair, _)| *pair == hit);
    let run = run(&panes);
    let opened = of_type(&run.events, EventType::Opened);
    assert_eq!(opened.len(), 1, "{:#?}", run.events.iter().map(|e| &e.summary).collect::<Vec<_>>());
    assert_eq!(opened[0].signal, Signal::Latency);
    assert!(opened[0].at <= START_S + (3 * QUIET + 40) * STEP_S, "while it lasts");
}

#[test]
fn a_slower_path_between_two_zones_is_one_incident_of_the_provider() {
    let run = run(&traffic(5, QUIET + 40, |_, pair, step| match (on_az_path(pair), during(step, 25)) {
        (true, true) => Weather { slower: 1.25, ..FAIR },
        _ => FAIR,
    }));
    let opened = of_type(&run.events, EventType::Opened);
    assert_eq!(opened.len(), 1, "{:#?}", run.events.iter().map(|e| &e.summary).collect::<Vec<_>>());
    assert_eq!((opened[0].verdict, &*opened[0].element.id), (Verdict::ProviderPath, "az1|az2"));
    let last = run.events.iter().rev().find(|e| e.event_type != EventType::Resolved && e.pairs.len() > 4).unwrap();
    assert_eq!(last.verdict, Verdict::ProviderPath);
    assert_eq!(&*last.element.id, "az1|az2");
    assert!(last.pairs.len() >= 6, "of the eight pairs on the path, the clear ones: {}", last.pairs.len());
    assert_eq!(last.severity, Severity::S3);
}

#[test]
fn a_path_alarms_before_any_of_its_pairs_could_alone() {
    let run = run(&traffic(16, QUIET + 30, |_, pair, step| match (on_az_path(pair), during(step, 20)) {
        (true, true) => Weather { loss: 0.003, flows: 10.0, ..FAIR },
        (true, false) => Weather { flows: 10.0, ..FAIR },
        _ => FAIR,
    }));
    let opened = of_type(&run.events, EventType::Opened);
    assert_eq!(opened.len(), 1, "{:#?}", run.events.iter().map(|e| &e.summary).collect::<Vec<_>>());
    assert_eq!((opened[0].verdict, &*opened[0].element.id), (Verdict::ProviderPath, "az1|az2"));
    let at_s = opened[0].at;
    let step = run.evidence.iter().find(|said| said.end_s() == at_s).unwrap();
    assert!(step.rows.iter().flat_map(|row| &row.signals).all(|signal| !signal.alarmed), "no pair alarms alone");
}

#[test]
fn failing_connections_explain_the_loss_and_the_silence_that_come_with_them() {
    let outage = Weather { failing: 0.6, loss: 0.02, gone: 0.8, ..FAIR };
    let run = run(&traffic(17, QUIET + 30, |_, pair, step| match (on_az_path(pair), during(step, 8)) {
        (true, true) => outage,
        _ => FAIR,
    }));
    let opened = of_type(&run.events, EventType::Opened);
    assert_eq!(opened.len(), 1, "{:#?}", run.events.iter().map(|e| &e.summary).collect::<Vec<_>>());
    assert_eq!((opened[0].signal, opened[0].verdict), (Signal::Connect, Verdict::ProviderPath));
}

#[test]
fn a_fault_of_a_workload_stays_its_own_incident_when_its_zone_fails_later() {
    // It was taken into the zone's incident, so that the provider was blamed for it.
    let in_az1 = |pair: &Pair| [&pair.src, &pair.dst].iter().any(|end| end.az.as_deref() == Some("az1"));
    let run = run(&traffic(18, QUIET + 40, |i, pair, step| match (i, in_az1(pair)) {
        (3, _) if during(step, 30) => Weather { loss: 0.03, ..FAIR },
        (_, true) if during(step - 10, 15) => Weather { loss: 0.03, ..FAIR },
        _ => FAIR,
    }));
    let opened = of_type(&run.events, EventType::Opened);
    assert_eq!(opened.len(), 2, "{:#?}", run.events.iter().map(|e| &e.summary).collect::<Vec<_>>());
    assert_eq!((opened[0].verdict, opened[1].verdict), (Verdict::Workload, Verdict::ProviderPath));
    assert_eq!(&*opened[1].element.id, "az1");
    let first = run.events.iter().filter(|e| e.incident == opened[0].incident);
    assert!(first.into_iter().all(|e| e.pairs.len() == 1 && e.verdict == Verdict::Workload));
}

#[test]
fn the_provider_is_never_blamed_on_one_pair() {
    for fault in [Weather { loss: 0.2, ..FAIR }, Weather { slower: 3.0, ..FAIR }, Weather { failing: 0.5, ..FAIR }] {
        let run = run(&traffic(6, QUIET + 10, |i, _, step| if i == 7 && step >= QUIET { fault } else { FAIR }));
        assert!(!run.events.is_empty());
        assert!(run.events.iter().all(|e| e.verdict != Verdict::ProviderPath));
    }
}

#[test]
fn failing_connections_open_an_incident() {
    let run = run(&traffic(7, QUIET + 10, |i, _, step| match (i, during(step, 10)) {
        (2, true) => Weather { failing: 0.3, ..FAIR },
        _ => FAIR,
    }));
    let opened = of_type(&run.events, EventType::Opened);
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0].signal, Signal::Connect);
    assert!((opened[0].observed.value - 0.3).abs() < 0.1);
}

#[test]
fn traffic_that_collapses_is_an_incident_only_when_what_is_left_times_out() {
    let run = run(&traffic(15, QUIET + 40, |i, _, step| match (i, during(step, 10)) {
        (2, true) => Weather { gone: 0.8, ..FAIR },
        (4, true) => Weather { flows: 3.0, ..FAIR },
        _ => FAIR,
    }));
    let opened = of_type(&run.events, EventType::Opened);
    assert_eq!(opened.len(), 1);
    assert_eq!((opened[0].signal, opened[0].pairs.len()), (Signal::Silence, 1));
    assert!(opened[0].at <= START_S + (QUIET + 5) * STEP_S);
    assert!(opened[0].summary.contains("of the expected traffic is left"), "{}", opened[0].summary);
    assert_eq!(opened[0].baseline.value, 1.0);
    assert!(opened[0].observed.value < 1.0, "{}", opened[0].summary);
    assert_eq!(of_type(&run.events, EventType::Resolved).len(), 1);
}

#[test]
fn a_lasting_shift_is_one_incident_that_becomes_the_new_normal() {
    let run = run(&traffic(8, QUIET + 240, |i, _, step| match i {
        1 if step >= QUIET => Weather { slower: 1.6, ..FAIR },
        _ => FAIR,
    }));
    assert_eq!(of_type(&run.events, EventType::Opened).len(), 1);
    let resolved = of_type(&run.events, EventType::Resolved);
    assert_eq!(resolved.len(), 1);
    assert_eq!(resolved[0].reason, Some(Reason::NewNormal));
}

#[test]
fn faster_paths_raise_nothing() {
    let run = run(&traffic(9, QUIET + 40, |i, _, step| match (i, during(step, 30)) {
        (1, true) => Weather { slower: 0.5, ..FAIR },
        _ => FAIR,
    }));
    assert!(run.events.is_empty(), "{}", run.events[0].summary);
}

#[test]
fn what_truncated_reports_say_is_no_evidence() {
    let run = run(&traffic(10, QUIET + 10, |i, _, step| match (i, during(step, 10)) {
        (3, true) => Weather { loss: 0.05, truncated: true, ..FAIR },
        _ => FAIR,
    }));
    assert!(run.events.is_empty());
}

#[test]
fn an_outlier_in_every_step_raises_nothing() {
    let mut panes = traffic(11, QUIET + 30, |_, _, _| Weather { flows: 5.0, ..FAIR });
    for (pane_s, _, cell) in &mut panes {
        if *pane_s >= START_S + QUIET * STEP_S && pane_s.rem_euclid(120) == 0 {
            cell.rtt.record(40_000);
        }
    }
    assert!(run(&panes).events.is_empty());
}

#[test]
fn a_change_that_comes_back_soon_reopens_its_incident() {
    let run = run(&traffic(12, QUIET + 60, |i, _, step| match (i, during(step, 10) || during(step - 25, 10)) {
        (3, true) => Weather { loss: 0.05, ..FAIR },
        _ => FAIR,
    }));
    let opened = of_type(&run.events, EventType::Opened);
    assert_eq!(opened.len(), 2);
    assert_eq!(opened[0].incident, opened[1].incident);
    assert!(opened[1].sequence > opened[0].sequence + 1);
}

#[test]
fn flow_logs_are_judged_on_their_own_clock_and_only_for_connections() {
    let settings = Settings::default().with_feed(FeedKind::FlowLogs, 900);
    let mut lane = LaneDetector::new(settings.clone());
    let mut correlator = Correlator::new(settings, 1);
    let panes = traffic(13, QUIET + 20, |i, _, step| match (i, during(step, 20)) {
        (3, true) => Weather { loss: 0.05, failing: 0.5, ..FAIR },
        _ => FAIR,
    });
    for (pane_s, pair, cell) in &panes {
        assert_eq!(lane.merge(pair, FeedKind::FlowLogs, *pane_s, cell), MergeOutcome::Accepted);
    }
    let mut apply = |correlator: &mut Correlator, kind| {
        lane.close(kind, i64::MAX).iter().for_each(|e| assert_eq!(correlator.apply(0, e), Applied::Taken));
        correlator.advance()
    };
    assert!(apply(&mut correlator, FeedKind::FlowLogs).is_empty(), "nothing is known of the other kind yet");
    let events = apply(&mut correlator, FeedKind::Reports);
    assert!(!events.is_empty());
    assert!(events.iter().all(|e| e.signal == Signal::Connect));
}

#[test]
fn numbers_beyond_all_reason_neither_panic_nor_alarm_alone() {
    let mut panes = traffic(14, QUIET + 10, |_, _, _| Weather { flows: 5.0, ..FAIR });
    for (pane_s, _, cell) in &mut panes {
        if *pane_s == START_S + QUIET * STEP_S {
            let counters = &mut cell.counters;
            for field in [&mut counters.segments, &mut counters.flows, &mut counters.connects, &mut counters.bytes] {
                *field = u64::MAX;
            }
            (counters.retransmits.est, counters.retransmit_flows) = (u64::MAX, u64::MAX);
            (counters.connect_failures, counters.rejects) = (u64::MAX, u64::MAX);
            cell.max_retransmits = u64::MAX;
            cell.rtt.record_summary(u64::MAX, u64::MAX, u64::MAX, u64::MAX);
            cell.rtt.record_values(u64::MAX, u64::MAX);
        }
    }
    let events = run(&panes).events;
    assert!(events.is_empty(), "{events:?}");
}
