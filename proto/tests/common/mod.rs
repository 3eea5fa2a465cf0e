//! Helpers shared by the tests.

use std::path::{Path, PathBuf};

use flowshift_proto::agent_report::AgentReport;
use flowshift_proto::decode::{self, Item, Options};

/// Numbers of the samples in `tests/data`, in the order of the lines of `agent-a.jsonl`.
#[allow(dead_code)]
pub(crate) const SAMPLES: [u32; 3] = [1, 10, 40];

/// A file of `tests/data`.
#[allow(dead_code)]
pub(crate) fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The compressed body of one sample.
#[allow(dead_code)]
pub(crate) fn sample(number: u32) -> Vec<u8> {
    data(&format!("agent-a-{number:04}.otlp.pb.gz"))
}

/// The folder of the whole capture, if it is there.
#[allow(dead_code)]
pub(crate) fn captures() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/nfm/two-subnets");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: {} is absent, the whole capture is not checked", folder.display());
    None
}

/// The one report of a payload of any form.
#[allow(dead_code)]
pub(crate) fn only_report(bytes: &[u8], arrival_ms: Option<i64>) -> AgentReport {
    let mut reports = Vec::new();
    let options = Options { arrival_ms, ..Options::default() };
    let decoded = decode::payload(bytes, &options, &mut |item| match item {
        Item::Report(report) => reports.push(*report),
        Item::Flow(record) => panic!("flow {record:?} where a report is expected"),
    });
    let decoded = decoded.unwrap();
    assert_eq!(decoded.first_problem, None);
    assert_eq!(reports.len(), 1);
    let report = reports.remove(0);
    assert_eq!(decoded.records, report.flows.len() as u64);
    report
}
