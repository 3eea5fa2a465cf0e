//! What must be true at the end: sums against Python, the incident log against a calm run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::input::Input;
use crate::support::oracle::{Records, exported};
use crate::support::site::script;

/// Counters by name, by `src>dst`.
pub(crate) type Sums = BTreeMap<String, BTreeMap<String, u64>>;

/// The sums of `tests/python/flows_oracle.py`.
#[derive(Debug, Deserialize)]
pub(crate) struct Oracle {
    pub(crate) records: usize,
    pub(crate) pairs: Sums,
}

impl Oracle {
    /// Adds up the raw lines.
    pub(crate) fn of(python: &Path, input: &Input) -> Self {
        let output = script(python, "flows_oracle.py").arg(&input.topology).arg(&input.flows).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// How one run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What `state export` says.
    pub(crate) export: Value,
    /// What each process printed, in the order of their ends.
    pub(crate) printed: Vec<Vec<String>>,
}

impl Outcome {
    /// The incident log as committed: every event in order.
    pub(crate) fn log(&self) -> Vec<String> {
        self.export["events"].as_array().unwrap().iter().map(Value::to_string).collect()
    }

    /// Every record is in the panes exactly once, or a repeat of the producer's; nothing else.
    pub(crate) fn holds(&self, what: &str, oracle: &Oracle) {
        let records = Records::of(&self.export);
        let refused = records.refused();
        assert!(refused.keys().all(|reason| *reason == "duplicate"), "{what}: {records:?}");
        assert_eq!(records.accounted, oracle.records as u64, "{what}: {records:?}");
        assert_eq!(sums(&self.export), oracle.pairs, "{what}: sums per pair");
        for nothing in ["panes_refused", "unreadable"] {
            assert_eq!(self.export[nothing], 0, "{what}: {nothing}");
        }
        self.printed_is_committed(what);
    }

    /// Each event was printed by some process, with the content that is committed, and nothing else was.
    fn printed_is_committed(&self, what: &str) {
        let committed: Vec<Value> = self.export["events"].as_array().unwrap().clone();
        let mut missing: Vec<bool> = vec![true; committed.len()];
        for lines in &self.printed {
            for line in lines.iter().filter(|line| line.starts_with('{')) {
                let event: Value = serde_json::from_str(line).unwrap();
                let at = committed.iter().position(|known| *known == event);
                let at = at.unwrap_or_else(|| panic!("{what}: printed and not committed: {line}"));
                missing[at] = false;
            }
        }
        let missing = missing.iter().filter(|missing| **missing).count();
        assert_eq!(missing, 0, "{what}: events committed and never printed");
    }
}

/// The counters of an export that the oracle knows: states of TCP are summed, as a JSON line does not tell them.
fn sums(export: &Value) -> Sums {
    let rtt = export["pairs"].as_array().unwrap().iter().map(|pair| {
        let name = format!("{}>{}", pair["src"].as_str().unwrap(), pair["dst"].as_str().unwrap());
        (name, pair["rtt_n"].as_u64().unwrap())
    });
    let rtt: BTreeMap<String, u64> = rtt.collect();
    let mut all = exported(export);
    for (name, counters) in &mut all {
        for folded in ["retransmits", "timeouts"] {
            let states = ["syn", "established", "close"].map(|state| format!("{folded}.{state}"));
            let sum = states.iter().map(|state| counters.remove(state).unwrap()).sum();
            counters.insert(folded.to_owned(), sum);
        }
        assert_eq!(counters.remove("resets"), Some(0), "{name}: the lines have none");
        counters.insert("rtt_n".to_owned(), rtt[name]);
    }
    all
}
