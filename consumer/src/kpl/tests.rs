//! Aggregates by a builder of our own; those by AWS's library are in `tests/kpl.rs`.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use md5::{Digest, Md5};
use proptest::prelude::*;
use prost::Message;

use super::wire::{AggregatedRecord, SubRecord};
use super::*;
use crate::log::Record;
use crate::shard::{HashRange, SequenceNumber};

fn record(data: impl Into<Bytes>) -> Record {
    let sequence = SequenceNumber::new("7").unwrap();
    Record { sequence, sub_sequence: 0, arrived_ms: 5, partition_key: "outer".into(), data: data.into() }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0xF3, 0x89, 0x9A, 0xC2], message, &Md5::digest(message)[..]].concat()
}

fn sub(partition_key: u64, hash_key: Option<u64>, data: &str) -> SubRecord {
    SubRecord { partition_key: Some(partition_key), hash_key, data: Some(Bytes::from(data.to_owned())) }
}

fn aggregate(keys: &[&str], hashes: &[&str], subs: &[SubRecord]) -> Vec<u8> {
    let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
    let records = subs.iter().map(|s| s.encode_to_vec().into()).collect();
    framed(&AggregatedRecord { partition_keys: owned(keys), hash_keys: owned(hashes), records }.encode_to_vec())
}

fn apart(data: impl Into<Bytes>) -> Result<(Vec<Record>, u64), Option<Reason>> {
    apart_with(Kpl::default(), HashRange::ALL, data)
}

fn apart_with(kpl: Kpl, range: HashRange, data: impl Into<Bytes>) -> Result<(Vec<Record>, u64), Option<Reason>> {
    match split(kpl, range, record(data)) {
        Split::Plain { reason, .. } => Err(reason),
        Split::Aggregate { records, outside } => Ok((records, outside)),
    }
}

fn texts(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|r| format!("{}:{}:{}", r.sub_sequence, r.partition_key, String::from_utf8_lossy(&r.data)))
        .collect()
}

#[test]
fn sub_records_come_out_in_order_with_their_keys_and_are_slices_of_the_aggregate() {
    let whole = Bytes::from(aggregate(&["a", "b"], &[], &[sub(0, None, "one"), sub(1, None, "two"), sub(0, None, "")]));
    let (records, outside) = apart(whole.clone()).unwrap();
    assert_eq!((texts(&records), outside), (vec!["0:a:one".into(), "1:b:two".into(), "2:a:".into()], 0));
    let inside = whole.as_ptr() as usize..whole.as_ptr() as usize + whole.len();
    assert!(inside.contains(&(records[0].data.as_ptr() as usize)), "the payload was copied");
}

