//! Real agent reports of two subnets with known faults: the faults open incidents, the clean phases do not.
#![allow(clippy::unwrap_used)]

mod capture;

use capture::{Report, by_state, raw, run, sample, sample_path};
use flowshift_detector::{AnomalyEvent, EventType, FeedKind, Settings, Signal};

const LOSS_5: f64 = 1_795_310_577.5;
const LOSS_5_END: f64 = 1_795_310_617.5;
const DELAY_20: f64 = 1_795_310_637.5;
const DELAY_20_END: f64 = 1_795_310_677.6;
const LOSS_20: f64 = 1_795_310_697.6;
const LOSS_20_END: f64 = 1_795_310_721.7;
const REFUSED: f64 = 1_795_310_729.8;
const END: f64 = 1_795_310_758.1;
/// A report covers 5 s and is told at its end, and a step ends up to 10 s after its data.
const SLACK: f64 = 15.0;

fn settings() -> Settings {
    Settings::default().with_step(10).unwrap()
}

fn opened<'a>(events: &'a [AnomalyEvent], src: &str, dst: &str, signal: Signal) -> Vec<&'a AnomalyEvent> {
    let of_pair = |e: &&AnomalyEvent| e.pairs.iter().any(|p| p.src == src && p.dst == dst);
    events.iter().filter(|e| e.event_type == EventType::Opened && e.signal == signal).filter(of_pair).collect()
}

fn within(events: &[&AnomalyEvent], start: f64, end: f64) -> bool {
    events.iter().any(|e| (e.at as f64) > start && (e.at as f64) <= end + SLACK)
}

fn print_scores(reports: &[Report], first_interval_ms: i64) {
    let run = run(reports, settings(), first_interval_ms);
    for step in run.evidence.iter().flat_map(|e| e.rows.iter().map(move |r| (e.step_start_s, r))) {
        for s in &step.1.signals {
            println!(
                "{} {} {:?} {:.1}{} obs {} base {} n {}",
                step.0 - 1_795_310_500,
                step.1.pair,
                s.signal,
                s.score_mn as f64 / 1e3,
                if s.alarmed { "!" } else { "" },
                s.effect.observed,
                s.effect.baseline,
                s.effect.observed_n
            );
        }
    }
    for e in &run.events {
        println!("{} {:?} {} {:?} {}", e.at - 1_795_310_500, e.event_type, e.incident, e.severity, e.summary);
    }
}

fn check(reports: &[Report], first_interval_ms: i64) {
    print_scores(reports, first_interval_ms);
    let run = run(reports, settings(), first_interval_ms);
    let events = &run.events;
    for event in events {
        assert!(event.at as f64 > LOSS_5, "opened while all was clean: {}", event.summary);
        assert!(event.started_at as f64 + 10.0 > LOSS_5, "starts while all was clean: {}", event.summary);
        assert!(!event.pairs.iter().any(|p| p.src == "subnet-a" && p.dst == "subnet-a"), "{}", event.summary);
    }
    let loss = opened(events, "subnet-a", "subnet-b", Signal::Retransmit);
    assert!(within(&loss, LOSS_5, LOSS_5_END), "5 % loss");
    assert!(within(&loss, LOSS_20, LOSS_20_END), "20 % loss");
    let slow = opened(events, "subnet-a", "subnet-b", Signal::Latency);
    assert!(within(&slow, DELAY_20, DELAY_20_END), "20 ms more each way");
    let refused = opened(events, "subnet-a", "subnet-b", Signal::Connect);
    assert!(within(&refused, REFUSED, END), "failed connects");
    assert_eq!(refused.len(), 1);
}

#[test]
fn the_faults_open_incidents_and_the_clean_phases_do_not() {
    check(&sample(), 5_000);
}

#[test]
fn the_guessed_length_of_an_agents_first_interval_does_not_matter() {
    check(&sample(), 30_000);
}

#[test]
fn the_sums_over_all_panes_are_those_of_the_reports() {
    let run = run(&sample(), settings(), 5_000);
    let of = |src: &str, dst: &str| {
        let found = run
            .lane
            .totals()
            .find(|(kind, pair, _)| *kind == FeedKind::Reports && &*pair.src.id == src && &*pair.dst.id == dst);
        found.unwrap().2.counters
    };
    let ab = of("subnet-a", "subnet-b");
    assert_eq!((ab.bytes, ab.segments, by_state(ab.retransmits)), (146_041_455, 106_604, [12, 2_604, 13]));
    assert_eq!((ab.connects, ab.connect_failures), (14, 7));
    let ba = of("subnet-b", "subnet-a");
    assert_eq!((ba.bytes, ba.segments, by_state(ba.retransmits)), (396_093, 3_959, [12, 2, 9]));
    assert_eq!((ba.connects, ba.connect_failures), (789, 0));
    let aa = of("subnet-a", "subnet-a");
    assert_eq!((aa.bytes, aa.segments, by_state(aa.retransmits)), (27_656_444, 19_210, [0, 1, 0]));
    assert_eq!((aa.connects, aa.connect_failures), (2, 0));
}

#[test]
fn the_committed_sample_is_what_the_capture_says() {
    let Some(raw) = raw() else {
        eprintln!("SKIPPED: the raw two-subnet capture is not beside the repository, the sample cannot be compared");
        return;
    };
    if std::env::var_os("FLOWSHIFT_BLESS").is_some() {
        let mut text = String::from(
            "# Flow rows of the two-subnet capture: 89 reports of two network-flow-monitor agents (5 s cadence, 2026-11-22),\n\
             # derived by tests/capture/mod.rs with FLOWSHIFT_BLESS=1; see there for the fields.\n",
        );
        for report in &raw {
            text.push_str(&serde_json::to_string(report).unwrap());
            text.push('\n');
        }
        std::fs::write(sample_path(), text).unwrap();
    }
    assert_eq!(raw, sample());
}
