//! The thresholds at which recordings with known truth give the budget of false alarms.
//!
//! Time of a pair counts as clean as in the exam's scorer (its rule R4). Invariant: each threshold is the lowest, to a
//! thousandth of the range, at which no more incidents open in clean test time than the budget allows.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::alarms::incidents;
use crate::methods::Method;
use crate::recording::{Recording, SIGNALS, for_lines};

const DAY: i64 = 86_400;

#[derive(Deserialize)]
struct Element {
    kind: String,
    id: String,
}

#[derive(Deserialize)]
struct PairLine {
    src: String,
    dst: String,
    elements: Vec<Element>,
}

#[derive(Deserialize)]
struct Hit {
    src: String,
    dst: String,
}

#[derive(Deserialize)]
struct Event {
    cause: String,
    element: Element,
    start: i64,
    end: i64,
    permanent: bool,
    hits: Vec<Hit>,
}

/// Window length and thresholds of every method; `budget` is per signal.
pub fn thresholds(folders: &[PathBuf], budget: f64) -> Result<(i64, BTreeMap<String, [f32; 3]>)> {
    let mut recordings = Vec::new();
    for folder in folders {
        let file = |name: &str| folder.join(name);
        let recording = Recording::read(&file("windows.jsonl"), &file("pairs.jsonl"), &file("config.json"))?;
        let clean = clean(&recording, folder)?;
        recordings.push((recording, clean));
    }
    ensure!(!recordings.is_empty(), "no recordings");
    let window_s = recordings[0].0.window_s;
    ensure!(recordings.iter().all(|(r, _)| r.window_s == window_s), "recordings differ in the length of a window");
    let windows: usize = recordings.iter().flat_map(|(_, clean)| clean).flatten().filter(|clean| **clean).count();
    let allowed = (budget * windows as f64 * window_s as f64 / DAY as f64 / 1_000.0) as usize;
    let mut found = BTreeMap::new();
    for method in Method::ALL {
        let mut levels = [0.0; 3];
        for (signal, level) in levels.iter_mut().enumerate() {
            let mut scores = Vec::new();
            for (recording, clean) in &recordings {
                for (series, clean) in recording.series[signal].iter().zip(clean) {
                    scores.push((method.scores(series, signal, window_s, recording.warm), clean));
                }
            }
            *level = lowest(&scores, method, allowed);
        }
        eprintln!("{}: {levels:?} for {SIGNALS:?}, {allowed} allowed", method.name());
        found.insert(method.name().to_owned(), levels);
    }
    Ok((window_s, found))
}

fn lowest(scores: &[(Vec<f32>, &Vec<bool>)], method: Method, allowed: usize) -> f32 {
    let all = scores.iter().flat_map(|(scores, _)| scores).copied().filter(|score| score.is_finite());
    let (mut low, mut high) = (0.0_f32, all.fold(0.0_f32, f32::max) * 1.001);
    while high - low > high * 1e-3 {
        // Scores span decades: the middle in the logarithm, once there is one.
        let middle = if low > 0.0 { (low * high).sqrt() } else { high / 10.0 };
        let alarms: usize = scores
            .iter()
            .map(|(s, clean)| incidents(s, middle, method.rule()).iter().filter(|(start, _)| clean[*start]).count())
            .sum();
        if alarms > allowed {
            low = middle;
        } else {
            high = middle;
        }
        if high < 1e-6 {
            break;
        }
    }
    high
}

/// By pair and window: whether it is in the test period and in no event's time.
fn clean(recording: &Recording, folder: &Path) -> Result<Vec<Vec<bool>>> {
    let mut on: HashMap<(String, String), Vec<usize>> = HashMap::new();
    let mut ends = HashMap::new();
    for_lines(&folder.join("pairs.jsonl"), |line: PairLine| {
        let number = ends.len();
        for element in line.elements {
            on.entry((element.kind, element.id)).or_default().push(number);
        }
        ends.insert((line.src, line.dst), number);
        Ok(())
    })?;
    let length = recording.series[0].first().map_or(0, Vec::len);
    let mut clean = vec![(0..length).map(|at| at >= recording.warm).collect::<Vec<_>>(); ends.len()];
    for_lines(&folder.join("events.jsonl"), |event: Event| {
        if event.cause == "contamination" {
            return Ok(());
        }
        let last = if event.permanent { event.start + DAY } else { event.end };
        let last = last + if event.cause == "benign" { 900 } else { 2_700 };
        let hit: Vec<usize> = event.hits.into_iter().filter_map(|h| ends.get(&(h.src, h.dst)).copied()).collect();
        let window = |t: i64| usize::try_from((t - recording.t0) / recording.window_s).unwrap_or(0).min(length);
        for &pair in on.get(&(event.element.kind, event.element.id)).unwrap_or(&hit) {
            clean[pair][window(event.start)..window(last + recording.window_s)].fill(false);
        }
        Ok(())
    })?;
    Ok(clean)
}
