//! What a lane's state costs to store, on a simulated region: the figures behind the choice of deltas.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use flowshift_consumer::commit::{Chunks, Fence, Form, STATE_KEY, Saver, Snapshot};
use flowshift_consumer::exchange::Lanes;
use flowshift_consumer::log::{Record, StreamId};
use flowshift_consumer::shard::{HashRange, SequenceNumber, ShardId};
use flowshift_consumer::stage::{Batch, Mapper as _, Reducer as _, ShardContext};
use flowshift_consumer::table::TableName;
use flowshift_consumer::table::memory::MemoryTable;
use flowshift_proto::agent_report;
use tokio_util::sync::CancellationToken;

use super::aggregate::Aggregate;
use super::detect::Detect;
use super::rules;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::simulate::Region;
use crate::topology::Topology;

const START_S: i64 = 1_800_000_000;

/// The states of lane 0 of `lanes`, saved every 10 s for some minutes of a region's life.
fn states(lanes: u32, minutes: i64) -> Vec<Bytes> {
    let region = Region::demo(1).starting_at(START_S);
    let config = Config::local_defaults().unwrap();
    let topology = Topology::parse(&region.topology_yaml()).unwrap();
    let snapshot: Snapshot = rules::snapshot_of(&config, &topology).unwrap();
    let lanes = Lanes::new(lanes).unwrap();
    let aggregate = Aggregate::new(lanes);
    let prepared = aggregate.prepare(&snapshot).unwrap();
    let metrics = Metrics::new().unwrap();
    let mut detect = Detect::new(rules::detector_settings(&config).unwrap(), &metrics, None);
    let lane = lanes.get(0).unwrap();
    detect.restore(lane, None).unwrap();
    let stream = StreamId { name: "flows".into(), created_ms: 1 };
    let shard = ShardContext { stream, shard: ShardId::new("s"), range: HashRange::ALL };
    let (mut state, mut saved, mut n) = (Default::default(), Vec::new(), 0u64);
    for step in 0..minutes * 6 {
        let mut records = Vec::new();
        for report in region.reports(step * 10, (step + 1) * 10) {
            n += 1;
            records.push(Record {
                sequence: SequenceNumber::new(&n.to_string()).unwrap(),
                arrived_ms: report.time_ms,
                partition_key: report.instance_id.as_str().into(),
                sub_sequence: 0,
                data: Bytes::from(agent_report::encode_gzip(&report.into_agent_report())),
            });
        }
        let batch = Batch { shard: &shard, records: &records, expired: 0 };
        let mapped = aggregate.map(&mut state, &batch, &prepared).unwrap();
        for payload in mapped.parts.get(&lane).into_iter().flatten() {
            detect.apply(lane, payload).unwrap();
        }
        detect.advance(lane, &aggregate.watermarks(&state)).unwrap();
        saved.push(Bytes::from(detect.save(lane).unwrap()));
    }
    saved
}

fn patch(before: &[u8], plain: &[u8], level: i32, long: bool) -> usize {
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), level, before).unwrap();
    let bytes = before.len() + plain.len();
    encoder.window_log(bytes.next_power_of_two().trailing_zeros()).unwrap();
    encoder.long_distance_matching(long).unwrap();
    std::io::Write::write_all(&mut encoder, plain).unwrap();
    encoder.finish().unwrap().len()
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    for (lanes, minutes) in [(1, 16), (8, 16)] {
        let states = states(lanes, minutes);
        let warm = &states[states.len() / 2..];
        println!("lanes {lanes}: {} states, last {} bytes", states.len(), states[states.len() - 1].len());
        for level in [1, 3, 9] {
            for long in [false, true] {
                let started = Instant::now();
                let whole: usize = warm.iter().map(|s| zstd::bulk::compress(s, level).unwrap().len()).sum();
                let whole_us = started.elapsed().as_micros() / warm.len() as u128;
                let started = Instant::now();
                let before: usize = warm.windows(2).map(|w| patch(&w[0], &w[1], level, long)).sum();
                let patch_us = started.elapsed().as_micros() / warm.len() as u128;
                let base: Vec<usize> = warm[1..].iter().map(|s| patch(&warm[0], s, level, long)).collect();
                println!(
                    "level {level} long {long}: whole {} ({whole_us} us), against the last {} ({patch_us} us), against a base: {:?}",
                    whole / warm.len(),
                    before / (warm.len() - 1),
                    base.iter().step_by(6).take(9).collect::<Vec<_>>()
                );
            }
        }
    }
}

#[tokio::test]
async fn a_lanes_state_stored_as_deltas_is_restored_exactly_and_costs_less_than_stored_whole() {
    let states = states(4, 12);
    let stream = StreamId { name: "exchange".into(), created_ms: 1 };
    let name = TableName { name: "state".into(), key: STATE_KEY };
    let chunks = Chunks::new(Arc::new(MemoryTable::default()), name, stream);
    let mut saver = Saver::new(chunks.clone(), "s", Fence { epoch: 1, counter: 1 }, Vec::new(), None);
    let (mut stored, mut whole, mut deltas) = (0, 0, 0);
    for state in states {
        let saved = vec![("lane-0000".to_owned(), state.clone())];
        let (manifest, written) = saver.put("1".into(), saved, |_| true, &CancellationToken::new()).await.unwrap();
        saver.committed();
        stored += written.iter().map(|w| w.packed).sum::<u64>();
        deltas += written.iter().filter(|w| w.form == Form::Delta).count();
        whole += zstd::bulk::compress(&state, 3).unwrap().len() as u64;
        assert_eq!(chunks.get(&manifest.parts[0]).await.unwrap(), state);
    }
    println!("{stored} bytes stored, {deltas} deltas; {whole} bytes if stored whole");
    assert!(deltas > 0 && stored < whole, "{stored} bytes in {deltas} deltas, {whole} stored whole");
}
