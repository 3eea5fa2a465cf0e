//! AGGREGATE as a function: what goes in comes out once, in a pane or under a reason, and the same way every time.

use std::collections::BTreeMap;

use bytes::Bytes;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::log::StreamId;
use flowshift_consumer::shard::{HashRange, SequenceNumber, ShardId};
use flowshift_consumer::stage::ShardContext;
use flowshift_proto::agent_report::{self, AgentFlow, AgentReport, FlowStats};
use flowshift_proto::exchange::{Accounting, Batch as Payload};

use super::*;
use crate::config::Config;
use crate::stage::rules;
use crate::topology::Topology;

const NOW_MS: i64 = 1_800_000_000_000;

fn rules_snapshot() -> Snapshot {
    let yaml =
        "subnets:\n  - {id: subnet-a, cidr: 10.0.1.0/24, az: az1}\n  - {id: subnet-b, cidr: 10.0.2.0/24, az: az2}\n";
    rules::snapshot_of(&Config::local_defaults().unwrap(), &Topology::parse(yaml).unwrap()).unwrap()
}

fn aggregate() -> Aggregate {
    Aggregate::new(Lanes::new(8).unwrap())
}

fn record(n: u64, arrived_ms: i64, data: impl Into<Bytes>) -> Record {
    let sequence = SequenceNumber::new(&n.to_string()).unwrap();
    Record { sequence, sub_sequence: 0, arrived_ms, partition_key: "agent".into(), data: data.into() }
}

fn line(start_ms: i64, src: &str, dst: &str, bytes: u64) -> String {
    format!(
        "{{\"ts_ms\":{start_ms},\"interval_ms\":10000,\"src\":\"{src}\",\"dst\":\"{dst}\",\"src_port\":1,\"dst_port\":443,\
         \"protocol\":\"tcp\",\"bytes\":{bytes},\"packets\":10,\"retransmits\":1,\"timeouts\":0,\"connects\":2,\
         \"connect_failures\":1,\"rtt\":{{\"count\":1,\"min_us\":900,\"max_us\":900,\"sum_us\":900}}}}\n"
    )
}

fn report(agent: &str, time_ms: i64, restarts: u64) -> Bytes {
    let stats = FlowStats { bytes_delivered: Some(3_000), segments_delivered: Some(30), ..FlowStats::zero() };
    let flow = AgentFlow {
        local: "10.0.1.5".parse().unwrap(),
        remote: "10.0.2.7".parse().unwrap(),
        local_port: 0,
        remote_port: 443,
        protocol: 6,
        stats,
    };
    let report = AgentReport {
        instance_id: agent.to_owned(),
        time_unix_nano: u64::try_from(time_ms).unwrap() * 1_000_000,
        restarts,
        flows: vec![flow],
        ..AgentReport::default()
    };
    Bytes::from(agent_report::encode_gzip(&report))
}

/// Bytes per (src, dst, pane), and the account, of one mapped batch.
fn outcome(mapped: &Mapped) -> (BTreeMap<(String, String, i64), u64>, Accounting) {
    let (mut sums, mut account) = (BTreeMap::new(), Accounting::default());
    for payload in mapped.parts.values().flatten() {
        let payload = Payload::decode(payload).unwrap();
        for pane in payload.panes() {
            let key = (pane.src.id.clone(), pane.dst.id.clone(), pane.pane_start_s);
            *sums.entry(key).or_default() += pane.cell.counters.bytes;
        }
        if let Some(told) = payload.accounting() {
            account = *told;
        }
    }
    assert!(account.balances(), "{account:?}");
    (sums, account)
}

fn map(state: &mut SourceState, records: &[Record]) -> Mapped {
    let aggregate = aggregate();
    let shard = ShardContext {
        stream: StreamId { name: "flows".into(), created_ms: 1 },
        shard: ShardId::new("shardId-000000000000"),
        range: HashRange::ALL,
    };
    let prepared = aggregate.prepare(&rules_snapshot()).unwrap();
    aggregate.map(state, &Batch { shard: &shard, records, expired: 0 }, &prepared).unwrap()
}