#[test]
fn what_is_no_aggregate_is_one_plain_record_with_the_reason() {
    let good = aggregate(&["a"], &[], &[sub(0, None, "x")]);
    let mut wrong_md5 = good.clone();
    *wrong_md5.last_mut().unwrap() ^= 1;
    let missing =
        [SubRecord { data: None, ..sub(0, None, "") }, SubRecord { partition_key: None, ..sub(0, None, "x") }];
    let cases: Vec<(&str, Vec<u8>, Option<Reason>)> = vec![
        ("empty", vec![], None),
        ("text", b"hello".to_vec(), None),
        ("magic alone", good[..4].to_vec(), Some(Reason::Short)),
        ("magic and a digest without a message", framed(b""), Some(Reason::Short)),
        ("cut short", good[..good.len() - 3].to_vec(), Some(Reason::Checksum)),
        ("wrong digest", wrong_md5, Some(Reason::Checksum)),
        ("not protobuf", framed(&[0xFF; 20]), Some(Reason::Undecodable)),
        ("length beyond the end", framed(&[0x1A, 0xFF, 0xFF, 0xFF, 0x7F, 1]), Some(Reason::Undecodable)),
        ("sub-record that lies about its length", framed(&[0x1A, 4, 8, 0, 0x1A, 9]), Some(Reason::Undecodable)),
        ("key index beyond the table", aggregate(&["a"], &[], &[sub(1, None, "x")]), Some(Reason::Undecodable)),
        ("key index beyond memory", aggregate(&["a"], &[], &[sub(u64::MAX, None, "x")]), Some(Reason::Undecodable)),
        ("hash index beyond the table", aggregate(&["a"], &[], &[sub(0, Some(0), "x")]), Some(Reason::Undecodable)),
        ("hash key that is no number", aggregate(&["a"], &["x1"], &[sub(0, Some(0), "x")]), Some(Reason::Undecodable)),
        ("without data", aggregate(&["a"], &[], &missing[..1]), Some(Reason::Undecodable)),
        ("without key", aggregate(&["a"], &[], &missing[1..]), Some(Reason::Undecodable)),
        (
            "one bad among good",
            aggregate(&["a"], &[], &[sub(0, None, "x"), sub(9, None, "y")]),
            Some(Reason::Undecodable),
        ),
    ];
    for (what, bytes, reason) in cases {
        let before = record(bytes.clone());
        match split(Kpl::default(), HashRange::ALL, record(bytes)) {
            Split::Plain { record, reason: found } => assert_eq!((record, found), (before, reason), "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn the_md5_is_checked_unless_told_otherwise() {
    let mut bytes = aggregate(&["a"], &[], &[sub(0, None, "x")]);
    *bytes.last_mut().unwrap() ^= 1;
    let lax = Kpl { verify_md5: false, ..Kpl::default() };
    assert_eq!(apart(bytes.clone()), Err(Some(Reason::Checksum)));
    assert_eq!(texts(&apart_with(lax, HashRange::ALL, bytes).unwrap().0), ["0:a:x"]);
}

#[test]
fn exactly_the_sub_records_outside_the_range_are_dropped_or_kept_and_counted() {
    // MD5 of "a" is 0x0cc1.., of "b" 0x92eb..; the explicit hash key wins over the partition key's.
    let subs = [sub(0, None, "1"), sub(1, None, "2"), sub(1, Some(0), "3"), sub(0, None, "4")];
    let bytes = aggregate(&["a", "b"], &["5"], &subs);
    let lower = HashRange { start: 0, end: u128::MAX / 2 };
    let (kept, outside) = apart_with(Kpl::default(), lower, bytes.clone()).unwrap();
    assert_eq!((texts(&kept), outside), (vec!["0:a:1".into(), "2:b:3".into(), "3:a:4".into()], 1));
    let keep = Kpl { out_of_range: OutOfRange::Keep, ..Kpl::default() };
    let (kept, outside) = apart_with(keep, lower, bytes).unwrap();
    assert_eq!((kept.len(), outside), (4, 1));
}

#[test]
fn unknown_fields_such_as_tags_are_passed_over() {
    let mut with_tag = sub(0, None, "x").encode_to_vec();
    with_tag.extend_from_slice(&[0x22, 3, 0x0A, 1, b'k']);
    let message =
        AggregatedRecord { partition_keys: vec!["a".into()], hash_keys: vec![], records: vec![with_tag.into()] };
    assert_eq!(texts(&apart(framed(&message.encode_to_vec())).unwrap().0), ["0:a:x"]);
}

#[test]
fn an_aggregate_of_nothing_is_nothing() {
    assert_eq!(apart(aggregate(&["a"], &[], &[])).unwrap(), (vec![], 0));
}

#[test]
fn an_aggregate_of_ten_megabytes_or_of_a_hundred_thousand_records_is_taken_apart() {
    let large = "x".repeat(1 << 20);
    let (records, _) = apart(aggregate(&["a"], &[], &vec![sub(0, None, &large); 10])).unwrap();
    assert_eq!(records.iter().map(|r| r.data.len()).sum::<usize>(), 10 << 20);
    let (records, _) = apart(aggregate(&["a"], &[], &vec![sub(0, None, "y"); 100_000])).unwrap();
    assert_eq!((records.len(), records[99_999].sub_sequence), (100_000, 99_999));
}

#[test]
fn the_stored_code_of_the_settings_comes_back_and_an_unknown_one_is_refused() {
    let all = [OutOfRange::Drop, OutOfRange::Keep]
        .map(|out_of_range| [true, false].map(|verify_md5| Kpl { verify_md5, out_of_range }));
    for kpl in all.into_iter().flatten().map(Some).chain([None]) {
        assert_eq!(Kpl::from_code(Kpl::code(kpl)), Ok(kpl));
    }
    assert_eq!((Kpl::from_code(2), Kpl::from_code(9)), (Err(2), Err(9)));
    // The codes are stored in cuts: they never change.
    assert_eq!((Kpl::code(None), Kpl::code(Some(Kpl::default()))), (0, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any damage gives a plain record or an aggregate, never a panic, and never more bytes than came in.
    #[test]
    fn a_damaged_aggregate_is_never_more_than_its_bytes(
        data in prop::collection::vec("[a-z]{0,20}", 0..20),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        sign in any::<bool>(),
    ) {
        let subs: Vec<SubRecord> = (0u64..).zip(&data).map(|(i, text)| sub(i % 2, (i % 3 == 0).then_some(0), text)).collect();
        let mut bytes = aggregate(&["a", "b"], &["17"], &subs);
        for (at, value) in &damage {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if !damage.is_empty() {
            bytes.truncate(4 + cut.index(bytes.len() - 4));
        }
        if sign && bytes.len() > 20 {
            // With a right MD5 the damage reaches the decoder.
            let end = bytes.len() - 16;
            let digest = Md5::digest(&bytes[4..end]);
            bytes[end..].copy_from_slice(&digest);
        }
        let length = bytes.len();
        match split(Kpl::default(), HashRange::ALL, record(bytes.clone())) {
            Split::Plain { record: plain, .. } => prop_assert_eq!(plain.data, bytes),
            Split::Aggregate { records, outside } => {
                prop_assert_eq!(outside, 0);
                prop_assert!(records.iter().map(|r| r.data.len()).sum::<usize>() <= length);
                if damage.is_empty() {
                    prop_assert_eq!(records.iter().map(|r| r.data.to_vec()).collect::<Vec<_>>(), data.iter().map(|t| t.clone().into_bytes()).collect::<Vec<_>>());
                }
            }
        }
    }
}
