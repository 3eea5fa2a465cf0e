//! What the stages tell each other and store: exchange batches, evidence, state chunks.

#![allow(clippy::unwrap_used)]

mod common;

use flowshift_proto::evidence::{self, ElementSum, End, EvidenceError, PairRow, SignalRow, StepEvidence};
use flowshift_proto::exchange::{
    Accounting, Batch, Builder, Cell, Counters, ExchangeError, PeerRow, Quality, RttHistogram, Subnet,
};
use flowshift_proto::flow::FeedKind;
use flowshift_proto::reason::{Reason, ReasonCounts};
use flowshift_proto::state::{Chunk, Kind};
use flowshift_proto::wire::flowshift::exchange::v1 as wire;
use prost::Message;

fn subnet(id: &str) -> Subnet {
    Subnet { id: id.into(), az: "use1-az1".into(), vpc: "vpc-0".into(), edge: false }
}

fn cell(seed: u64) -> Cell {
    let bins = [(3, seed + 1), (4, 0), (900, 2)];
    Cell {
        counters: Counters { flows: seed, bytes: seed << 30, segments: 70_000 + seed, ..Default::default() },
        rtt: RttHistogram { records: seed + 3, ..RttHistogram::from_bins(bins).unwrap() },
        peers: vec![
            PeerRow { peer: u64::MAX - seed, flows: 1, ..Default::default() },
            PeerRow { peer: 5, flows: 2, ..Default::default() },
        ],
        quality: Quality { records: seed, agent_hashes: vec![9, 2], ..Default::default() },
    }
}

fn sorted(mut cell: Cell) -> Cell {
    cell.peers.reverse();
    cell.quality.agent_hashes.sort_unstable();
    cell
}

fn accounting() -> Accounting {
    let mut reasons = ReasonCounts::default();
    reasons.add(Reason::Late, 2);
    reasons.add(Reason::Malformed, 1);
    Accounting { records_in: 10, accounted: 7, reasons }
}

type Entry = (&'static str, &'static str, FeedKind, i64, Cell);

fn entries() -> Vec<Entry> {
    let names = ["subnet-b", "subnet-a", "internet", "subnet-c"];
    let mut entries = Vec::new();
    for (seed, src) in (0..).zip(names) {
        for dst in names {
            entries.push((src, dst, FeedKind::FlowLogs, 1_795_310_540, cell(seed)));
            entries.push((src, dst, FeedKind::Reports, 1_795_310_550, cell(seed)));
            entries.push((src, dst, FeedKind::Reports, 1_795_310_530, cell(seed + 1)));
        }
    }
    entries
}

fn build(entries: &[Entry], max_bytes: usize) -> Result<Vec<Vec<u8>>, ExchangeError> {
    let mut builder = Builder::new(b"hash");
    for (src, dst, feed, start, cell) in entries {
        builder.pane(&subnet(src), &subnet(dst), *feed, *start, cell.clone());
    }
    builder.accounting(accounting());
    builder.finish(max_bytes)
}

fn read(parts: &[Vec<u8>]) -> Vec<(String, String, FeedKind, i64, Cell)> {
    let mut found = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let batch = Batch::decode(part).unwrap();
        assert_eq!(batch.topology_hash(), b"hash");
        assert_eq!(batch.accounting().copied(), (number == 0).then(accounting));
        for pane in batch.panes() {
            assert_eq!(*pane.src, subnet(&pane.src.id));
            found.push((pane.src.id.clone(), pane.dst.id.clone(), pane.feed, pane.pane_start_s, pane.cell.clone()));
        }
    }
    found
}

#[test]
fn a_batch_comes_back_whole_in_one_part_or_many_and_its_bytes_do_not_depend_on_the_order_of_adding() {
    let mut entries = entries();
    let one = build(&entries, 1 << 20).unwrap();
    let many = build(&entries, 400).unwrap();
    assert_eq!(one.len(), 1);
    assert!(many.len() > 5 && many.iter().all(|part| part.len() <= 400), "{} parts", many.len());
    entries.reverse();
    assert_eq!(build(&entries, 1 << 20).unwrap(), one);
    assert_eq!(build(&entries, 400).unwrap(), many);
    let mut expected: Vec<_> = entries
        .into_iter()
        .map(|(src, dst, feed, start, cell)| (src.to_owned(), dst.to_owned(), feed, start, sorted(cell)))
        .collect();
    expected.sort_by(|a, b| (&a.0, &a.1, a.2, a.3).cmp(&(&b.0, &b.1, b.2, b.3)));
    assert_eq!(read(&one), expected);
    assert_eq!(read(&many), expected);
    assert!(accounting().balances());
    assert!(!Accounting { records_in: 11, ..accounting() }.balances());
}

#[test]
fn a_pane_added_twice_or_too_large_for_a_part_is_an_error_and_nothing_is_no_part() {
    let mut twice = entries();
    twice.push(twice[0].clone());
    assert!(matches!(build(&twice, 1 << 20), Err(ExchangeError::RepeatedPane { .. })));
    let error = build(&entries(), 100).unwrap_err();
    assert!(matches!(error, ExchangeError::PaneTooLarge { max: 100, .. }), "{error}");
    assert_eq!(Builder::new(b"hash").finish(1000), Ok(vec![]));
}

