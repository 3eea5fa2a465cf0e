//! A simulated region as files, for `flowshift simulate` and for tests of other programs.
//!
//! ```text
//! topology.yaml                     planted.json (what is planted, with absolute times)
//! agents/INSTANCE/post-0001.otlp.pb.gz   the bodies as the agent POSTs them
//! posts.jsonl                       the bodies in time order: {"time_ms","instance_id","file"}
//! flows.jsonl                       the same rows as JSON lines
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use flowshift_proto::agent_report::encode_gzip;
use serde::Serialize;
use thiserror::Error;

use super::{Planted, Region, SimFlow, SimReport, SimRtt};

/// A file could not be written.
#[derive(Debug, Error)]
#[error("cannot write {}", path.display())]
pub struct SimulateError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bodies.
    pub reports: u64,
    /// Rows in them, = lines of `flows.jsonl`.
    pub flows: u64,
}

/// Writes the first `minutes` of the region into `dir`, which is made if it is not there.
///
/// # Errors
/// [`SimulateError`] with the file that could not be written.
pub fn write_files(region: &Region, dir: &Path, minutes: u32) -> Result<Written, SimulateError> {
    let mut out = Out::create(dir)?;
    out.text("topology.yaml", &region.topology_yaml())?;
    let planted: Vec<Absolute<'_>> = region.planted().iter().map(|planted| Absolute::new(region, planted)).collect();
    out.text("planted.json", &json(&planted))?;
    let mut written = Written::default();
    for report in region.reports(0, i64::from(minutes) * 60) {
        written.reports += 1;
        written.flows += report.flows.len() as u64;
        out.report(report)?;
    }
    out.finish()?;
    Ok(written)
}

/// A planted change with its times in seconds since 1970.
#[derive(Serialize)]
struct Absolute<'a> {
    start: i64,
    end: i64,
    #[serde(flatten)]
    planted: &'a Planted,
}

impl<'a> Absolute<'a> {
    fn new(region: &Region, planted: &'a Planted) -> Self {
        Self { start: region.start_s() + planted.start_s, end: region.start_s() + planted.end_s, planted }
    }
}

/// A line of `posts.jsonl`.
#[derive(Serialize)]
struct Post<'a> {
    time_ms: i64,
    instance_id: &'a str,
    file: &'a str,
}

/// A line of `flows.jsonl`: a flow record in its JSON form.
#[derive(Serialize)]
struct Line {
    ts_ms: i64,
    interval_ms: i64,
    src: IpAddr,
    dst: IpAddr,
    src_port: u16,
    dst_port: u16,
    protocol: &'static str,
    bytes: u64,
    packets: u64,
    retransmits: u64,
    timeouts: u64,
    connects: u64,
    connect_failures: u64,
    rtt: Rtt,
}

#[derive(Serialize)]
struct Rtt {
    count: u64,
    min_us: u64,
    max_us: u64,
    sum_us: u64,
}

impl Line {
    fn new(report: &SimReport, flow: &SimFlow) -> Self {
        let SimRtt { count, min_us, max_us, sum_us } = flow.rtt;
        Self {
            ts_ms: report.time_ms - report.interval_ms,
            interval_ms: report.interval_ms,
            src: flow.local,
            dst: flow.remote,
            src_port: flow.local_port,
            dst_port: flow.remote_port,
            protocol: "tcp",
            bytes: flow.bytes,
            packets: flow.segments,
            retransmits: flow.retransmits,
            timeouts: flow.timeouts,
            connects: flow.connects,
            connect_failures: flow.connect_failures,
            rtt: Rtt { count, min_us, max_us, sum_us },
        }
    }
}

/// Plain structs of numbers and text always serialise.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

struct Out<'a> {
    dir: &'a Path,
    posts: Lines,
    flows: Lines,
    /// Bodies written so far, by agent.
    numbers: HashMap<String, u32>,
}

struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Lines {
    fn create(path: PathBuf) -> Result<Self, SimulateError> {
        let file = File::create(&path).map_err(|source| SimulateError { path: path.clone(), source })?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), SimulateError> {
        let result = self.file.write_all(json(value).as_bytes());
        result.map_err(|source| SimulateError { path: self.path.clone(), source })
    }

    fn flush(&mut self) -> Result<(), SimulateError> {
        self.file.flush().map_err(|source| SimulateError { path: self.path.clone(), source })
    }
}

impl<'a> Out<'a> {
    fn create(dir: &'a Path) -> Result<Self, SimulateError> {
        make_dir(dir)?;
        let posts = Lines::create(dir.join("posts.jsonl"))?;
        let flows = Lines::create(dir.join("flows.jsonl"))?;
        Ok(Self { dir, posts, flows, numbers: HashMap::new() })
    }

    fn text(&self, name: &str, text: &str) -> Result<(), SimulateError> {
        write(self.dir.join(name), text.as_bytes())
    }

    fn report(&mut self, report: SimReport) -> Result<(), SimulateError> {
        for flow in &report.flows {
            self.flows.line(&Line::new(&report, flow))?;
        }
        let instance_id = report.instance_id.clone();
        let number = self.numbers.entry(instance_id.clone()).or_default();
        if *number == 0 {
            make_dir(&self.dir.join("agents").join(&instance_id))?;
        }
        *number += 1;
        let file = format!("agents/{instance_id}/post-{number:04}.otlp.pb.gz");
        self.posts.line(&Post { time_ms: report.time_ms, instance_id: &instance_id, file: &file })?;
        write(self.dir.join(&file), &encode_gzip(&report.into_agent_report()))
    }

    fn finish(mut self) -> Result<(), SimulateError> {
        self.posts.flush()?;
        self.flows.flush()
    }
}

fn make_dir(path: &Path) -> Result<(), SimulateError> {
    fs::create_dir_all(path).map_err(|source| SimulateError { path: path.to_owned(), source })
}

fn write(path: PathBuf, bytes: &[u8]) -> Result<(), SimulateError> {
    fs::write(&path, bytes).map_err(|source| SimulateError { path, source })
}
