//! Evidence survives the way over the wire, and the correlator reaches the same events behind it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use flowshift_detector::{Correlator, Settings};
use prost::Message;

use super::*;

/// What a lane says.
fn decode(bytes: &[u8]) -> Result<(u16, StepEvidence), ConvertError> {
    match super::decode(bytes)? {
        Said::Evidence(lane, evidence) => Ok((lane, evidence)),
        other => panic!("{other:?}"),
    }
}

const START_S: i64 = 1_795_310_540;
const SIGNALS: [Signal; 4] = [Signal::Connect, Signal::Retransmit, Signal::Latency, Signal::Silence];

/// Numbers that differ from each other, so that no two can be exchanged unseen.
fn signal_row(signal: Signal, from: i64) -> SignalRow {
    let n = |step: i64| from + step;
    SignalRow {
        signal,
        score_mn: n(1),
        threshold_mn: n(2),
        alarmed: true,
        new_normal: false,
        since_s: n(3),
        effect: Effect {
            baseline: -n(4),
            baseline_n: n(5).unsigned_abs(),
            baseline_age_s: n(6).unsigned_abs(),
            observed: n(7),
            observed_n: n(8).unsigned_abs(),
            observed_s: 60,
            quantile_pct: 90,
            low: -n(9),
            high: n(10),
        },
    }
}

fn row(src: Subnet, dst: Subnet, stage: Stage, signals: Vec<SignalRow>) -> PairRow {
    PairRow {
        pair: Pair { src, dst },
        flows: 71,
        segments: 72,
        top_flow_share_ppm: 73,
        late_share_ppm: 74,
        truncated: true,
        stage,
        signals,
    }
}

fn sum(kind: ElementKind, id: &str, from: i64) -> ElementSum {
    ElementSum {
        element: Element { kind, id: id.into() },
        pairs: 81,
        powered: 82,
        against_mn: from,
        loss_mn: -from - 1,
        latency_mn: from + 2,
    }
}

fn pooled(kind: ElementKind, id: &str, from: i64) -> PooledSum {
    let mut sum = PooledSum::nothing(Element { kind, id: id.into() });
    (0..).zip(sum.sum_mn.as_flattened_mut()).for_each(|(step, sum_mn)| *sum_mn = from + step);
    (0..).zip(sum.top_mn.as_flattened_mut()).for_each(|(step, top_mn)| *top_mn = 2 * step);
    sum
}

fn empty(steps: u64, last: bool) -> StepEvidence {
    StepEvidence {
        kind: FeedKind::FlowLogs,
        step_start_s: START_S,
        step_s: 10,
        steps,
        last,
        elements: Vec::new(),
        pooled: Vec::new(),
        rows: Vec::new(),
        rows_left_out: 0,
    }
}

fn full() -> StepEvidence {
    let (a, b) = (Subnet::new("subnet-a", Some("use1-az1")), Subnet::new("subnet-b", None));
    let all = SIGNALS.into_iter().zip([100, 200, 300, i64::MAX - 10]).map(|(signal, from)| signal_row(signal, from));
    let moved = SignalRow { alarmed: false, new_normal: true, ..signal_row(Signal::Latency, i64::MIN + 20) };
    let moved = SignalRow { effect: Effect::default(), ..moved };
    StepEvidence {
        kind: FeedKind::Reports,
        last: true,
        elements: vec![
            sum(ElementKind::Pair, "subnet-a>subnet-b", 1),
            sum(ElementKind::Subnet, "subnet-a", 10),
            sum(ElementKind::Az, "use1-az1", -20),
            sum(ElementKind::AzPath, "use1-az1|use1-az2", i64::MAX - 2),
            sum(ElementKind::Internet, "internet", 0),
        ],
        pooled: vec![pooled(ElementKind::Subnet, "subnet-a", 1_000), pooled(ElementKind::Internet, "internet", -50)],
        rows: vec![
            row(Subnet::edge("internet"), a.clone(), Stage::ClassPrior, vec![moved]),
            row(a.clone(), b.clone(), Stage::PairRate, all.collect()),
            row(b, a, Stage::Settled, Vec::new()),
        ],
        rows_left_out: 5,
        ..empty(1, false)
    }
}