#[test]
fn a_batch_that_contradicts_itself_is_refused() {
    let good = wire::Batch::decode(build(&entries(), 1 << 20).unwrap()[0].as_slice()).unwrap();
    let refused = |change: &dyn Fn(&mut wire::Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        Batch::decode(&batch.encode_to_vec()).unwrap_err().to_string()
    };
    assert_eq!(refused(&|batch| batch.version = 2), "exchange batch has version 2, known is 1");
    assert!(refused(&|batch| batch.panes[0].src = 4).contains("index"));
    assert!(refused(&|batch| batch.panes[0].feed = 2).contains("feed"));
    assert!(refused(&|batch| batch.panes[1].pane_offset_s = u64::MAX).contains("overflows"));
    assert!(refused(&|batch| batch.panes.swap(0, 1)).contains("panes"));
    assert!(refused(&|batch| batch.subnets.swap(0, 1)).contains("subnets"));
    assert!(refused(&|batch| batch.panes[0].peers.swap(0, 1)).contains("peers"));
    let rtt = |batch: &mut wire::Batch, deltas: &[u32]| {
        batch.panes[0].rtt =
            Some(wire::RttHistogram { bin_deltas: deltas.to_vec(), counts: vec![1, 1], ..Default::default() });
    };
    assert!(refused(&|batch| rtt(batch, &[1])).contains("number"));
    assert!(refused(&|batch| rtt(batch, &[1, 0])).contains("ascend"));
    assert!(refused(&|batch| rtt(batch, &[u32::MAX, 1])).contains("2^32"));
    assert!(RttHistogram::from_bins([(2, 1), (2, 1)]).is_err());
    let bins: Vec<_> = RttHistogram::from_bins([(0, 4), (7, 1), (u32::MAX, 2)]).unwrap().bins().collect();
    assert_eq!(bins, [(0, 4), (7, 1), (u32::MAX, 2)]);
}

#[test]
fn a_pane_of_ordinary_size_takes_few_bytes() {
    let mut builder = Builder::new(&[0; 16]);
    for number in 0..100 {
        let bins = (0..20).map(|bin| (300 + bin, 3));
        let cell = Cell {
            counters: Counters { flows: 60, segments: 9_000, bytes: 12_000_000, connects: 8, ..Default::default() },
            rtt: RttHistogram { records: 60, samples: 900, ..RttHistogram::from_bins(bins).unwrap() },
            peers: vec![],
            quality: Quality { records: 60, ..Default::default() },
        };
        builder.pane(&subnet(&format!("subnet-{number:017}")), &subnet("internet"), FeedKind::Reports, 10, cell);
    }
    let bytes = builder.finish(1 << 20).unwrap()[0].len();
    // 20 bins, 6 counters, the pair and its share of the string table.
    assert!(bytes / 100 < 160, "{} bytes a pane", bytes / 100);
}

fn row(src: &str, score_mnats: i64, alarmed: bool) -> PairRow {
    let end = |id: &str| Some(End { id: id.into(), ..Default::default() });
    let signals = vec![SignalRow { signal: 1, score_mnats, alarmed, ..Default::default() }];
    PairRow { src: end(src), dst: end("z"), flows: 4, signals, ..Default::default() }
}

fn step(rows: Vec<PairRow>) -> StepEvidence {
    let elements = ["b", "a"].map(|id| ElementSum { kind: 2, id: id.into(), pairs: 3, ..Default::default() });
    StepEvidence {
        lane: 7,
        first_step_start_s: 60,
        step_s: 60,
        step_count: 1,
        elements: elements.into(),
        rows,
        ..Default::default()
    }
}

#[test]
fn evidence_is_canonical_and_its_weakest_rows_give_way_to_the_size_limit() {
    let rows: Vec<_> = (0..40).map(|n| row(&format!("s-{n:02}"), n * 100, n == 0)).collect();
    let mut shuffled = rows.clone();
    shuffled.reverse();
    assert_eq!(evidence::encode(step(rows.clone()), 1 << 16), evidence::encode(step(shuffled), 1 << 16));
    let whole = evidence::decode(&evidence::encode(step(rows.clone()), 1 << 16)).unwrap();
    assert_eq!((whole.rows.len(), whole.rows_left_out), (40, 0));
    assert_eq!(whole.elements[0].id, "a");
    assert_eq!(evidence::key(&whole), (7, 0, 60));
    let bytes = evidence::encode(step(rows), 400);
    let cut = evidence::decode(&bytes).unwrap();
    assert!(bytes.len() <= 400 && bytes.len() > 350, "{} bytes", bytes.len());
    assert_eq!(cut.rows.len() + cut.rows_left_out as usize, 40);
    // The alarmed row stays although its score is lowest; then the strongest.
    let ids: Vec<_> = cut.rows.iter().map(|row| row.src.as_ref().unwrap().id.clone()).collect();
    assert_eq!((ids[0].as_str(), ids.last().unwrap().as_str()), ("s-00", "s-39"));
    assert!(ids.is_sorted() && !ids.contains(&"s-01".to_owned()));
}

#[test]
fn evidence_without_a_step_a_pair_or_a_known_version_is_refused() {
    let bytes = |change: &dyn Fn(&mut StepEvidence)| {
        let mut evidence = step(vec![row("a", 1, false)]);
        evidence.version = 1;
        change(&mut evidence);
        evidence::decode(&evidence.encode_to_vec())
    };
    assert!(bytes(&|_| {}).is_ok());
    assert_eq!(bytes(&|evidence| evidence.version = 2), Err(EvidenceError::UnknownVersion(2)));
    assert!(bytes(&|evidence| evidence.step_s = 0).is_err());
    assert!(bytes(&|evidence| evidence.step_count = 0).is_err());
    assert!(bytes(&|evidence| (evidence.step_count, evidence.last) = (0, true)).is_ok());
    assert!(bytes(&|evidence| evidence.rows[0].dst = None).is_err());
}

#[test]
fn a_state_chunk_of_version_1_stays_readable() {
    let expected = Chunk { version: 1, kind: Kind::Lane, body: b"flowshift state".to_vec() };
    assert_eq!(Chunk::decode(&common::data("state-chunk.v1.bin"), Kind::Lane, 1), Ok(expected));
}
