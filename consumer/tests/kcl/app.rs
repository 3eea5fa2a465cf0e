//! The KCL application: a Python process on kcl-rs, and what it said.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::services::{STREAM, Services};

/// KCL looks around every ten to twenty seconds; two busy cores make that longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running application.
pub(crate) struct App {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it was given, by shard, in order: sequence numbers and texts.
    pub(crate) records: BTreeMap<String, Vec<(String, String)>>,
    /// The checkpoint each processor started behind, by shard.
    pub(crate) starts: BTreeMap<String, String>,
    /// Last checkpoint it made, by shard.
    pub(crate) checkpoints: BTreeMap<String, String>,
    pub(crate) prepared: BTreeMap<String, String>,
    pub(crate) ended: BTreeSet<String>,
    stopped: bool,
}

impl App {
    /// Starts a worker of the application, or says loudly that it cannot be had.
    pub(crate) fn start(services: &Services, application: &str, worker: &str, more: &[&str]) -> Option<Self> {
        let Some(python) = python() else {
            skip("no Python with the package kcl-rs (tests/requirements-kcl.txt)");
            return None;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/kcl_app.py");
        let mut command = Command::new(python);
        command
            .arg(script)
            .args([STREAM, application, worker])
            .args(more)
            .env("AWS_ENDPOINT_URL_KINESIS", services.kinesis_url())
            .env("AWS_ENDPOINT_URL_DYNAMODB", &services.dynamodb_url)
            // Its metrics go nowhere: nobody listens on the discard port.
            .env("AWS_ENDPOINT_URL_CLOUDWATCH", "http://127.0.0.1:9")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("RUST_LOG", "kcl=error")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Some(Self {
            process,
            lines,
            records: BTreeMap::new(),
            starts: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            prepared: BTreeMap::new(),
            ended: BTreeSet::new(),
            stopped: false,
        })
    }

    /// Listens until what it said so far is `enough`.
    pub(crate) async fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let listening = async {
            while !enough(self) {
                let line = self.lines.next_line().await.unwrap();
                self.note(&line.unwrap_or_else(|| panic!("the application ended before {what}")));
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
    }

    /// Ends it as an operator would: it stops reading and leaves its leases.
    pub(crate) async fn stop(mut self) -> Self {
        drop(self.process.stdin.take());
        self.until("its end", |app| app.stopped).await;
        assert!(self.process.wait().await.unwrap().success());
        self
    }

    /// Records it was given, of all shards.
    pub(crate) fn given(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    fn note(&mut self, line: &str) {
        let said: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let shard = text("shard");
        match said["event"].as_str().unwrap() {
            "start" => drop(self.starts.insert(shard, text("sequence"))),
            "record" => self.records.entry(shard).or_default().push((text("sequence"), text("data"))),
            "checkpoint" => drop(self.checkpoints.insert(shard, text("sequence"))),
            "prepare" => drop(self.prepared.insert(shard, text("sequence"))),
            "shard_end" => drop(self.ended.insert(shard)),
            "stopped" => self.stopped = true,
            "lost" => {}
            other => panic!("unknown event {other}"),
        }
    }
}

/// A Python that has kcl-rs: that of `tests/run`, its virtual environment, or the machine's.
fn python() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/.tools/venv/bin/python");
    let candidates = [std::env::var_os("FLOWSHIFT_PYTHON").map(PathBuf::from), Some(venv), Some("python3".into())];
    let has_it = |python: &PathBuf| {
        let mut probe = std::process::Command::new(python);
        let probe = probe.args(["-c", "import kcl_rs"]).stdin(Stdio::null()).stdout(Stdio::null());
        probe.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    candidates.into_iter().flatten().find(has_it)
}

fn skip(why: &str) {
    eprintln!("SKIPPED kcl: {why}");
    if let Some(path) = std::env::var_os("FLOWSHIFT_SKIPPED") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "kcl: {why}").unwrap();
    }
}
