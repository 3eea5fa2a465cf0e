//! Tests of the shard log: what survives a kill, and what trimming leaves.

use std::path::Path;

use super::*;

fn settings(dir: Option<&Path>) -> LogSettings {
    LogSettings { dir: dir.map(Path::to_owned), segment_bytes: 200, segment_age_ms: 1_000_000 }
}

fn fill(log: &mut ShardLog, count: u64) {
    for i in 0..count {
        let data = format!("record {i}");
        log.append(1000 + i, &[NewRecord { partition_key: "key", data: data.as_bytes() }]).unwrap();
    }
}

fn texts(log: &ShardLog, from: Position) -> Vec<(u64, String)> {
    let batch = log.read(from, 10_000, 1 << 20).unwrap();
    batch.frames().map(|f| f.map(|f| (f.position.0, String::from_utf8(f.data.to_vec()).unwrap())).unwrap()).collect()
}

fn only_file_with_the_highest_name(dir: &Path) -> PathBuf {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).max().unwrap()
}

#[test]
fn memory_and_disk_read_the_same_over_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [None, Some(dir.path())] {
        let mut log = ShardLog::open(settings(dir), Position(50)).unwrap();
        fill(&mut log, 40);
        assert!(log.segments.len() > 5);
        let all = texts(&log, Position(0));
        assert_eq!(all.len(), 40);
        assert_eq!(all[0], (50, "record 0".to_owned()));
        assert_eq!(texts(&log, Position(89)), [(89, "record 39".to_owned())]);
        assert!(texts(&log, Position(90)).is_empty());
        assert_eq!(log.first_at(1017), Position(67));
        assert_eq!(log.first_at(0), Position(50));
        assert_eq!(log.first_at(5000), Position(90));
        assert_eq!(log.arrival_ms(Position(67)), Some(1017));
    }
}

#[test]
fn a_read_stops_at_records_and_bytes_but_always_returns_one() {
    let mut log = ShardLog::open(settings(None), Position(0)).unwrap();
    fill(&mut log, 20);
    assert_eq!(log.read(Position(0), 7, 1 << 20).unwrap().count, 7);
    // Each record is "key" and "record N": 11 bytes.
    assert_eq!(log.read(Position(0), 100, 33).unwrap().count, 3);
    assert_eq!(log.read(Position(0), 100, 32).unwrap().count, 2);
    assert_eq!(log.read(Position(0), 100, 1).unwrap().count, 1);
}

#[test]
fn a_cut_tail_is_removed_and_its_positions_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = ShardLog::open(settings(Some(dir.path())), Position(0)).unwrap();
    fill(&mut log, 12);
    drop(log);
    let path = only_file_with_the_highest_name(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();

    let mut log = ShardLog::open(settings(Some(dir.path())), Position(0)).unwrap();
    assert_eq!(texts(&log, Position(0)).len(), 11);
    assert_eq!(log.next(), Position(11));
    fill(&mut log, 1);
    drop(log);
    let log = ShardLog::open(settings(Some(dir.path())), Position(0)).unwrap();
    assert_eq!(texts(&log, Position(11)), [(11, "record 0".to_owned())]);
}

#[test]
fn damage_in_an_old_segment_loses_its_rest_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = ShardLog::open(settings(Some(dir.path())), Position(0)).unwrap();
    fill(&mut log, 20);
    let in_first = log.segments[0].count() as u64;
    drop(log);
    let path = dir.path().join(segment::file_name(Position(0)));
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let log = ShardLog::open(settings(Some(dir.path())), Position(0)).unwrap();
    let positions: Vec<u64> = texts(&log, Position(0)).into_iter().map(|(p, _)| p).collect();
    let expected: Vec<u64> = (0..20).filter(|p| *p != in_first - 1).collect();
    assert_eq!(positions, expected);
    assert_eq!(log.first_from(Position(in_first - 1)), Position(in_first));
}

#[test]
fn trimming_by_time_keeps_the_next_position_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = ShardLog::open(settings(Some(dir.path())), Position(0)).unwrap();
    fill(&mut log, 10);
    let trimmed = log.trim_before(1008);
    assert!(trimmed.records > 0 && trimmed.records <= 8, "{trimmed:?}");
    assert_eq!(texts(&log, Position(0)).len() as u64, 10 - trimmed.records);
    log.trim_before(u64::MAX);
    assert_eq!(log.bytes(), 0);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    drop(log);
    let log = ShardLog::open(settings(Some(dir.path())), Position(0)).unwrap();
    assert_eq!(log.next(), Position(10));
}

#[test]
fn arrival_times_never_fall_when_the_clock_does() {
    let mut log = ShardLog::open(settings(None), Position(0)).unwrap();
    for now in [5000, 4000, 5001] {
        log.append(now, &[NewRecord { partition_key: "k", data: b"d" }]).unwrap();
    }
    let arrivals: Vec<_> = (0..3).map(|p| log.arrival_ms(Position(p)).unwrap()).collect();
    assert_eq!(arrivals, [5000, 5000, 5001]);
}
