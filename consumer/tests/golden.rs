//! Stored formats of every version stay readable: rows, manifests, cuts, chunks, deltas, directories and pages as they
//! were written once, byte for byte, in `tests/data/`.
//!
//! A line is an item: its key, then its attributes as `name=type:value`, separated by tabs. `FLOWSHIFT_WRITE_GOLDEN=1`
//! writes the file of the current version anew; that of a released version is never written again.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flowshift_consumer::commit::{Chunks, Cut, Fence, Manifest, PageName, Pages, STATE_KEY, Saver, indexed_part};
use flowshift_consumer::lease::{Checkpoint, LeaseRow, attribute, new_row};
use flowshift_consumer::log::StreamId;
use flowshift_consumer::shard::{HashRange, Shard, ShardId};
use flowshift_consumer::table::memory::MemoryTable;
use flowshift_consumer::table::{Condition, Item, Table, TableName, Value};
use tokio_util::sync::CancellationToken;

const FENCE: Fence = Fence { epoch: 2, counter: 41 };
const LANES: u32 = 20;

fn state_table() -> TableName {
    TableName { name: "state".into(), key: STATE_KEY }
}

fn chunks(table: &Arc<MemoryTable>) -> Chunks {
    Chunks::new(table.clone(), state_table(), StreamId { name: "exchange".into(), created_ms: 1_800_000_000_000 })
}

/// What a lane held: text that compresses, longer than one write unit.
fn lane(index: u32, round: u32) -> Bytes {
    let line = |n: u32| {
        format!(
            "pair {} count {}\n",
            n.wrapping_mul(2_654_435_761).rotate_left(n) % 9_973,
            n + round * u32::from(n == 7)
        )
    };
    Bytes::from((0..300 + index).map(line).collect::<String>())
}

fn cut() -> Cut {
    Cut {
        epoch: 2,
        n: 77,
        first: "49660000000000000000000000000000000000000000000000000011".into(),
        last: "49660000000000000000000000000000000000000000000000000019".into(),
        records: 9,
        snapshot: "0123456789abcdef0123456789abcdef".into(),
        semantics: 1,
        crc: 0xdead_beef,
        watermarks: vec![1_800_000_012_345, i64::MIN],
        end: true,
        children: vec!["shardId-000000000001".into()],
        lanes: 64,
        ..Cut::default()
    }
}

fn row(manifest: &Manifest) -> Item {
    let shard =
        Shard { id: ShardId::new("shardId-000000000000"), parents: vec![], range: HashRange::ALL, closed: false };
    new_row(&shard, &Checkpoint::parse(&manifest.checkpoint).unwrap(), 1_800_000_000_000)
        .with(attribute::EPOCH, Value::number(2))
        .with(attribute::MANIFEST, Value::B(manifest.encode_bytes()))
        .with(attribute::CUT, Value::B(cut().encode_bytes()))
}

fn line(item: &Item) -> String {
    let mut text = String::new();
    for (name, value) in item.iter() {
        let value = match value {
            Value::S(text) => format!("S:{text}"),
            Value::N(number) => format!("N:{number}"),
            Value::B(bytes) => {
                let mut hex = "B:".to_owned();
                bytes.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
                hex
            }
            Value::Ss(set) => format!("SS:{}", set.iter().cloned().collect::<Vec<_>>().join(",")),
            Value::Other => panic!("the engine writes no other values"),
        };
        write!(text, "{}{name}={value}", if text.is_empty() { "" } else { "\t" }).unwrap();
    }
    text
}

fn parse(line: &str) -> Item {
    let mut item = Item::new();
    for field in line.split('\t') {
        let (name, value) = field.split_once('=').unwrap();
        let (kind, value) = value.split_once(':').unwrap();
        let byte = |at: usize| u8::from_str_radix(&value[at..at + 2], 16).unwrap();
        item.set(
            name,
            match kind {
                "S" => Value::string(value),
                "N" => Value::N(value.into()),
                "B" => Value::B((0..value.len()).step_by(2).map(byte).collect::<Vec<_>>().into()),
                _ => Value::Ss(value.split(',').map(str::to_owned).collect()),
            },
        );
    }
    item
}

/// The tables as a file of `tests/data` has them, and the lease row.
async fn load(text: &str) -> (Arc<MemoryTable>, LeaseRow) {
    let table = Arc::new(MemoryTable::default());
    let mut row = None;
    for item in text.lines().filter(|line| !line.is_empty()).map(parse) {
        if item.get(attribute::KEY).is_some() {
            row = LeaseRow::read(&item).unwrap();
        } else {
            table.put(&state_table(), item, Condition::None).await.unwrap();
        }
    }
    (table, row.unwrap())
}

