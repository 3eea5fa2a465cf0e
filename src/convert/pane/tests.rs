//! Panes survive the way over the wire, through the real batch encoder; what no writer sends is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use flowshift_proto::exchange::{Batch, Builder};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const START_S: i64 = 1_795_310_540;

fn subnet(id: &str) -> Subnet {
    Subnet::new(id, Some("use1-az1"))
}

/// One pane through a whole encoded batch.
fn over_the_wire(src: &Subnet, dst: &Subnet, kind: FeedKind, cell: &PaneCell) -> (Pair, FeedKind, i64, PaneCell) {
    let mut builder = Builder::new(b"hash");
    let (src, dst) = (subnet_to_wire(src, "vpc-1"), subnet_to_wire(dst, ""));
    builder.pane(&src, &dst, feed_to_wire(kind), START_S, to_exchange(cell).unwrap());
    let parts = builder.finish(1 << 20).unwrap();
    let batch = Batch::decode(&parts[0]).unwrap();
    let pane = batch.panes().next().unwrap();
    assert_eq!(pane.src.vpc, "vpc-1");
    from_exchange(&pane).unwrap()
}

fn back(cell: &PaneCell) -> PaneCell {
    over_the_wire(&subnet("subnet-a"), &subnet("subnet-b"), FeedKind::Reports, cell).3
}

/// Reads a cell as it would stand in a batch, after `change` has spoilt it.
fn read_spoilt(change: impl FnOnce(&mut wire::Cell)) -> Result<PaneCell, ConvertError> {
    let mut cell = to_exchange(&sample()).unwrap();
    change(&mut cell);
    let (src, dst) = (subnet_to_wire(&subnet("subnet-a"), ""), subnet_to_wire(&subnet("subnet-b"), ""));
    let pane = PaneRef { src: &src, dst: &dst, feed: WireFeedKind::Reports, pane_start_s: START_S, cell: &cell };
    from_exchange(&pane).map(|(_, _, _, cell)| cell)
}

/// A cell in which no two numbers are equal, so that no two can be exchanged unseen.
fn sample() -> PaneCell {
    let mut rtt = RttCell::default();
    assert!(rtt.record_summary(7, 211, 1_913, 3_500));
    rtt.record_values(40_000, 3);
    let mut peers = PeerSample::default();
    peers.record(u64::MAX, &PeerCounts { flows: 31, retransmits: 32, rtt_n: 33, rtt_sum_us: 34 });
    peers.record(0, &PeerCounts { flows: 35, ..PeerCounts::default() });
    let mut quality = Quality { records: 41, late: 42, ..Quality::default() };
    quality.agents.record(43);
    quality.agents.record(44);
    quality.truncated.record(45);
    PaneCell {
        counters: Counters {
            flows: 1,
            retransmit_flows: 2,
            segments: 3,
            bytes: 4,
            retransmits: ByState { syn: 5, est: 6, close: 7 },
            timeouts: ByState { syn: 8, est: 9, close: 10 },
            connects: 11,
            connect_failures: 12,
            resets: 13,
            rejects: 14,
        },
        max_retransmits: 15,
        rtt,
        peers,
        quality,
    }
}

#[test]
fn every_number_of_a_cell_comes_back_in_its_own_place() {
    assert_eq!(back(&sample()), sample());
    assert_eq!(back(&PaneCell::default()), PaneCell::default());
}

#[test]
fn counters_reach_the_fields_of_the_wire_that_bear_their_names() {
    let cell = to_exchange(&sample()).unwrap();
    let expected = wire::Counters {
        flows: 1,
        retransmit_flows: 2,
        segments: 3,
        bytes: 4,
        retransmits_syn: 5,
        retransmits_established: 6,
        retransmits_close: 7,
        timeouts_syn: 8,
        timeouts_established: 9,
        timeouts_close: 10,
        connects: 11,
        connect_failures: 12,
        resets: 13,
        rejects: 14,
        max_retransmits: 15,
    };
    assert_eq!(cell.counters, expected);
    let rtt = &cell.rtt;
    assert_eq!((rtt.records, rtt.samples, rtt.min_us, rtt.max_us, rtt.sum_us), (4, 10, 211, 40_000, 123_500));
    let expected = wire::PeerRow { peer: u64::MAX, flows: 31, retransmits: 32, rtt_n: 33, rtt_sum_us: 34 };
    assert_eq!(cell.peers[1], expected);
    let quality = &cell.quality;
    assert_eq!((quality.records, quality.late), (41, 42));
    assert_eq!((&quality.agent_hashes[..], &quality.truncated_hashes[..]), (&[43, 44][..], &[45][..]));
}

#[test]
fn ends_and_feed_kinds_come_back() {
    let ends = [subnet("subnet-a"), Subnet::new("subnet-b", None), Subnet::edge("internet")];
    for kind in [FeedKind::Reports, FeedKind::FlowLogs] {
        for src in &ends {
            for dst in ends.iter().filter(|dst| *dst != src) {
                let (pair, read_kind, start_s, _) = over_the_wire(src, dst, kind, &sample());
                assert_eq!((read_kind, start_s), (kind, START_S));
                // Subnets compare by id alone.
                for (read, sent) in [(&pair.src, src), (&pair.dst, dst)] {
                    assert_eq!((&read.id, &read.az, read.edge), (&sent.id, &sent.az, sent.edge));
                }
            }
        }
    }
}

