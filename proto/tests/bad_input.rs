//! No input makes a decoder panic or use memory out of proportion, and nothing goes uncounted.

#![allow(clippy::unwrap_used)]

mod common;

use flowshift_proto::agent_report;
use flowshift_proto::decode::{self, Decoded, Format, Item, Options};
use flowshift_proto::evidence;
use flowshift_proto::exchange::Batch;
use flowshift_proto::flow::{FeedKind, FlowRecord};
use flowshift_proto::flow_batch;
use flowshift_proto::snapshot::{self, ContentHash};
use flowshift_proto::state::{Chunk, Kind};
use proptest::prelude::*;

use common::{SAMPLES, data, sample};

/// Every decoder on the same bytes. What is taken must be within the limits and counted.
fn decode_all(bytes: &[u8]) {
    let mut flows = 0u64;
    let options = Options { max_bytes: 1 << 20, arrival_ms: Some(1_795_310_538_000), ..Options::default() };
    let decoded = decode::payload(bytes, &options, &mut |item| match item {
        Item::Flow(record) => {
            assert_eq!(record.check(), Ok(()));
            flows += 1;
        }
        Item::Report(report) => {
            assert!(report.agent_id().is_some() && report.time_unix_nano > 0);
            report.for_each_record(0, &mut |record| assert_eq!(record.check(), Ok(())));
            flows += report.flows.len() as u64;
        }
    });
    match decoded {
        Ok(decoded) => check(&decoded, flows),
        Err(error) => {
            assert_eq!(flows, 0, "an error after something was handed on: {error}");
            assert!(error.to_string().len() < 400, "{error}");
        }
    }
    let mut flows = 0;
    if let Ok(decoded) = decode::flow_batch(bytes, &mut |_| flows += 1) {
        check(&decoded, flows);
    }
    let mut flows = 0;
    if let Ok(decoded) = decode::json_lines(bytes, &mut |_| flows += 1) {
        check(&decoded, flows);
    }
    if let Ok(mut report) = decode::agent_report(bytes) {
        assert!(report.agent_id().is_some());
        (report.rejected, report.first_problem) = Default::default();
        assert_eq!(decode::agent_report(&agent_report::encode(&report)), Ok(report));
    }
    decode::sniff(bytes);
    if let Ok(plain) = decode::gunzip_limited(bytes, 4096) {
        assert!(plain.len() <= 4096);
    }
    if let Ok(batch) = Batch::decode(bytes) {
        batch.panes().for_each(|pane| assert!(pane.cell.rtt.bins().count() < 1 << 20));
    }
    if let Ok(step) = evidence::decode(bytes) {
        assert!(step.step_s > 0);
    }
    if let Ok(chunk) = Chunk::decode(bytes, Kind::Lane, 1) {
        assert_eq!((chunk.version, chunk.kind), (1, Kind::Lane));
    }
    if let Ok(snapshot) = snapshot::decode(bytes, ContentHash::of(bytes)) {
        assert_eq!(snapshot.version, snapshot::VERSION);
    }
}

fn check(decoded: &Decoded, flows: u64) {
    assert_eq!(decoded.records, flows);
    assert_eq!(decoded.first_problem.is_some(), decoded.rejected.total() > 0);
}

fn plain_sample(number: u32) -> Vec<u8> {
    decode::gunzip_limited(&sample(number), 1 << 20).unwrap()
}

fn batch() -> Vec<u8> {
    let mut records = Vec::new();
    for report in SAMPLES {
        let report = decode::agent_report(&plain_sample(report)).unwrap();
        report.for_each_record(report.end_ms() - 5000, &mut |record| records.push(record.clone()));
    }
    flow_batch::encode(FeedKind::Reports, &records)
}

/// Real bodies of every form: OTLP plain and compressed, JSON, flow batch, and a short exam line.
fn seeds() -> Vec<Vec<u8>> {
    let line = br#"{"ts_ms":1,"interval_ms":2,"src":"10.0.0.1","dst":"10.0.0.2","retransmits":{"syn":1},"rtt_buckets":[[1,2]]}"#;
    vec![plain_sample(1), plain_sample(40), sample(10), data("agent-a.jsonl"), batch(), line.to_vec()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_refused_or_counted(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        decode_all(&bytes);
        decode_all(&decode::gzip(&bytes));
    }

    #[test]
    fn arbitrary_text_after_a_brace_is_refused_or_counted(text in "\\{[\"a-z_:0-9,.\\[\\]{}eE+ \n-]{0,200}") {
        decode_all(text.as_bytes());
    }

    #[test]
    fn real_bodies_that_were_cut_or_changed_are_refused_or_counted(
        which in 0..6usize,
        keep in 0.0..=1.0f64,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let mut bytes = seeds().swap_remove(which);
        bytes.truncate(((bytes.len() as f64) * (0.5 + keep)) as usize);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        decode_all(&bytes);
    }
}

#[test]
fn every_prefix_of_a_batch_and_of_a_report_is_refused_or_counted() {
    for body in [batch(), plain_sample(1)] {
        for len in (0..body.len()).step_by(7) {
            decode_all(&body[..len]);
        }
    }
}

#[test]
fn messages_that_claim_millions_of_parts_take_no_memory_for_them() {
    // 8 MB of empty scopes, metrics and flows: two bytes each, which generated types would turn into gigabytes.
    let mut scopes = [0x12, 0].repeat(4 << 20);
    let mut otlp = vec![0x0a];
    prost::encoding::encode_varint(scopes.len() as u64, &mut otlp);
    otlp.append(&mut scopes);
    let refused = decode::agent_reports(&otlp, &mut |_| panic!("a report"));
    assert!(refused.is_err());
    let mut flows = flow_batch::encode(FeedKind::Reports, std::iter::empty::<&FlowRecord>());
    flows.extend([0x22, 0].repeat(4 << 20));
    let decoded = decode::flow_batch(&flows, &mut |_| panic!("a record")).unwrap();
    assert_eq!((decoded.records, decoded.rejected.total()), (0, 4 << 20));
    let deep = format!("{}{}", "{\"x\":".repeat(10_000), "}".repeat(10_000));
    assert_eq!(decode::sniff(deep.as_bytes()), Format::JsonLines);
    assert_eq!(decode::json_lines(deep.as_bytes(), &mut |_| panic!("a record")).unwrap().rejected.total(), 1);
    match peak_memory_mb() {
        Some(peak) => assert!(peak < 150, "{peak} MB"),
        None => eprintln!("SKIPPED: /proc/self/status is absent, peak memory is not checked"),
    }
}

/// Most memory this process has held, megabytes (Linux).
fn peak_memory_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    eprintln!("peak memory {} MB", kilobytes / 1024);
    Some(kilobytes / 1024)
}
