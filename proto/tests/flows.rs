//! Flow records as JSON lines and as protobuf, and the door for payloads of unknown form.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use flowshift_proto::decode::{self, DecodeError, Decoded, Format, InputFormat, Item, Options, ValueError};
use flowshift_proto::flow::{
    Counters, FeedKind, FlowRecord, MAX_COUNT, Reporter, Rtt, RttBucket, RttSummary, StateCounts,
};
use flowshift_proto::flow_batch;
use flowshift_proto::reason::Reason;

const LINE: &str = r#"{"ts_ms":1795310538000,"interval_ms":5000,"src":"10.0.0.1","dst":"::ffff:10.0.0.2","src_port":0,"dst_port":443,"protocol":"tcp","bytes":1500,"packets":10,"retransmits":1,"timeouts":0,"connects":2,"connect_failures":1,"rtt":{"count":3,"min_us":90,"max_us":110,"sum_us":300}}"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn read(text: &str) -> (Vec<FlowRecord>, Result<Decoded, DecodeError>) {
    let mut records = Vec::new();
    let decoded = decode::json_lines(text.as_bytes(), &mut |record| records.push(record.clone()));
    (records, decoded)
}

fn read_one(text: &str) -> Result<FlowRecord, DecodeError> {
    let (mut records, decoded) = read(text);
    match decoded?.first_problem {
        Some(problem) => Err(problem.error),
        None => Ok(records.remove(0)),
    }
}

