//! A recording as three series per pair.
//!
//! Late lines and repeats are left out, as everywhere in the exam. Invariant: series have one place for every window; a
//! window without enough behind it is NaN, never 0.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The signals in the order of [`Recording::series`].
pub const SIGNALS: [&str; 3] = ["retransmit", "latency", "connect"];
/// Width of a bin in log round-trip time.
const BIN: f64 = 0.05;
/// Segments, round-trip times and connects a minute from which a window says anything.
const ENOUGH: [f64; 3] = [200.0, 10.0, 10.0];

/// A recording.
#[derive(Debug)]
pub struct Recording {
    /// Start, epoch s.
    pub t0: i64,
    /// Length of a window, s.
    pub window_s: i64,
    /// Windows of the days in which a method may only learn.
    pub warm: usize,
    /// Source and destination of every pair.
    pub ends: Vec<(String, String)>,
    /// By signal, then pair: share of segments sent again, log of the median round-trip time in µs, share of failed
    /// connects; one value a window.
    pub series: [Vec<Vec<f32>>; 3],
}

#[derive(Deserialize)]
struct Config {
    t0: i64,
    days: i64,
    warm_days: i64,
    window_s: i64,
}

#[derive(Deserialize)]
struct PairLine {
    pair: usize,
    src: String,
    dst: String,
}

#[derive(Deserialize)]
struct Line {
    t: i64,
    pair: usize,
    packets: u64,
    retransmits: u64,
    connects: u64,
    connect_failures: u64,
    hist: (i64, Vec<u64>),
}

impl Recording {
    /// Reads a recording.
    pub fn read(windows: &Path, pairs: &Path, config: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(config).with_context(|| config.display().to_string())?;
        let Config { t0, days, warm_days, window_s } =
            serde_json::from_str(&text).with_context(|| config.display().to_string())?;
        ensure!(window_s > 0 && (1..=400).contains(&days), "{}: {days} days of {window_s} s", config.display());
        let mut ends = BTreeMap::new();
        for_lines(pairs, |line: PairLine| {
            ends.insert(line.pair, (line.src, line.dst));
            Ok(())
        })?;
        let ends: Vec<_> = ends.into_values().collect();
        let length = usize::try_from(days * 86_400 / window_s)?;
        let series = std::array::from_fn(|_| vec![vec![f32::NAN; length]; ends.len()]);
        let warm = usize::try_from(warm_days * 86_400 / window_s)?;
        let mut recording = Self { t0, window_s, warm, ends, series };
        let mut now = i64::MIN;
        for_lines(windows, |line: Line| {
            let late = line.t < now;
            now = now.max(line.t);
            let at = usize::try_from((line.t - t0) / window_s)?;
            ensure!(
                line.pair < recording.ends.len() && at < length,
                "pair {} or time {} is not of it",
                line.pair,
                line.t
            );
            if !late {
                recording.take(at, &line);
            }
            Ok(())
        })?;
        Ok(recording)
    }

    fn take(&mut self, at: usize, line: &Line) {
        let minutes = self.window_s as f64 / 60.0;
        let rtts: u64 = line.hist.1.iter().sum();
        let behind = [line.packets, rtts, line.connects].map(|n| n as f64);
        let values = [
            line.retransmits as f64 / behind[0],
            log_median(&line.hist, rtts),
            line.connect_failures as f64 / behind[2],
        ];
        for (signal, value) in values.into_iter().enumerate() {
            if behind[signal] >= (ENOUGH[signal] * minutes).max(1.0) {
                self.series[signal][line.pair][at] = value as f32;
            }
        }
    }
}

/// Log of the median, interpolated in its bin.
fn log_median((first, counts): &(i64, Vec<u64>), total: u64) -> f64 {
    let (half, mut below) = (total as f64 / 2.0, 0.0);
    for (bin, &count) in counts.iter().enumerate() {
        let count = count as f64;
        if count > 0.0 && below + count >= half {
            return (*first as f64 + bin as f64 + (half - below) / count) * BIN;
        }
        below += count;
    }
    f64::NAN
}

/// Reads JSON lines, plain or gzip.
pub fn for_lines<T: for<'a> Deserialize<'a>>(path: &Path, mut each: impl FnMut(T) -> Result<()>) -> Result<()> {
    let mut raw = BufReader::with_capacity(1 << 18, File::open(path).with_context(|| path.display().to_string())?);
    let gzip = raw.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let plain: Box<dyn Read> = if gzip { Box::new(flate2::bufread::MultiGzDecoder::new(raw)) } else { Box::new(raw) };
    for (number, line) in (1..).zip(BufReader::with_capacity(1 << 18, plain).lines()) {
        let place = || format!("{} line {number}", path.display());
        let line = line.with_context(place)?;
        each(serde_json::from_str(&line).with_context(place)?).with_context(place)?;
    }
    Ok(())
}
