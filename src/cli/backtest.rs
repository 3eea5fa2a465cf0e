//! `flowshift backtest`: recorded traffic in, event log out.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

pub(super) const HELP: &str = "\
What the files hold:
  --windows   one JSON object a line, windows ascending: t (epoch s), pair, src, dst, flows, bytes, packets, retransmits,
              retransmit_flows, max_retransmits, timeouts, connects, connect_failures, agents, agents_full,
              hist [b0,[counts]] (round-trip times; bin b0+i holds floor(ln(us)/0.05) = b0+i), peers [[id,flows,
              retransmits,rtt_sum_us,rtt_n],..]. A window is judged when the next one begins: a line that comes later is
              counted and left out, as is an exact repeat.
  --pairs     {\"pair\":0,\"src\":\"subnet-1\",\"dst\":\"internet\"} a line; a subnet outside the topology is a named edge.
  --out       anomaly.opened | updated | resolved, one JSON object a line: what a webhook would carry.
  --rtt-traces  files *.csv of `epoch;rtt` (ms), a header line first; the log then holds {\"trace\",\"t\"} per change.

The length of a window is window_s of the config.json beside the windows file; without one it is --step.

Examples:
  flowshift backtest --windows w.jsonl.gz --pairs pairs.jsonl --topology topology.yaml --out incidents.jsonl
  flowshift backtest --windows w.jsonl --pairs pairs.jsonl --topology topology.yaml --step 10s --out - | jq .summary
  flowshift backtest --rtt-traces traces/ --out alarms.jsonl";

/// `flowshift backtest`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("input").required(true).args(["windows", "rtt_traces"])))]
pub struct Backtest {
    /// Windows of subnet pairs, as JSON lines, plain or gzip
    #[arg(long, value_name = "FILE", requires_all = ["pairs", "topology"])]
    pub windows: Option<PathBuf>,
    /// Which pair each number in the windows is, as JSON lines, plain or gzip
    #[arg(long, value_name = "FILE", requires = "windows")]
    pub pairs: Option<PathBuf>,
    /// Topology file: our YAML, or the output of `aws ec2 describe-subnets`
    #[arg(long, value_name = "FILE", requires = "windows")]
    pub topology: Option<PathBuf>,
    /// Folder of single series of round-trip times, one CSV file each
    #[arg(long, value_name = "DIR", conflicts_with_all = ["pairs", "topology", "step", "config"])]
    pub rtt_traces: Option<PathBuf>,
    /// Event log to write; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// How often every pair is judged: 10s or 60s, a multiple of the window. Default: the window
    #[arg(long, value_name = "SPAN")]
    pub step: Option<String>,
    /// Settings file (TOML); its [detector] and [job] lanes count here
    #[arg(long, value_name = "FILE", env = "FLOWSHIFT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Say at the end what was read and found as JSON, on standard error when the log goes to standard output
    #[arg(long)]
    pub json: bool,
}