#[test]
fn everything_a_lane_says_comes_back() {
    for evidence in [full(), empty(1, false), empty(900, false), empty(0, true), empty(u64::MAX, true)] {
        for lane in [0, 63, u16::MAX] {
            let (read_lane, read) = decode(&encode(lane, b"hash", &evidence)).unwrap();
            assert_eq!((read_lane, &read), (lane, &evidence));
            for (read, sent) in read.rows.iter().zip(&evidence.rows) {
                // Subnets compare by id alone.
                for (read, sent) in [(&read.pair.src, &sent.pair.src), (&read.pair.dst, &sent.pair.dst)] {
                    assert_eq!((&read.az, read.edge), (&sent.az, sent.edge));
                }
            }
        }
    }
}

#[test]
fn numbers_reach_the_fields_of_the_wire_that_bear_their_names() {
    let record = wire::decode(&encode(7, b"hash", &full())).unwrap();
    assert_eq!((record.lane, record.topology_hash.as_slice(), record.rows_left_out), (7, &b"hash"[..], 5));
    assert_eq!((record.first_step_start_s, record.step_s, record.step_count, record.last), (START_S, 10, 1, true));
    let subnet = &record.elements[1];
    assert_eq!((subnet.kind(), subnet.pairs, subnet.powered), (wire::ElementKind::Subnet, 81, 82));
    assert_eq!((subnet.against_mnats, subnet.loss_mnats, subnet.latency_mnats), (10, -11, 12));
    assert_eq!((&subnet.step_mnats[..3], &subnet.step_top_mnats[10..]), (&[1_000, 1_001, 1_002][..], &[20, 22][..]));
    let row = &record.rows[1];
    assert_eq!((row.flows, row.segments, row.top_flow_share_ppm, row.late_share_ppm), (71, 72, 73, 74));
    assert_eq!((row.stage(), row.truncated), (wire::Stage::PairRate, true));
    // The wire's own order of signals.
    let connect = &row.signals[2];
    assert_eq!((connect.signal(), connect.alarmed, connect.new_normal), (wire::Signal::Connect, true, false));
    assert_eq!((connect.score_mnats, connect.threshold_mnats, connect.since_s), (101, 102, 103));
    let effect = connect.effect.unwrap();
    assert_eq!((effect.baseline, effect.baseline_n, effect.baseline_age_s), (-104, 105, 106));
    assert_eq!((effect.observed, effect.observed_n, effect.observed_s), (107, 108, 60));
    assert_eq!((effect.quantile_pct, effect.low, effect.high), (90, -109, 110));
}

#[test]
fn a_large_step_fits_its_record_and_counts_the_rows_that_had_to_go() {
    let mut evidence = full();
    let rows = (0..2_000i64).map(|number| {
        let src = Subnet::new(&format!("subnet-{number:04}"), Some("use1-az1"));
        let signal = SignalRow { alarmed: number % 500 == 0, ..signal_row(Signal::Retransmit, 1_000 + number) };
        row(src, Subnet::edge("internet"), Stage::Settled, vec![signal])
    });
    evidence.rows = rows.collect();
    let bytes = encode(3, b"hash", &evidence);
    assert!(bytes.len() <= wire::MAX_BYTES);
    let (_, read) = decode(&bytes).unwrap();
    let left_out = evidence.rows.len() - read.rows.len();
    assert!(left_out > 0);
    assert_eq!(read.rows_left_out, 5 + u32::try_from(left_out).unwrap());
    assert_eq!(read.elements, evidence.elements);
    assert!(evidence.rows.iter().filter(|row| row.signals[0].alarmed).all(|row| read.rows.contains(row)));
}