/// Version 2: twenty lanes behind a directory, one of them with a delta, and a page.
async fn current() -> String {
    let table = Arc::new(MemoryTable::default());
    let stop = CancellationToken::new();
    let mut saver = Saver::new(chunks(&table), "shardId-000000000000", FENCE, Vec::new(), None);
    let key = |index| format!("lane-{index:04}");
    let first = (0..LANES).map(|index| (key(index), lane(index, 0))).collect();
    saver.put("5".into(), first, |_| true, &stop).await.unwrap();
    saver.committed();
    let mut pages = Pages::new(chunks(&table), FENCE, &[]).unwrap();
    let page = vec![(PageName::new("monday.08").unwrap(), Some(Bytes::from_static(b"a baseline")))];
    let (index, _) = pages.put(&key(3), page, &stop).await.unwrap();
    let (manifest, _) = saver.put("6".into(), vec![(key(3), lane(3, 1)), index], |_| true, &stop).await.unwrap();
    let mut text = line(&row(&manifest)) + "\n";
    for item in table.scan(&state_table()).await.unwrap() {
        text += &(line(&item) + "\n");
    }
    text
}

async fn check(text: &str, lanes: impl Fn(u32) -> Bytes, count: u32) -> (Chunks, Vec<(String, Bytes)>) {
    let (table, row) = load(text).await;
    let chunks = chunks(&table);
    assert_eq!(row.cut, Some(cut()));
    let manifest = row.manifest.unwrap();
    assert_eq!(manifest.checkpoint, row.checkpoint.to_string());
    let mut indexes = Vec::new();
    let mut found = 0;
    for part in chunks.parts(&manifest).await.unwrap() {
        let bytes = chunks.get(&part).await.unwrap();
        if indexed_part(&part.key).is_some() {
            indexes.push((part.key, bytes));
            continue;
        }
        let index = part.key.strip_prefix("lane-").unwrap().parse().unwrap();
        assert_eq!(bytes, lanes(index), "{}", part.key);
        found += 1;
    }
    assert_eq!(found, count);
    (chunks, indexes)
}

#[tokio::test]
async fn version_1_stays_readable() {
    let lanes = |index| lane(index, 0);
    let (_, indexes) = check(include_str!("data/state-v1.txt"), lanes, 2).await;
    assert!(indexes.is_empty());
}

#[tokio::test]
async fn version_2_stays_readable() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/state-v2.txt");
    if std::env::var_os("FLOWSHIFT_WRITE_GOLDEN").is_some() {
        std::fs::write(path, current().await).unwrap();
    }
    let text = std::fs::read_to_string(path).unwrap();
    let (chunks, indexes) = check(&text, |index| lane(index, u32::from(index == 3)), LANES).await;
    let pages = Pages::new(chunks, FENCE, &indexes).unwrap();
    let page = pages.get("lane-0003", &PageName::new("monday.08").unwrap()).await.unwrap();
    assert_eq!(page.unwrap(), "a baseline");
    assert!(text.contains("/d00/"), "has a delta");
    assert!(text.contains("directory@"), "has a directory");
}

/// Rows are paid for by the kilobyte at every renewal.
#[tokio::test]
async fn a_lease_row_stays_within_one_write_unit_whatever_the_number_of_lanes() {
    for lanes in [1u32, 8, 64] {
        let table = Arc::new(MemoryTable::default());
        let mut saver = Saver::new(chunks(&table), "shardId-000000000000", FENCE, Vec::new(), None);
        let marks = ("marks@shardId-000000000000".to_owned(), lane(0, 0));
        let saved = (0..lanes).map(|index| (format!("lane-{index:04}"), lane(index, 0))).chain([marks]).collect();
        let checkpoint = "49660000000000000000000000000000000000000000000000000019".to_owned();
        let (manifest, _) = saver.put(checkpoint, saved, |_| true, &CancellationToken::new()).await.unwrap();
        let mut row = row(&manifest).with(attribute::OWNER, Value::string("flowshift-7c9f8d5b6d-x2x4q-1800000000000"));
        row.remove(attribute::CUT);
        let bytes = row.size();
        println!("{lanes} lanes: manifest {} bytes, row {bytes} bytes", manifest.encode_bytes().len());
        assert!(bytes <= 1024, "{lanes} lanes: {bytes} bytes");
    }
}