fn reason(account: &Accounting, reason: Reason) -> u64 {
    account.reasons.get(reason)
}

#[test]
fn the_same_records_and_state_give_the_same_bytes() {
    let records = [
        record(1, NOW_MS, line(NOW_MS - 20_000, "10.0.1.1", "10.0.2.1", 7)),
        record(2, NOW_MS, report("i-1", NOW_MS - 5_000, 1)),
        record(3, NOW_MS, Bytes::from_static(b"garbage")),
    ];
    let (mut one, mut other) = (SourceState::default(), SourceState::default());
    assert_eq!(map(&mut one, &records), map(&mut other, &records));
    let stored = aggregate().save(&one).unwrap();
    assert_eq!(aggregate().load(&Bytes::from(stored)).unwrap(), other);
}

#[test]
fn every_record_is_in_a_pane_or_under_exactly_one_reason() {
    let year_2100 = 4_102_444_800_000;
    let lines = [
        line(NOW_MS - 20_000, "10.0.1.1", "10.0.2.1", 5),
        line(year_2100, "10.0.1.1", "10.0.2.1", 5),
        line(0, "10.0.1.1", "10.0.2.1", 5),
        line(NOW_MS - 20_000, "10.0.1.1", "192.168.0.1", 5),
        line(NOW_MS - 20_000, "8.8.8.8", "9.9.9.9", 5),
        "not json\n".to_owned(),
        line(NOW_MS - 20_000, "10.0.1.1", "8.8.8.8", 11),
    ];
    let (sums, account) = outcome(&map(&mut SourceState::default(), &[record(1, NOW_MS, lines.concat())]));
    assert_eq!((account.records_in, account.accounted), (7, 2));
    for (why, count) in [(Reason::Future, 1), (Reason::Late, 1), (Reason::Unmapped, 2), (Reason::Malformed, 1)] {
        assert_eq!(reason(&account, why), count, "{why:?}");
    }
    assert_eq!(sums.values().sum::<u64>(), 16);
    assert!(sums.keys().any(|(src, dst, _)| src == "subnet-a" && dst == "internet"));
}

#[test]
fn a_poison_record_does_not_touch_its_neighbours() {
    let good = |n, bytes| record(n, NOW_MS, line(NOW_MS - 10_000, "10.0.1.1", "10.0.2.1", bytes));
    let half_a_gzip = report("i-9", NOW_MS, 1).slice(..20);
    let records = [good(1, 1), record(2, NOW_MS, half_a_gzip), record(3, NOW_MS, Bytes::new()), good(4, 2)];
    let (sums, account) = outcome(&map(&mut SourceState::default(), &records));
    assert_eq!((account.accounted, reason(&account, Reason::Malformed)), (2, 2));
    assert_eq!(sums.values().sum::<u64>(), 3);
}

#[test]
fn repeats_are_counted_and_dropped_within_and_across_batches() {
    let mut state = SourceState::default();
    let flows = line(NOW_MS - 20_000, "10.0.1.1", "10.0.2.1", 5);
    let agent = report("i-1", NOW_MS - 5_000, 1);
    let first = [record(1, NOW_MS, flows.clone()), record(2, NOW_MS, agent.clone()), record(3, NOW_MS, flows.clone())];
    let (_, account) = outcome(&map(&mut state, &first));
    assert_eq!((account.accounted, reason(&account, Reason::Duplicate)), (2, 1));
    let (sums, account) = outcome(&map(&mut state, &[record(4, NOW_MS, flows), record(5, NOW_MS, agent)]));
    assert_eq!((account.accounted, reason(&account, Reason::Duplicate)), (0, 2));
    assert!(sums.is_empty());
}

