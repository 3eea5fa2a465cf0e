//! The traffic: a simulated region with planted faults, as JSON lines in the order in which they are produced.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::support::program::flowshift;

/// Flow records of one simulated minute, roughly: what `simulate` makes.
const RECORDS_PER_MINUTE: usize = 9_500;

/// Files of the input.
#[derive(Debug)]
pub(crate) struct Input {
    /// Topology of the region.
    pub(crate) topology: PathBuf,
    /// One flow record a line.
    pub(crate) flows: PathBuf,
    /// Lines in it.
    pub(crate) records: usize,
}

impl Input {
    /// Exactly this many flow records of the region of a seed, made in `folder`.
    pub(crate) fn make(folder: &Path, seed: u64, records: usize) -> Self {
        let minutes = (records / RECORDS_PER_MINUTE + 5).to_string();
        let all = folder.join("simulated");
        let mut command = flowshift();
        command.args(["simulate", "--minutes", &minutes, "--seed", &seed.to_string(), "--out"]).arg(&all);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (topology, flows) = (folder.join("topology.yaml"), folder.join("flows.jsonl"));
        std::fs::rename(all.join("topology.yaml"), &topology).unwrap();
        let mut out = BufWriter::new(File::create(&flows).unwrap());
        let lines = BufReader::new(File::open(all.join("flows.jsonl")).unwrap()).lines();
        let mut kept = 0;
        for line in lines.take(records) {
            writeln!(out, "{}", line.unwrap()).unwrap();
            kept += 1;
        }
        out.flush().unwrap();
        assert_eq!(kept, records, "{minutes} simulated minutes are too few");
        std::fs::remove_dir_all(all).unwrap();
        Self { topology, flows, records }
    }
}
