//! `flowshift doctor`: is everything there that a process needs.

use std::path::PathBuf;

use clap::Args;

use super::Settings;
use crate::config::Span;
use crate::doctor::Part;

pub(super) const HELP: &str = "\
Run it with the credentials, settings and mounts of the process it is about: in its pod, or with its role. Permissions
are tried out by the very calls the process makes, with arguments that cannot change anything.

Exit codes: 0 no fault (there may be warnings), 1 a fault, 64 a wrong command line.

Examples:
  flowshift doctor --config flowshift.toml
  flowshift doctor --config flowshift.toml --role collect --json
  flowshift doctor --data-dir ./data --topology topology.yaml
  kubectl -n flowshift exec deploy/flowshift -- /flowshift doctor --config /etc/flowshift/flowshift.toml";

/// `flowshift doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Process that is meant: `run` by its role, or `collect`
    #[arg(long, value_enum, default_value_t)]
    pub role: Part,
    /// Data folder of a `local` run, running or not; without it the job on AWS is meant
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Time limit of each check
    #[arg(long, value_name = "SPAN", default_value = "15s")]
    pub timeout: Span,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings,
}
