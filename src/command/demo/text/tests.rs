//! What the demo says, word by word, and that it fits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;

use super::*;
use crate::simulate::Region;

const PLAIN: Style = Style { colour: false };
const COLOUR: Style = Style { colour: true };

fn anomaly(kind: &str, severity: &str) -> AnomalyEvent {
    serde_json::from_value(json!({
        "type": format!("anomaly.{kind}"), "incident": "inc-1", "sequence": 1, "at": 1_795_310_600,
        "started_at": 1_795_310_000, "signal": "retransmit", "severity": severity, "verdict": "workload",
        "element": {"kind": "pair", "id": "subnet-app-1>subnet-db-3"},
        "pairs": [{"src": "subnet-app-1", "dst": "subnet-db-3", "since": 1_795_310_000}],
        "baseline": {"value": 0.000_15, "n": 70_100, "age_s": 10_800, "stage": "pair_rate"},
        "observed": {"value": 0.0482, "n": 8_456, "low": 0.043, "high": 0.055, "change": 321.0},
        "evidence": {"nats": 16.2, "of": {"worse": 1, "quiet": 48}, "truncated": false},
        "summary": ""
    }))
    .unwrap()
}

fn numbers() -> Numbers {
    Numbers {
        reports: 2_516,
        sent: 340_170,
        records_in: 340_170,
        accounted: 340_167,
        rejected: vec![("late", 3)],
        wall_s: 46.8,
    }
}

fn head(region: &Region) -> Header<'_> {
    Header {
        zones: 3,
        subnets: 12,
        pairs: 58,
        agents: 37,
        start_s: 1_795_310_580,
        length_s: Region::DEMO_SECONDS,
        speed: 51.0,
        threshold: 14.18,
        step_s: 60,
        planted: region.planted(),
    }
}

fn without_colours(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap().to_owned();
    first + &parts.map(|part| part.split_once('m').unwrap().1).collect::<String>()
}

/// Every text with events of the kinds, severities and elements that are longest.
fn all(style: Style) -> Vec<String> {
    let region = Region::demo(1);
    let events = [anomaly("opened", "s1"), anomaly("updated", "s2"), anomaly("resolved", "s3")];
    let outcome = Outcome::judge(region.planted(), region.start_s(), &events);
    let running = Status {
        at_s: 1_795_310_600,
        offset_s: 600,
        length_s: 2_040,
        reports: 12_516,
        records_per_s: 123_456.7,
        open: 3,
    };
    let mut texts = vec![
        header(&head(&region), style),
        learned(1_710_961, 12, 10_800, 4.04, style),
        status(&running, style),
        status(&Status { offset_s: 2_040, ..running }, style),
        summary(&outcome, &numbers(), style),
    ];
    texts.extend(events.iter().map(|e| event(e, None, 14.18, style)));
    texts
}

#[test]
fn an_opening_tells_time_place_verdict_and_numbers_to_check() {
    let text = event(&anomaly("opened", "s2"), None, 14.18, PLAIN);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "  01:23  opened    s2  retransmit  subnet-app-1>subnet-db-3       workload");
    assert_eq!(
        lines[1],
        "         0.015 % → 4.8 % of segments resent (n 8,456); 16.2/14.2 nats; 1 of 49 near it worse"
    );
}

#[test]
fn an_update_to_a_graver_severity_is_called_worse_and_another_is_not() {
    let before = Some(Told::after(&anomaly("opened", "s2"), None));
    assert!(event(&anomaly("updated", "s1"), before, 14.18, PLAIN).contains("  worsened  s1"));
    assert!(event(&anomaly("updated", "s3"), before, 14.18, PLAIN).contains("  updated   s3"));
}

#[test]
fn an_ending_tells_how_long_it_was_and_into_what_it_went() {
    let opened = Told::after(&anomaly("opened", "s2"), None);
    let mut resolved = anomaly("resolved", "s2");
    resolved.at += 600;
    let updated = Told::after(&AnomalyEvent { at: resolved.at - 60, ..anomaly("updated", "s1") }, Some(opened));
    assert!(event(&resolved, Some(updated), 14.18, PLAIN).contains("back to normal 10 min after it opened"));
    (resolved.reason, resolved.into) = (Some(ResolveReason::Merged), Some("inc-2".to_owned()));
    assert!(event(&resolved, None, 14.18, PLAIN).contains("part of inc-2"));
}

#[test]
fn colours_change_nothing_but_colours() {
    for (plain, coloured) in all(PLAIN).iter().zip(all(COLOUR)) {
        assert!(!plain.contains('\x1b'));
        assert_ne!(*plain, coloured);
        assert_eq!(*plain, without_colours(&coloured));
    }
}

#[test]
fn everything_fits_into_a_hundred_columns() {
    for line in all(PLAIN).iter().flat_map(|text| text.lines()) {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
}

#[test]
fn the_summary_counts_every_record() {
    let region = Region::demo(1);
    let text = summary(&Outcome::judge(region.planted(), 0, &[]), &numbers(), PLAIN);
    assert!(text.contains("340,170 in 2,516 reports = 340,167 in panes + 3 refused (late 3)"), "{text}");
    assert!(text.contains("✗ 5 % loss              subnet-app-1>subnet-db-3     retransmit  nothing"), "{text}");
    assert!(text.contains("✓ 5 × the flows         subnet-app-2>subnet-cache-2  quiet       quiet"), "{text}");
    assert!(text.contains("false alarms  0\n") && text.contains("wall time     47 s"), "{text}");
}

#[test]
fn records_that_do_not_add_up_are_a_problem() {
    assert_eq!(numbers().problem(), None);
    assert!(Numbers { accounted: 340_166, ..numbers() }.problem().is_some());
    assert!(Numbers { sent: 340_171, ..numbers() }.problem().is_some());
}