fn with(extra: &str) -> String {
    format!(r#"{{"ts_ms":1000,"interval_ms":10,"src":"10.0.0.1","dst":"10.0.0.2",{extra}}}"#)
}

fn record() -> FlowRecord {
    let mut record = FlowRecord::new(1_795_310_538_000, 1_795_310_543_000, ip("10.0.0.1"), ip("10.0.0.2"));
    record.dst_port = 443;
    record.counters = Counters {
        bytes: Some(1500),
        segments: Some(10),
        retransmits: StateCounts::Total(1),
        timeouts: StateCounts::Total(0),
        connects: Some(2),
        connect_failures: Some(1),
        ..Counters::default()
    };
    record.rtt = Rtt::Summary(RttSummary { count: 3, min_us: 90, max_us: 110, sum_us: 300 });
    record
}

#[test]
fn a_line_of_the_documented_form_becomes_the_record_it_says() {
    assert_eq!(read_one(LINE), Ok(record()));
    assert_eq!(record().last_ms(), 1_795_310_542_999);
}

#[test]
fn absent_and_null_fields_are_unknown_and_zero_is_known() {
    let minimal = read_one(&with(r#""bytes":null,"x":{"y":[1]}"#)).unwrap();
    assert_eq!(minimal.counters, Counters::default());
    assert_eq!((minimal.rtt, minimal.reporter, minimal.protocol), (Rtt::Unknown, Reporter::Src, 6));
    let known =
        read_one(&with(r#""bytes":0,"retransmits":0,"rtt":{"count":0,"min_us":0,"max_us":0,"sum_us":0}"#)).unwrap();
    assert_eq!((known.counters.bytes, known.counters.retransmits.total()), (Some(0), Some(0)));
    assert_eq!((known.counters.timeouts.total(), known.rtt), (None, Rtt::Unknown));
}

#[test]
fn the_optional_fields_are_read() {
    let full = read_one(&with(
        r#""reporter":"dst","resets":4,"rejects":5,"vpc":"vpc-1","protocol":17,"retransmits":{"syn":1,"close":2},"rtt_samples_us":[7,9]"#,
    ))
    .unwrap();
    assert_eq!((full.reporter, full.protocol, full.vpc.as_deref()), (Reporter::Dst, 17, Some("vpc-1")));
    assert_eq!((full.counters.resets, full.counters.rejects), (Some(4), Some(5)));
    assert_eq!(full.counters.retransmits, StateCounts::ByState { syn: 1, established: 0, close: 2 });
    assert_eq!(full.rtt, Rtt::Samples(vec![7, 9]));
    assert_eq!(full.reporter_and_peer(), (ip("10.0.0.2"), ip("10.0.0.1")));
    let buckets = read_one(&with(r#""rtt_buckets":[[100,3],[200,0],[400,1]]"#)).unwrap();
    assert_eq!(buckets.rtt.summary(), Some(RttSummary { count: 4, min_us: 100, max_us: 400, sum_us: 700 }));
    assert_eq!(buckets.rtt.summary().unwrap().mean_us(), 175);
}

#[test]
fn a_bad_line_is_counted_with_its_number_and_its_neighbours_stay() {
    let text = format!("{LINE}\r\n\n not json \n{LINE}\n{{}}\n{LINE}");
    let (records, decoded) = read(&text);
    let decoded = decoded.unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!((decoded.records, decoded.rejected.get(Reason::Malformed), decoded.rejected.total()), (3, 2, 2));
    assert_eq!(decoded.first_problem.unwrap().position, 3);
    assert_eq!(read(" \n\n").1, Err(DecodeError::Empty));
}

#[test]
fn values_out_of_range_are_refused_and_named() {
    let too_many = format!(r#""rtt_samples_us":[{}]"#, vec!["1"; 4097].join(","));
    for (extra, names) in [
        (r#""bytes":-1"#, "-1"),
        (r#""bytes":1.5"#, "1.5"),
        (r#""bytes":18446744073709551616"#, "1.844"),
        (r#""bytes":9007199254740993"#, "bytes is 9007199254740993, above 2^53"),
        (r#""retransmits":{"syn":9007199254740993}"#, "retransmits is 9007199254740993"),
        (r#""src_port":65536"#, "65536"),
        (r#""protocol":"carrier pigeon""#, "carrier pigeon"),
        (r#""reporter":"both""#, "both"),
        (r#""rtt":{"count":1,"min_us":9,"max_us":5,"sum_us":7}"#, "min 9, max 5"),
        (r#""rtt":{"count":2,"min_us":5,"max_us":9,"sum_us":21}"#, "sum 21"),
        (r#""rtt_buckets":[[5,1],[5,1]]"#, "bound 5"),
        (r#""rtt":{"count":1,"min_us":5,"max_us":5,"sum_us":5},"rtt_samples_us":[5]"#, "more than one form"),
        (too_many.as_str(), "4097"),
        (r#""src":"10.0.0.3""#, "duplicate field"),
    ] {
        let error = read_one(&with(extra)).unwrap_err();
        assert!(error.to_string().contains(names), "{extra}: {error}");
        assert_eq!(error.reason(), Reason::Malformed);
    }
    for (ts_ms, interval_ms) in
        [(-1, 5), (0, -1), (0, 3_600_001), (i64::MAX, 1), (i64::MIN, i64::MIN), (253_402_300_799_999, 1)]
    {
        let line = format!(r#"{{"ts_ms":{ts_ms},"interval_ms":{interval_ms},"src":"10.0.0.1","dst":"10.0.0.2"}}"#);
        let error = read_one(&line).unwrap_err();
        assert!(matches!(error, DecodeError::Value(ValueError::Interval { .. })), "{line}: {error}");
    }
}

#[test]
fn a_batch_decodes_to_the_records_it_was_made_of() {
    let mut by_state = record();
    by_state.src = ip("fd77:1::11");
    by_state.vpc = Some("vpc-2".into());
    by_state.reporter = Reporter::Dst;
    by_state.counters.retransmits = StateCounts::ByState { syn: 1, established: 2, close: 3 };
    by_state.counters.rejects = Some(0);
    by_state.rtt = Rtt::Samples(vec![1, 60_000_000]);
    let mut bucketed = record();
    bucketed.vpc = Some("vpc-1".into());
    bucketed.rtt = Rtt::Buckets(vec![RttBucket { le_us: 10, count: 1 }, RttBucket { le_us: 20, count: 0 }]);
    let mut sent = vec![record(), by_state.clone(), bucketed, by_state];
    let bytes = flow_batch::encode(FeedKind::FlowLogs, &sent);
    assert_eq!(bytes[..5], *b"\x0dFSB1");
    assert_eq!(decode::sniff(&bytes), Format::FlowBatch);
    let mut found = Vec::new();
    let decoded = decode::flow_batch(&bytes, &mut |record| found.push(record.clone())).unwrap();
    sent.iter_mut().for_each(|record| record.feed = FeedKind::FlowLogs);
    assert_eq!(found, sent);
    assert_eq!((decoded.records, decoded.rejected.total()), (4, 0));
}

#[test]
fn a_bad_flow_in_a_batch_is_counted_and_broken_framing_refuses_the_whole_batch() {
    let mut bad = record();
    bad.counters.bytes = Some(MAX_COUNT + 1);
    let bytes = flow_batch::encode(FeedKind::Reports, &[record(), bad, record()]);
    let mut taken = 0;
    let decoded = decode::flow_batch(&bytes, &mut |_| taken += 1).unwrap();
    assert_eq!((taken, decoded.records, decoded.rejected.get(Reason::Malformed)), (2, 2, 1));
    assert_eq!(decoded.first_problem.unwrap().position, 2);
    let cut = &bytes[..bytes.len() - 1];
    assert!(matches!(decode::flow_batch(cut, &mut |_| panic!("a record")), Err(DecodeError::Protobuf { .. })));
    let no_magic = decode::flow_batch(&bytes[5..], &mut |_| panic!("a record"));
    assert_eq!(no_magic, Err(DecodeError::Magic { found: 0 }));
}

#[test]
fn unknown_fields_of_a_batch_are_ignored() {
    let mut bytes = flow_batch::encode(FeedKind::Reports, &[record()]);
    bytes.extend([0xa2, 0x06, 3, 1, 2, 3, 0xa8, 0x06, 7]);
    let mut found = Vec::new();
    decode::flow_batch(&bytes, &mut |record| found.push(record.clone())).unwrap();
    assert_eq!(found, [record()]);
}

#[test]
fn every_form_is_told_from_the_others_plain_and_compressed() {
    let batch = flow_batch::encode(FeedKind::Reports, &[record()]);
    let envelope = br#"{"messageType":"DATA_MESSAGE","owner":"1","logGroup":"g","logEvents":[]}"#;
    let otlp = flowshift_proto::agent_report::encode(&Default::default());
    for (bytes, format) in [
        (batch.as_slice(), Format::FlowBatch),
        (LINE.as_bytes(), Format::JsonLines),
        (b"\xef\xbb\xbf\r\n {}", Format::JsonLines),
        (envelope, Format::LogsSubscription),
        (&otlp, Format::Otlp),
        (b"\xf3\x89\x9a\xc2\x0a\x01a", Format::KplAggregate),
        (b"2 123456789010 eni-1 10.0.0.1", Format::Unknown),
        (b"", Format::Unknown),
        (b"\x1f\x8b", Format::Unknown),
    ] {
        assert_eq!(decode::sniff(bytes), format, "{bytes:?}");
        assert_eq!(decode::sniff(&decode::gzip(bytes)), if bytes == b"\x1f\x8b" { Format::Unknown } else { format });
    }
}

#[test]
fn a_payload_is_read_by_its_form_or_refused_with_a_reason() {
    let read = |bytes: &[u8], options: Options| {
        let mut flows = 0;
        let decoded = decode::payload(bytes, &options, &mut |item| match item {
            Item::Flow(found) => {
                assert_eq!(found, &record());
                flows += 1;
            }
            Item::Report(_) => panic!("a report"),
        });
        decoded.map(|decoded| (flows, decoded.rejected.total()))
    };
    let auto = Options::default();
    let batch = flow_batch::encode(FeedKind::Reports, &[record()]);
    assert_eq!(read(&batch, auto), Ok((1, 0)));
    assert_eq!(read(&decode::gzip(&batch), auto), Ok((1, 0)));
    assert_eq!(read(LINE.as_bytes(), auto), Ok((1, 0)));
    assert_eq!(read(&decode::gzip(LINE.as_bytes()), auto), Ok((1, 0)));
    assert_eq!(read(b"", auto), Err(DecodeError::Empty));
    assert_eq!(read(&decode::gzip(b""), auto), Err(DecodeError::Empty));
    assert_eq!(read(b"\0\0", auto), Err(DecodeError::UnknownFormat("0000".into())));
    let small = Options { max_bytes: 100, ..auto };
    assert_eq!(read(LINE.as_bytes(), small), Err(DecodeError::TooLarge { limit: 100 }));
    assert_eq!(read(&decode::gzip(&[b' '; 500]), small), Err(DecodeError::TooLarge { limit: 100 }));
    let wrong = read(LINE.as_bytes(), Options { format: InputFormat::FlowBatch, ..auto });
    assert_eq!(wrong, Err(DecodeError::WrongFormat { found: "json-lines", expected: "flow-batch" }));
    let kpl = read(b"\xf3\x89\x9a\xc2\x0a", auto).unwrap_err();
    assert_eq!(kpl.reason(), Reason::Unsupported);
}
