//! What holds for every record, whatever its bytes: the fuzz target's body, which a test of `tests/kpl.rs` runs, too.

use flowshift_consumer::kpl::{Joined, Kpl, OutOfRange, Split, hash_key, join, split};
use flowshift_consumer::log::Record;
use flowshift_consumer::shard::{HashRange, SequenceNumber};

const LOWER: HashRange = HashRange { start: 0, end: u128::MAX / 2 };

/// Panics when taking the record apart breaks a promise.
pub(crate) fn check(bytes: &[u8]) {
    let Some(sequence) = SequenceNumber::new("7") else { return };
    let (data, partition_key) = (bytes.to_vec().into(), "outer".into());
    let record = Record { sequence, sub_sequence: 0, arrived_ms: 5, partition_key, data };
    for verify_md5 in [true, false] {
        let apart = |out_of_range, range| apart(Kpl { verify_md5, out_of_range }, range, &record);
        let all = apart(OutOfRange::Drop, HashRange::ALL);
        let (kept, dropped) = (apart(OutOfRange::Keep, LOWER), apart(OutOfRange::Drop, LOWER));
        match (all, kept, dropped) {
            (None, None, None) => {}
            (Some((all, outside)), Some((kept, outside_kept)), Some((dropped, outside_dropped))) => {
                assert_eq!(
                    (outside, outside_kept),
                    (0, outside_dropped),
                    "outside by range, not by what becomes of it"
                );
                assert_eq!(all, kept, "kept is all");
                assert_eq!(dropped.len() as u64 + outside_dropped, all.len() as u64, "dropped or there");
                assert!(dropped.iter().all(|record| all.contains(record)), "what is there is of the aggregate");
                again(&all);
            }
            _ => panic!("an aggregate by one setting of the range and none by another"),
        }
    }
    // What passes with its MD5 is no other without the look at it.
    let with = |verify_md5| apart(Kpl { verify_md5, out_of_range: OutOfRange::Drop }, HashRange::ALL, &record);
    if let Some(verified) = with(true) {
        assert_eq!(with(false), Some(verified));
    }
}

/// The records of an aggregate and how many lie outside; none: it is a plain record, which must be as it was.
fn apart(kpl: Kpl, range: HashRange, record: &Record) -> Option<(Vec<Record>, u64)> {
    match split(kpl, range, record.clone()) {
        Split::Plain { record: plain, reason } => {
            assert_eq!(plain, *record, "a plain record is not touched");
            assert_eq!(
                reason.is_some(),
                record.data.starts_with(&[0xF3, 0x89, 0x9A, 0xC2]),
                "a reason behind the magic"
            );
            None
        }
        Split::Aggregate { records, outside } => {
            let whole = record.data.as_ptr() as usize..=record.data.as_ptr() as usize + record.data.len();
            for sub in &records {
                let at = sub.data.as_ptr() as usize;
                assert!(
                    sub.data.is_empty() || whole.contains(&at) && whole.contains(&(at + sub.data.len())),
                    "a slice"
                );
                assert_eq!((&sub.sequence, sub.arrived_ms), (&record.sequence, record.arrived_ms));
            }
            assert!(records.is_sorted_by_key(|sub| sub.sub_sequence), "in order");
            Some((records, outside))
        }
    }
}

/// Put together anew, the same records come out.
fn again(records: &[Record]) {
    let joined = |record: &Record| Joined {
        partition_key: record.partition_key.to_string(),
        hash_key: Some(hash_key(&record.partition_key)),
        data: record.data.clone(),
    };
    let Some(first) = records.first().cloned() else { return };
    let whole = Record { data: join(&records.iter().map(joined).collect::<Vec<_>>()), ..first };
    let Some((again, outside)) = apart(Kpl::default(), HashRange::ALL, &whole) else {
        panic!("not an aggregate again")
    };
    let inside = |records: &[Record]| -> Vec<_> {
        records.iter().map(|record| (record.partition_key.clone(), record.data.clone())).collect()
    };
    assert_eq!((inside(&again), outside), (inside(records), 0));
}