#[test]
fn a_cell_saturated_by_hostile_counts_still_crosses() {
    // Was refused by the reader, which would have stopped the lane at one producer's four records.
    let mut cell = sample();
    cell.rtt.record_values(10, u64::MAX);
    cell.rtt.record_values(20_000, u64::MAX - 1);
    cell.counters.bytes = u64::MAX;
    cell.peers.record(0, &PeerCounts { flows: u64::MAX, retransmits: u64::MAX, rtt_n: 1, rtt_sum_us: u64::MAX });
    assert_eq!(cell.rtt.n(), u64::MAX);
    assert_eq!(back(&cell), cell);
}

#[test]
fn the_extreme_of_zero_is_not_taken_for_an_unknown_one() {
    let mut cell = PaneCell::default();
    cell.rtt.record(0);
    assert_eq!(back(&cell).rtt.min_us(), Some(0));
}

#[test]
fn what_no_writer_sends_is_refused_with_its_value() {
    type Spoil = fn(&mut wire::Cell);
    let cases: [(Spoil, &str); 9] = [
        (|c| c.rtt.records += 1, "5 round-trip times between 211 us and 40000 us are told, bins hold 4"),
        (|c| c.rtt.bin_deltas[0] += 70_000, "round-trip times have 2 bins up to"),
        (|c| c.rtt.bin_deltas[1] = 2_600, "which are none of 1 us to 60 s"),
        (|c| c.rtt.bin_deltas[1] = 0, "which are none of 1 us to 60 s"),
        (|c| c.rtt.counts[0] = 0, "4 round-trip times between"),
        (
            |c| {
                let keep_min = c.rtt.min_us;
                c.rtt = wire::RttHistogram { min_us: keep_min, ..wire::RttHistogram::default() };
            },
            "0 round-trip times between 211 us and 0 us are told, bins hold 0",
        ),
        (|c| c.peers[0].peer = c.peers[1].peer, "peers have 2 rows, of which 1 can be kept"),
        (|c| c.quality.agent_hashes = (0..33).collect(), "agents have 33 rows, of which 32 can be kept"),
        (|c| c.quality.truncated_hashes.push(45), "truncated agents have 2 rows, of which 1 can be kept"),
    ];
    for (spoil, message) in cases {
        let error = read_spoilt(spoil).unwrap_err().to_string();
        assert!(error.contains(message), "{error} lacks {message}");
    }
    assert_eq!(read_spoilt(|_| ()).unwrap(), sample());
}

#[test]
fn an_end_without_an_id_is_refused() {
    let error = subnet_from_wire(&wire::Subnet { az: "use1-az1".into(), ..wire::Subnet::default() }).unwrap_err();
    assert_eq!(error, ConvertError::Missing { what: "id of an end of a pair" });
}

#[test]
fn extremes_without_round_trip_times_are_refused_before_they_are_sent() {
    let rtt = RttCell::from_parts([], 0, 0, Some((1, 2))).unwrap();
    let error = to_exchange(&PaneCell { rtt, ..PaneCell::default() }).unwrap_err();
    assert!(matches!(error, ConvertError::RttTotals { records: 0, .. }), "{error}");
    let rtt = RttCell::from_parts([(9, 1)], 1, 9, None).unwrap();
    assert!(to_exchange(&PaneCell { rtt, ..PaneCell::default() }).is_err());
}

prop_compose! {
    /// Cells as records and merges make them, some numbers near the limits.
    fn cells()(
        numbers in vec(prop_oneof![0..10u64, any::<u64>()], 17),
        summaries in vec((0..5u64, any::<u64>(), any::<u64>(), any::<u64>()), 0..40),
        buckets in vec((0..70_000_000u64, prop_oneof![0..9u64, any::<u64>()]), 0..40),
        peers in vec((any::<u64>(), any::<[u64; 4]>()), 0..40),
        agents in vec(any::<u64>(), 0..70),
        truncated in vec(any::<u64>(), 0..70),
    ) -> PaneCell {
        let n = numbers;
        let mut cell = PaneCell {
            counters: Counters {
                flows: n[0],
                retransmit_flows: n[1],
                segments: n[2],
                bytes: n[3],
                retransmits: ByState { syn: n[4], est: n[5], close: n[6] },
                timeouts: ByState { syn: n[7], est: n[8], close: n[9] },
                connects: n[10],
                connect_failures: n[11],
                resets: n[12],
                rejects: n[13],
            },
            max_retransmits: n[14],
            quality: Quality { records: n[15], late: n[16], ..Quality::default() },
            ..PaneCell::default()
        };
        for (count, min_us, max_us, sum_us) in summaries {
            cell.rtt.record_summary(count, min_us, max_us, sum_us);
        }
        for (rtt_us, count) in buckets {
            cell.rtt.record_values(rtt_us, count);
        }
        for (peer, [flows, retransmits, rtt_n, rtt_sum_us]) in peers {
            cell.peers.record(peer, &PeerCounts { flows, retransmits, rtt_n, rtt_sum_us });
        }
        agents.into_iter().for_each(|agent| cell.quality.agents.record(agent));
        truncated.into_iter().for_each(|agent| cell.quality.truncated.record(agent));
        cell
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn cells_and_their_merges_come_back_equal(one in cells(), other in cells()) {
        prop_assert_eq!(&back(&one), &one);
        let mut merged = one.clone();
        merged.merge(&other);
        prop_assert_eq!(&back(&merged), &merged);
        let mut merged_after = back(&one);
        merged_after.merge(&back(&other));
        prop_assert_eq!(merged_after, merged);
    }
}
