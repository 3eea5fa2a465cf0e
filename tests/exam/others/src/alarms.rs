//! Scores into incidents: M of N windows above a threshold open one, ten windows below it in a row end it.
//!
//! One incident is one signal of one pair; these methods know nothing else. Invariant: an alarm is told at the end of the
//! window that decided it.

use serde_json::{Value, json};

use crate::methods::Method;
use crate::recording::{Recording, SIGNALS};

/// Windows below the threshold that end an incident.
const CALM: usize = 10;

/// First and last window of every incident; the last is `None` when it is open at the end.
pub fn incidents(scores: &[f32], threshold: f32, (above, of): (usize, usize)) -> Vec<(usize, Option<usize>)> {
    let (mut found, mut recent, mut calm, mut since) = (Vec::new(), 0_u32, 0, None);
    for (at, score) in scores.iter().enumerate() {
        // A window without a value is neither above nor below.
        let is_above = *score > threshold;
        recent = (recent << 1 | u32::from(is_above)) & ((1 << of) - 1);
        match since {
            None if recent.count_ones() as usize >= above => {
                since = Some(at);
                calm = 0;
            }
            Some(start) => {
                calm = if is_above { 0 } else { calm + 1 };
                if calm >= CALM {
                    found.push((start, Some(at)));
                    since = None;
                }
            }
            None => {}
        }
    }
    found.extend(since.map(|start| (start, None)));
    found
}

/// The event log of a method, in the order of time.
pub fn log(recording: &Recording, method: Method, thresholds: &[f32; 3]) -> Vec<Value> {
    let mut events = Vec::new();
    for (signal, name) in SIGNALS.iter().enumerate() {
        for (pair, series) in recording.series[signal].iter().enumerate() {
            let scores = method.scores(series, signal, recording.window_s, recording.warm);
            for (number, (start, end)) in (0..).zip(incidents(&scores, thresholds[signal], method.rule())) {
                let incident = format!("{}-{name}-{pair}-{number}", method.name());
                let at = |window: usize| recording.t0 + (window as i64 + 1) * recording.window_s;
                let (src, dst) = &recording.ends[pair];
                let opened = json!({
                    "type": "anomaly.opened", "incident": &incident, "at": at(start), "started_at": at(start) - recording.window_s,
                    "signal": name, "severity": "s3", "verdict": "insufficient",
                    "element": {"kind": "pair", "id": format!("{src}>{dst}")}, "pairs": [{"src": src, "dst": dst, "since": at(start)}],
                });
                events.push((at(start), opened));
                if let Some(end) = end {
                    let resolved = json!({"type": "anomaly.resolved", "incident": &incident, "at": at(end), "reason": "recovered"});
                    events.push((at(end), resolved));
                }
            }
        }
    }
    events.sort_by_key(|(at, _)| *at);
    events.into_iter().map(|(_, event)| event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_five_open_and_ten_below_end() {
        let mut scores = vec![0.0; 40];
        [5, 7, 9].into_iter().for_each(|at| scores[at] = 2.0);
        assert_eq!(incidents(&scores, 1.0, (3, 5)), [(9, Some(19))]);
        assert_eq!(incidents(&scores[..15], 1.0, (3, 5)), [(9, None)]);
        scores[7] = f32::NAN;
        assert_eq!(incidents(&scores, 1.0, (3, 5)), []);
        assert_eq!(incidents(&scores, 1.0, (1, 1)), [(5, Some(19))]);
    }
}
