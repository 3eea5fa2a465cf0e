//! Single series of round-trip times: a folder of CSV files in, one line per change of level out.
//!
//! A file is `epoch;rtt` with a header line and perhaps more columns, which are not read (labels among them). Times are
//! read as UTC. The statistics are [`flowshift_detector::series`]. Invariant: a change is written with the time of the
//! value that decided it; files come in the order of their names.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use flowshift_detector::series::{ChangeDetector, Direction, Rules};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::BacktestError;

/// Ways in which times are written, besides epoch seconds.
const FORMATS: [&str; 6] = [
    "%Y-%m-%d %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M",
];

/// What became of the traces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TraceAccount {
    /// Files read.
    pub traces: u64,
    /// Values in them.
    pub values: u64,
    /// Values that were lost pings (not positive).
    pub lost: u64,
    /// Changes written.
    pub changes: u64,
}

#[derive(Serialize)]
struct Alarm<'a> {
    trace: &'a str,
    /// Epoch s.
    t: i64,
    direction: Direction,
    before_ms: f64,
    after_ms: f64,
}

/// The trace files of a folder by name, the shorter name first, so that numbers are in order.
///
/// # Errors
/// The folder cannot be read, or no `*.csv` is in it.
pub fn trace_files(folder: &Path) -> Result<Vec<PathBuf>, BacktestError> {
    let read = |source| BacktestError::Read { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(BacktestError::NoTraces { path: folder.to_owned() });
    }
    files.sort_by_cached_key(|path| (path.as_os_str().len(), path.clone()));
    Ok(files)
}

/// Follows one trace and writes its changes; the trace is named like its file, without the extension.
///
/// # Errors
/// The file cannot be read, a line has no time or no number; the log cannot be written.
pub fn follow_trace(path: &Path, log: &mut impl Write, account: &mut TraceAccount) -> Result<(), BacktestError> {
    let read = |source| BacktestError::Read { path: path.to_owned(), source };
    let trace = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut detector = ChangeDetector::new(Rules::default());
    let mut newest_s = i64::MIN;
    account.traces += 1;
    for (number, line) in (1..).zip(BufReader::new(File::open(path).map_err(read)?).lines()) {
        let line = line.map_err(read)?;
        if number == 1 || line.trim().is_empty() {
            continue;
        }
        let wrong = |what| BacktestError::Line { path: path.to_owned(), line: number, what };
        let mut fields = line.trim().split(';');
        let (time, rtt) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let t = epoch(time).ok_or_else(|| wrong(format!("{time:?} is no time")))?;
        // Some clocks step back by seconds; the time of a decision does not.
        newest_s = newest_s.max(t);
        let rtt_ms: f64 = rtt.replace(',', ".").parse().map_err(|_| wrong(format!("{rtt:?} is no number of ms")))?;
        let answered = rtt_ms > 0.0;
        account.values += 1;
        account.lost += u64::from(!answered);
        if let Some(change) = detector.push(answered.then_some(rtt_ms)) {
            account.changes += 1;
            let (direction, before_ms, after_ms) = (change.direction, change.before, change.after);
            let alarm = Alarm { trace: &trace, t: newest_s, direction, before_ms, after_ms };
            serde_json::to_writer(&mut *log, &alarm).map_err(|error| BacktestError::Write(error.into()))?;
            writeln!(log).map_err(BacktestError::Write)?;
        }
    }
    Ok(())
}

fn epoch(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds.abs() < 1e11).then_some(seconds as i64);
    }
    let civil = FORMATS.iter().find_map(|format| DateTime::strptime(format, text).ok())?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn every_way_of_writing_a_time_is_the_same_second() {
        let same =
            ["1476479820", "14/10/2016 21:17", "14/10/2016 21:17:00", "2016-10-14 21:17:00", "2016-10-14T21:17:00Z"];
        assert!(same.iter().all(|text| epoch(text) == Some(1_476_479_820)));
        assert!(["", "soon", "2016-13-01 00:00:00", "1e300", "NaN"].iter().all(|text| epoch(text).is_none()));
    }

    #[test]
    fn a_change_bears_the_time_of_the_value_that_decided_it_and_labels_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = "epoch;rtt;cp\r\n".to_owned();
        for i in 0..100 {
            // The clock steps back once, right where the change is decided.
            let t = 1_000_000 + i * 240 - if i == 57 { 300 } else { 0 };
            let rtt = if i == 20 { "-1".to_owned() } else { format!("{}", if i < 50 { 20 } else { 30 }) };
            write!(text, "{t};{rtt};label\r\n").unwrap();
        }
        let path = folder.path().join("11.csv");
        std::fs::write(&path, text).unwrap();
        let (mut log, mut account) = (Vec::new(), TraceAccount::default());
        follow_trace(&path, &mut log, &mut account).unwrap();
        assert_eq!(account, TraceAccount { traces: 1, values: 100, lost: 1, changes: 1 });
        let expected = "{\"trace\":\"11\",\"t\":1013440,\"direction\":\"up\",\"before_ms\":20.0,\"after_ms\":30.0}\n";
        assert_eq!(String::from_utf8(log).unwrap(), expected);
    }

    #[test]
    fn what_is_no_trace_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        assert!(trace_files(folder.path()).unwrap_err().to_string().ends_with("no *.csv in it"));
        let path = folder.path().join("9.csv");
        for (text, expected) in
            [("h\n5;1\nx;1", "line 3: \"x\" is no time"), ("h\n5;fast", "line 2: \"fast\" is no number")]
        {
            std::fs::write(&path, text).unwrap();
            let told = follow_trace(&path, &mut Vec::new(), &mut TraceAccount::default()).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        }
        std::fs::write(folder.path().join("10.csv"), "").unwrap();
        let names: Vec<_> =
            trace_files(folder.path()).unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["9.csv", "10.csv"]);
    }
}
