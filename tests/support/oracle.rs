//! The sums of `tests/python/oracle.py`, in the form of `state export`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::capture::report_logs;
use super::site::script;
use super::tools::python;

/// Independent sums over the capture.
#[derive(Debug, Deserialize)]
pub(crate) struct Sums {
    /// Flow rows of all reports.
    pub(crate) records: u64,
    /// By `src>dst`, then by counter; states after a dot.
    pub(crate) pairs: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The sums; `None` without Python.
pub(crate) fn sums() -> Option<Sums> {
    let subnets = "subnet-a=10.77.1.0/24,fd77:1::/64;subnet-b=10.77.2.0/24,fd77:2::/64";
    let output = script(&python()?, "oracle.py").arg(subnets).args(report_logs()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// The counters of an export that the oracle knows, by `src>dst`.
pub(crate) fn exported(export: &Value) -> BTreeMap<String, BTreeMap<String, u64>> {
    let pairs = export["pairs"].as_array().unwrap_or_else(|| panic!("no pairs in {export}"));
    let mut found = BTreeMap::new();
    for pair in pairs {
        let name = format!("{}>{}", pair["src"].as_str().unwrap(), pair["dst"].as_str().unwrap());
        let mut counters = BTreeMap::new();
        for plain in ["flows", "bytes", "segments", "connects", "connect_failures", "resets"] {
            counters.insert(plain.to_owned(), count(&pair[plain], &format!("{plain} of {pair}")));
        }
        for by_state in ["retransmits", "timeouts"] {
            for state in ["syn", "established", "close"] {
                let key = format!("{by_state}.{state}");
                counters.insert(key.clone(), count(&pair[by_state][state], &format!("{key} of {pair}")));
            }
        }
        assert!(found.insert(name, counters).is_none(), "a pair stands twice in {export}");
    }
    found
}

/// Records in, records accounted, records by reason.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Records {
    pub(crate) incoming: u64,
    pub(crate) accounted: u64,
    pub(crate) reasons: BTreeMap<String, u64>,
}

impl Records {
    /// Reads `records` of an export, and holds it to its own sum and to that of the pairs.
    pub(crate) fn of(export: &Value) -> Self {
        let records = &export["records"];
        let reasons = records["reasons"].as_object().unwrap_or_else(|| panic!("no reasons in {records}"));
        let reasons: BTreeMap<_, _> = reasons.iter().map(|(name, n)| (name.clone(), count(n, name))).collect();
        for name in ["malformed", "unmapped", "late", "future", "duplicate", "unsupported", "expired"] {
            assert!(reasons.contains_key(name), "reason {name} is not in {records}");
        }
        let all = Self {
            incoming: count(&records["in"], "in"),
            accounted: count(&records["accounted"], "accounted"),
            reasons,
        };
        assert_eq!(all.incoming, all.accounted + all.reasons.values().sum::<u64>(), "records do not add up: {all:?}");
        // An accounted record is in a pane, and in one only: every record has one flow.
        let in_panes: u64 = exported(export).values().map(|counters| counters["flows"]).sum();
        assert_eq!(all.accounted, in_panes, "accounted records are not in panes: {all:?}");
        all
    }

    /// The reasons that have a count.
    pub(crate) fn refused(&self) -> BTreeMap<&str, u64> {
        self.reasons.iter().filter(|(_, n)| **n > 0).map(|(name, n)| (name.as_str(), *n)).collect()
    }
}

fn count(value: &Value, what: &str) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{what} is {value}"))
}