#[test]
fn a_reports_interval_starts_at_the_agents_report_before() {
    let mut state = SourceState::default();
    // 18:00:00 UTC is a multiple of the pane: the first report of a process covers the usual 30 s, three panes.
    let end = NOW_MS;
    let (sums, _) = outcome(&map(&mut state, &[record(1, NOW_MS, report("i-1", end, 1))]));
    assert_eq!(sums.values().copied().collect::<Vec<_>>(), [1_000, 1_000, 1_000]);
    let (sums, _) = outcome(&map(&mut state, &[record(2, NOW_MS + 20_000, report("i-1", end + 20_000, 0))]));
    assert_eq!(sums.values().copied().collect::<Vec<_>>(), [1_500, 1_500], "20 s since the report before");
    let (sums, _) = outcome(&map(&mut state, &[record(3, NOW_MS + 900_000, report("i-1", end + 900_000, 0))]));
    assert_eq!(sums.values().sum::<u64>(), 3_000);
    assert_eq!(sums.len(), 3, "after a long silence reports were lost: the usual interval");
}

#[test]
fn lateness_is_judged_by_the_pane_that_holds_the_start_of_the_interval() {
    let mut state = SourceState::default();
    let at = |offset_ms: i64| line(NOW_MS + offset_ms, "10.0.1.1", "10.0.2.1", 1);
    // The record ends at +10 s; with 60 s of lateness the watermark is then at -50 s.
    outcome(&map(&mut state, &[record(1, NOW_MS + 10_000, at(0))]));
    assert_eq!(aggregate().watermarks(&state).get(0), NOW_MS - 50_000);
    let (_, account) = outcome(&map(&mut state, &[record(2, NOW_MS + 10_000, at(-55_000))]));
    assert_eq!(account.accounted, 0, "its pane ended exactly at the watermark");
    assert_eq!(reason(&account, Reason::Late), 1);
    let (_, account) = outcome(&map(&mut state, &[record(3, NOW_MS + 10_000, at(-50_000))]));
    assert_eq!(account.accounted, 1);
}

#[test]
fn a_clock_ahead_moves_the_watermark_by_arrival_only() {
    let mut state = SourceState::default();
    // One minute ahead is tolerated, but the watermark follows the arrival.
    let ahead = line(NOW_MS + 60_000, "10.0.1.1", "10.0.2.1", 1);
    outcome(&map(&mut state, &[record(1, NOW_MS, ahead)]));
    assert_eq!(aggregate().watermarks(&state).get(0), NOW_MS - 60_000);
}

#[test]
fn a_child_waits_for_the_slower_parent_and_knows_both_their_repeats() {
    let (mut a, mut b) = (SourceState::default(), SourceState::default());
    outcome(&map(&mut a, &[record(1, NOW_MS, report("i-1", NOW_MS, 1))]));
    outcome(&map(&mut b, &[record(1, NOW_MS, report("i-2", NOW_MS - 30_000, 1))]));
    let mut child = aggregate().inherit(vec![a, b]);
    assert_eq!(aggregate().watermarks(&child).get(0), NOW_MS - 90_000);
    let again = [record(9, NOW_MS, report("i-1", NOW_MS, 1)), record(10, NOW_MS, report("i-2", NOW_MS - 30_000, 1))];
    let (_, account) = outcome(&map(&mut child, &again));
    assert_eq!(reason(&account, Reason::Duplicate), 2);
}

#[test]
fn one_agents_wrong_clock_does_not_make_the_others_forgotten() {
    let mut state = SourceState::default();
    outcome(&map(&mut state, &[record(1, NOW_MS, report("i-1", NOW_MS - 5_000, 1))]));
    let days_ahead = report("i-2", NOW_MS + 3 * 86_400_000, 1);
    let (_, account) = outcome(&map(&mut state, &[record(2, NOW_MS, days_ahead)]));
    assert_eq!(reason(&account, Reason::Future), 1);
    let (_, account) = outcome(&map(&mut state, &[record(3, NOW_MS, report("i-1", NOW_MS - 5_000, 1))]));
    assert_eq!((account.accounted, reason(&account, Reason::Duplicate)), (0, 1));
}
