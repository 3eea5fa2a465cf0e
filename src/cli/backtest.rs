//! `flowshift backtest`: recorded traffic in, event log out.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

pub(super) const HELP: &str = "\
What the files hold:
  --windows     a JSON object a line, windows ascending: t (epoch s), pair, src, dst, flows, bytes,
                packets, retransmits, retransmit_flows, max_retransmits, timeouts, connects,
                connect_failures, agents, agents_full;
                hist [b0,[c0,c1,..]]: round-trip times, c_i of them in the bin floor(ln(us)/0.05)
                = b0+i; peers [[id,flows,retransmits,rtt_sum_us,rtt_n],..], id 0 = all others.
                A window is judged when the next begins; lines that come later, and exact repeats,
                are counted and left out.
  --pairs       {\"pair\":0,\"src\":\"subnet-1\",\"dst\":\"internet\"} a line; an end that is not in the
                topology is a named edge.
  --out         anomaly.opened, .updated and .resolved, a JSON object a line: what a webhook would
                carry. Whole or not at all: while it is written its name ends in .partial.
  --rtt-traces  *.csv of epoch;rtt (ms) below a header line; the log has a line per change of level.

The length of a window is window_s of the config.json beside the windows; without one, --step.

Examples:
  flowshift backtest --windows w.jsonl.gz --pairs p.jsonl --topology t.yaml --out incidents.jsonl
  flowshift backtest --windows w.jsonl --pairs p.jsonl --topology t.yaml --out - | jq .summary
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
