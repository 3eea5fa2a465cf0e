//! `flowshift backtest` over a made recording: what it finds, and that nothing but the data decides it.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A Monday, midnight.
const T0: i64 = 1_764_547_200;
const MINUTES: i64 = 360;
/// The fault: 5 % loss on pair 2 from here for half an hour.
const FAULT: (i64, i64) = (T0 + 300 * 60, T0 + 330 * 60);
const TOPOLOGY: &str = "subnets:
  - { id: subnet-a, cidr: 10.1.0.0/20, az: z1 }
  - { id: subnet-b, cidr: 10.2.0.0/20, az: z1 }
  - { id: subnet-c, cidr: 10.3.0.0/20, az: z2 }
  - { id: subnet-d, cidr: 10.4.0.0/20, az: z2 }
";
const ENDS: [(&str, &str); 6] = [
    ("subnet-a", "subnet-b"),
    ("subnet-a", "subnet-c"),
    ("subnet-a", "subnet-d"),
    ("subnet-b", "subnet-c"),
    ("subnet-b", "subnet-d"),
    ("subnet-c", "internet"),
];

/// A recording in a folder of its own.
struct Recording {
    folder: tempfile::TempDir,
}

impl Recording {
    fn new(window_s: Option<u32>) -> Self {
        let recording = Self { folder: tempfile::tempdir().unwrap() };
        recording.put("topology.yaml", TOPOLOGY);
        recording.put("windows.jsonl", &windows());
        let pairs =
            (0..).zip(ENDS).map(|(pair, (src, dst))| format!(r#"{{"pair":{pair},"src":"{src}","dst":"{dst}"}}"#));
        recording.put("pairs.jsonl", &pairs.collect::<Vec<_>>().join("\n"));
        if let Some(window_s) = window_s {
            recording.put("config.json", &format!(r#"{{"seed":1,"window_s":{window_s}}}"#));
        }
        recording
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn run(&self, windows: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowshift"));
        command.arg("backtest").arg("--windows").arg(self.path(windows)).arg("--pairs").arg(self.path("pairs.jsonl"));
        command.arg("--topology").arg(self.path("topology.yaml")).arg("--out").arg(self.path("log.jsonl"));
        command.args(more).output().unwrap()
    }

    /// The log and the summary of a run that must succeed.
    fn log(&self, windows: &str, more: &[&str]) -> (String, Value) {
        let output = self.run(windows, &[more, &["--json"]].concat());
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(said(&output), "", "without a terminal there is no progress bar");
        let summary = serde_json::from_slice(&output.stdout).unwrap();
        (std::fs::read_to_string(self.path("log.jsonl")).unwrap(), summary)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A stretch of noise that is always the same: a xorshift.
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Six pairs with 60 flows a minute and a retransmission in some 5,000 segments.
fn windows() -> String {
    let (mut text, mut noise) = (String::new(), Noise(0x9e37_79b9_7f4a_7c15));
    for minute in 0..MINUTES {
        let t = T0 + minute * 60;
        for (pair, (src, dst)) in (0..).zip(ENDS) {
            let (flows, faulty) = (50 + noise.below(20), pair == 2 && (FAULT.0..FAULT.1).contains(&t));
            let packets = flows * 45;
            let again = u64::from(noise.below(2) == 0) + if faulty { packets / 20 } else { 0 };
            let hit = again.min(flows);
            let (low, high) = (noise.below(10), noise.below(10));
            writeln!(
                text,
                r#"{{"t":{t},"pair":{pair},"src":"{src}","dst":"{dst}","flows":{flows},"bytes":{},"packets":{packets},"retransmits":{again},"retransmit_flows":{hit},"max_retransmits":{},"timeouts":0,"connects":40,"connect_failures":0,"agents":2,"agents_full":0,"peers_n":1,"hist":[140,[{low},{},{high}]],"peers":[[7,{flows},{again},{},{flows}]]}}"#,
                packets * 800,
                again.div_ceil(hit.max(1)),
                flows - low - high,
                flows * 1_150,
            )
            .unwrap();
        }
    }
    text
}

fn events(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_planted_loss_is_the_only_incident_and_is_over_soon_after_it_ends() {
    let recording = Recording::new(Some(60));
    let (log, summary) = recording.log("windows.jsonl", &[]);
    let events = events(&log);
    let first = &events[0];
    assert_eq!((&first["type"], &first["signal"]), (&"anomaly.opened".into(), &"retransmit".into()));
    assert_eq!(first["element"]["id"], "subnet-a>subnet-d");
    let at = first["at"].as_i64().unwrap();
    assert!((FAULT.0 + 60..=FAULT.0 + 300).contains(&at), "opened {} s after its start", at - FAULT.0);
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["incident"]), (&"anomaly.resolved".into(), &first["incident"]));
    assert!((FAULT.1..FAULT.1 + 900).contains(&last["at"].as_i64().unwrap()));
    let expected = [("lines", 2_160), ("windows", 360), ("late", 0), ("repeated", 0), ("opened", 1), ("open", 0)];
    for (field, value) in expected {
        assert_eq!(summary[field], value, "{field}: {summary}");
    }
    assert!(!recording.path("log.jsonl.partial").exists());
}

#[test]
fn explain_shows_an_incident_of_the_log_by_the_beginning_of_its_id() {
    let recording = Recording::new(Some(60));
    let (log, _) = recording.log("windows.jsonl", &[]);
    let incident = events(&log)[0]["incident"].as_str().unwrap().to_owned();
    let explain = |id: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowshift"));
        command.arg("explain").arg(id).arg("--log").arg(recording.path("log.jsonl"));
        command.args(more).output().unwrap()
    };
    let svg = recording.path("incident.svg");
    let output = explain(&incident[..8], &["--svg", svg.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.starts_with(&format!("{incident}: subnet-a → subnet-d: ")), "{page}");
    assert!(page.contains("began 2025-12-01 05:0") && page.contains('●') && !page.contains('\u{1b}'), "{page}");
    assert!(std::fs::read_to_string(svg).unwrap().contains("<circle"));
    assert_eq!(String::from_utf8(explain(&incident, &["--json"]).stdout).unwrap(), log);
    let unknown = explain("inc-of-another-job", &[]);
    assert_eq!(unknown.status.code(), Some(64));
    assert!(said(&unknown).contains(&incident), "{}", said(&unknown));
}

#[test]
fn neither_gzip_nor_the_number_of_lanes_nor_late_and_repeated_lines_change_a_byte() {
    let recording = Recording::new(Some(60));
    let (expected, _) = recording.log("windows.jsonl", &[]);
    assert!(!expected.is_empty());

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(windows().as_bytes()).unwrap();
    std::fs::write(recording.path("windows.gz"), encoder.finish().unwrap()).unwrap();
    assert_eq!(recording.log("windows.gz", &[]).0, expected);

    for lanes in [1, 3, 256] {
        recording.put("lanes.toml", &format!("[job]\nlanes = {lanes}\n"));
        let config = recording.path("lanes.toml");
        let (log, _) = recording.log("windows.jsonl", &["--config", config.to_str().unwrap()]);
        assert_eq!(log, expected, "{lanes} lanes");
    }

    // Every line twice at once, and every hundredth once more two windows later.
    let text = windows();
    let lines: Vec<&str> = text.lines().collect();
    let mut disturbed = String::new();
    for (index, line) in lines.iter().enumerate() {
        writeln!(disturbed, "{line}\n{line}").unwrap();
        if let Some(old) = index.checked_sub(12).filter(|old| old % 100 == 0) {
            writeln!(disturbed, "{}", lines[old]).unwrap();
        }
    }
    recording.put("disturbed.jsonl", &disturbed);
    let (log, summary) = recording.log("disturbed.jsonl", &[]);
    assert_eq!(log, expected);
    assert_eq!((&summary["late"], &summary["repeated"]), (&22.into(), &2_160.into()));
}

#[test]
fn a_line_that_cannot_be_read_is_told_by_its_number_and_leaves_no_log() {
    let good = windows();
    let first = good.lines().next().unwrap();
    let cases = [
        ("{\"t\":1".to_owned(), "line 2: EOF while parsing an object (column 6)"),
        (first.replace("\"flows\":", "\"flow\":"), "line 2: missing field `flows` (column"),
        (first.replace(&format!("\"t\":{T0}"), &format!("\"t\":{}", T0 + 7)), "is no start of a window of 60 s"),
        (first.replace("\"pair\":0", "\"pair\":99"), "line 2: pair 99 is not in the file of pairs"),
        (
            first.replace("\"src\":\"subnet-a\"", "\"src\":\"subnet-b\""),
            "line 2: pair 0 ends at subnet-b, the file of pairs",
        ),
        (first.replace("\"packets\":", "\"packets\":-"), "line 2: invalid value: integer `-"),
    ];
    for (wrong, expected) in cases {
        let recording = Recording::new(Some(60));
        recording.put("windows.jsonl", &format!("{first}\n{wrong}\n"));
        let output = recording.run("windows.jsonl", &[]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(expected), "{}", said(&output));
        assert!(!recording.path("log.jsonl").exists());
    }
}

#[test]
fn the_length_of_a_window_is_never_guessed() {
    let without = Recording::new(None);
    let output = without.run("windows.jsonl", &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(said(&output).contains("config.json is not there: give --step"), "{}", said(&output));
    assert_eq!(
        without.log("windows.jsonl", &["--step", "60s"]).0,
        Recording::new(Some(60)).log("windows.jsonl", &[]).0
    );

    let minutes = Recording::new(Some(60));
    let output = minutes.run("windows.jsonl", &["--step", "10s"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(said(&output).contains("`10s` is not a multiple of `detector.pane` (60s)"), "{}", said(&output));
    assert!(!Path::new(&minutes.path("log.jsonl")).exists());
}
