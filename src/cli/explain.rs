//! `flowshift explain`: what drove an incident.

use std::path::PathBuf;

use clap::Args;

use super::Place;

pub(super) const HELP: &str = "\
The dots are what was observed at each event of the incident, the bars the 90 % interval of the
change, the line the pair's baseline. The lower plot is the evidence in nats. An event is written
when something changed, so an incident that only lasts has few.

Examples:
  flowshift explain inc-9bc4e9035b96be02 --data-dir ./data
  flowshift explain inc-9bc4 --log incidents.jsonl --svg incident.svg
  flowshift backtest … --out - | flowshift explain inc-9bc4 --log -";

/// `flowshift explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// Id of the incident, or a beginning of it that no other has
    #[arg(value_name = "INCIDENT")]
    pub incident: String,
    /// Event log to look in: of `backtest`, of `--json`, or the data of webhooks; `-` is standard input. Without it the
    /// committed state of a job is read, which keeps events for a while
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    pub log: Option<PathBuf>,
    /// Which job.
    #[command(flatten)]
    pub place: Place,
    /// Also draw it into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Print the incident's events as JSON lines
    #[arg(long)]
    pub json: bool,
}
