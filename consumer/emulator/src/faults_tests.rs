//! Tests of choosing faults; what they do to a real call is tested over HTTP.

use super::*;

fn target(stream: &str, shard: &str) -> Target {
    Target { stream: Some(stream.to_owned()), shard: Some(shard.to_owned()) }
}

#[test]
fn a_rule_hits_only_what_it_names_and_only_as_often() {
    let faults = Faults::new(0);
    faults.add(FaultRule::new(FaultKind::Throttle).on("GetRecords").stream("a").shard("s1").skip(1).times(2)).unwrap();
    let hit = |operation, stream, shard| faults.decide(operation, &target(stream, shard)).error.is_some();
    assert!(!hit("GetShardIterator", "a", "s1"));
    assert!(!hit("GetRecords", "b", "s1"));
    assert!(!hit("GetRecords", "a", "s2"));
    let hits: Vec<bool> = (0..5).map(|_| hit("GetRecords", "a", "s1")).collect();
    assert_eq!(hits, [false, true, true, false, false]);
    assert_eq!((faults.rules()[0].matched, faults.rules()[0].hit), (5, 2));
}

#[test]
fn latencies_add_up_and_the_first_other_rule_decides() {
    let faults = Faults::new(0);
    faults.add(FaultRule::new(FaultKind::Latency { ms: 5 })).unwrap();
    faults.add(FaultRule::new(FaultKind::Throttle).times(1)).unwrap();
    faults.add(FaultRule::new(FaultKind::CutAfterApply)).unwrap();
    faults.add(FaultRule::new(FaultKind::Latency { ms: 7 })).unwrap();
    let first = faults.decide("PutRecord", &Target::default());
    assert_eq!((first.latency, first.error.is_some(), first.cut), (Duration::from_millis(12), true, false));
    let second = faults.decide("PutRecord", &Target::default());
    assert_eq!((second.error.is_some(), second.cut), (false, true));
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let run = || {
        let faults = Faults::new(42);
        faults.add(FaultRule::new(FaultKind::Throttle).chance(0.3)).unwrap();
        (0..200).map(|_| faults.decide("PutRecord", &Target::default()).error.is_some()).collect::<Vec<_>>()
    };
    let hits = run().iter().filter(|hit| **hit).count();
    assert_eq!(run(), run());
    assert!((40..80).contains(&hits), "{hits}");
}

#[test]
fn rules_that_cannot_be_meant_are_refused() {
    let throttle = || FaultRule::new(FaultKind::Throttle);
    assert!(matches!(Faults::new(0).add(throttle().on("GetRecord")), Err(FaultError::Operation(_))));
    assert!(matches!(Faults::new(0).add(throttle().chance(f64::NAN)), Err(FaultError::Probability(_))));
    let status = FaultKind::Status { status: 200, error_type: "X".to_owned() };
    assert!(matches!(Faults::new(0).add(FaultRule::new(status)), Err(FaultError::Status(200))));
    let expire = FaultRule::new(FaultKind::ExpireIterator).on("PutRecord");
    assert!(matches!(Faults::new(0).add(expire), Err(FaultError::Kind(_))));
}