#[test]
fn the_correlator_says_the_same_whether_it_hears_the_lanes_directly_or_over_the_wire() {
    let settings = Settings::default();
    let mut signals = Vec::new();
    let (mut direct, mut wired) = (Correlator::new(settings.clone(), 1), Correlator::new(settings.clone(), 1));
    for step in 0..6 {
        if step == 2 {
            let strong =
                SignalRow { score_mn: 40_000, threshold_mn: 14_000, ..signal_row(Signal::Retransmit, START_S) };
            signals.push(SignalRow { since_s: START_S, ..strong });
        }
        let (a, b) = (Subnet::new("subnet-a", Some("use1-az1")), Subnet::new("subnet-b", Some("use1-az2")));
        for kind in [FeedKind::Reports, FeedKind::FlowLogs] {
            let step_start_s = 1_795_310_520 + i64::from(settings.step_s()) * step;
            let said = StepEvidence { kind, step_start_s, step_s: settings.step_s(), ..empty(1, false) };
            let rows = vec![row(a.clone(), b.clone(), Stage::Settled, signals.clone())];
            let said = if kind == FeedKind::Reports { StepEvidence { rows, ..said } } else { said };
            let (lane, read) = decode(&encode(0, b"hash", &said)).unwrap();
            direct.apply(0, &said);
            wired.apply(lane, &read);
        }
    }
    let said = direct.advance();
    assert!(!said.is_empty(), "the planted loss opens an incident");
    assert_eq!(wired.advance(), said);
    assert_eq!(wired.state(), direct.state());
}

#[test]
fn what_no_lane_says_is_refused_with_its_value() {
    type Spoil = fn(&mut wire::StepEvidence);
    let cases: [(Spoil, &str); 15] = [
        (|e| e.version = 2, "step evidence has version 2, known is 1"),
        (|e| e.lane = 65_536, "lane is 65536, above 65535"),
        (|e| e.feed = 2, "feed kind has the unknown number 2"),
        (|e| e.elements[0].kind = 0, "kind of element has the unknown number 0"),
        (|e| e.elements[1].kind = 6, "kind of element has the unknown number 6"),
        (|e| e.elements[1].id.clear(), "id of an element is missing"),
        (|e| e.elements.swap(0, 1), "sums do not ascend at pair subnet-a>subnet-b"),
        (|e| e.rows.swap(1, 2), "rows do not ascend at subnet-a → subnet-b"),
        (|e| e.rows[1].stage = 9, "stage of a baseline has the unknown number 9"),
        (|e| e.rows[1].signals[0].signal = 0, "signal has the unknown number 0"),
        (|e| e.rows[1].signals[1].signal = 1, "signals do not ascend at Retransmit"),
        (|e| e.rows[1].signals[0].effect = None, "effect of a signal is missing"),
        (|e| e.rows[1].signals[0].effect.as_mut().unwrap().quantile_pct = 256, "quantile is 256, above 255"),
        (|e| e.rows[2].dst.as_mut().unwrap().id.clear(), "id of an end of a pair is missing"),
        (|e| e.step_count = 2, "evidence of 2 steps has 13 rows and sums, only one step can have any"),
    ];
    for (spoil, message) in cases {
        let mut record = wire::decode(&encode(7, b"hash", &full())).unwrap();
        spoil(&mut record);
        assert_eq!(decode(&record.encode_to_vec()).unwrap_err().to_string(), message);
    }
    assert!(matches!(decode(b"\xff\xff").unwrap_err(), ConvertError::Evidence(_)));
    assert!(matches!(decode(b"").unwrap_err(), ConvertError::Evidence(_)));
}

#[test]
fn a_skip_is_told_from_evidence_and_says_nothing_else() {
    let bytes = encode_skip(9, FeedKind::Reports, 60, START_S);
    assert_eq!(super::decode(&bytes).unwrap(), Said::Skip(9, FeedKind::Reports, START_S));
    let skip = wire::StepEvidence::decode(bytes.as_slice()).unwrap();
    let with = |change: &dyn Fn(&mut wire::StepEvidence)| {
        let mut record = skip.clone();
        change(&mut record);
        super::decode(&record.encode_to_vec())
    };
    assert!(with(&|record| record.last = true).is_err());
    assert!(with(&|record| record.step_count = 2).is_err());
    assert!(with(&|record| record.rows_left_out = 1).is_err());
}
