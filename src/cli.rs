//! The command line: what a person can ask for, in their words.

mod backtest;
mod doctor;
mod explain;
mod incidents;
mod leases;
mod webhook;

#[cfg(feature = "embedded")]
macro_rules! embedded {
    () => {
        "yes"
    };
}
#[cfg(not(feature = "embedded"))]
macro_rules! embedded {
    () => {
        "no"
    };
}

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use reqwest::Url;

use crate::app::Role;
use crate::config::Override;

pub use backtest::Backtest;
pub use doctor::Doctor;
pub use explain::Explain;
pub use incidents::{Door, End, IncidentsCommand, MuteScope, Said, SignalName, Speaker};
pub use leases::{Decide, LeasesCommand, LeasesList, LeasesRelease, ResolveCommand, ResolveSkip};
pub use webhook::{Verify, WebhookCommand};

/// What `--version` says; `-V` says the first line.
const LONG_VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), "\ncommit ", env!("FLOWSHIFT_COMMIT"), "\nembedded services: ", embedded!());

/// Did the network between these two subnets just get worse, how sure are we, and whose fault is it?
#[derive(Debug, Parser)]
#[command(name = "flowshift", version, long_version = LONG_VERSION)]
#[command(max_term_width = 120, arg_required_else_help = true, after_long_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it: a simulated region with planted faults, judged by the real pipeline, in under two minutes
    #[command(after_long_help = "Examples:\n  flowshift demo\n  flowshift demo --seed 7 --json | jq .summary")]
    Demo(Demo),
    /// Run every stage in this process, with Kinesis and DynamoDB inside it and state on local disk
    #[command(after_long_help = "Examples:\n  flowshift local --data-dir data --topology topology.yaml --step 10s\n  \
        flowshift local --data-dir data --topology topology.yaml --drain --json")]
    Local(Local),
    /// Run the stages against AWS
    ///
    /// The three streams must exist; `flowshift doctor` says whether all is there.
    #[command(after_long_help = "Examples:\n  flowshift run --config flowshift.toml\n  \
        flowshift run --config flowshift.toml --role detect --dry-run --json")]
    Run(Run),
    /// Check all that a process needs, and say what is wrong and how to mend it
    ///
    /// Settings, credentials, clock, streams, tables, permissions, workers of other programs, topology, recent records,
    /// webhooks, ports. Nothing is changed, put or delivered.
    #[command(after_long_help = doctor::HELP)]
    Doctor(Doctor),
    /// Take agent reports and flow records over HTTP and put them into Kinesis
    #[command(after_long_help = "Example:\n  flowshift collect --config flowshift.toml --listen 0.0.0.0:4318")]
    Collect(Collect),
    /// Write a simulated region's traffic to files
    #[command(after_long_help = "Example:\n  flowshift simulate --out region --minutes 60 --seed 3 --json")]
    Simulate(Simulate),
    /// Run the detector over recorded traffic and write its event log, to see what it would have told
    ///
    /// Either over windows of subnet pairs: the code of the job's stages, past the streams, on one line per pair and
    /// window. Or over single series of round-trip times. The same input gives the same bytes.
    #[command(after_long_help = backtest::HELP)]
    Backtest(Backtest),
    /// Show what drove an incident: observed against baseline, evidence over time, what it rests on
    #[command(after_long_help = explain::HELP)]
    Explain(Explain),
    /// Show the open incidents; acknowledge, mute or dismiss them
    #[command(subcommand)]
    Incidents(IncidentsCommand),
    /// Check, show or describe the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Try out webhooks, check a received one, enable one that was disabled
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// See and mend who reads which shard, and how far it is
    #[command(subcommand)]
    Leases(LeasesCommand),
    /// Look into committed state
    #[command(subcommand)]
    State(StateCommand),
    /// Print shell completions
    #[command(after_long_help = COMPLETIONS)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual: a page for the program and one for each command
    #[command(after_long_help = "Examples:\n  flowshift man | man -l -\n  flowshift man --out ~/.local/share/man/man1")]
    Man {
        /// Folder to write all pages to, made if absent; without it the first page is printed
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

const EXIT_CODES: &str = "Exit codes:
  0   done, or left as asked; what would be done was shown (without --yes), or there was nothing to do
  1   could not start, or stopped with an error; what was looked at is not in order: `doctor` found a fault, `state inspect`
      state that cannot be read, `demo` something else than was planted, a receiver did not take a test, a signature does not fit
  64  a wrong command line, configuration, topology or use: what is named does not exist, or is refused as it is";

const COMPLETIONS: &str = "Examples:
  flowshift completions bash > ~/.local/share/bash-completion/completions/flowshift
  flowshift completions zsh > \"${fpath[1]}/_flowshift\"
  flowshift completions fish > ~/.config/fish/completions/flowshift.fish";

/// Where settings come from.
#[derive(Debug, Args, Clone, Default)]
pub struct Settings {
    /// Settings file (TOML). Environment `FLOWSHIFT__SECTION__KEY` overrules it, flags overrule both
    #[arg(long, value_name = "FILE", env = "FLOWSHIFT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Topology file: our YAML, or the output of `aws ec2 describe-subnets`
    #[arg(long, value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// How often every pair is judged: 10s or 60s
    #[arg(long, value_name = "SPAN")]
    pub step: Option<String>,
    /// URL that incidents are posted to, signed; replaces the first webhook of the settings file
    #[arg(long, value_name = "URL")]
    pub webhook: Option<Url>,
    /// File with the webhook's secret (`whsec_…`)
    #[arg(long, value_name = "FILE", requires = "webhook")]
    pub webhook_secret_file: Option<PathBuf>,
    /// Address of the metrics and probes; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
}

impl Settings {
    /// The flags as settings.
    pub fn overrides(&self) -> Vec<Override> {
        let mut all = Vec::new();
        let mut add = |flag: &str, key: &str, value: Option<String>| {
            all.extend(value.map(|value| Override::new(flag, key, value)));
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
        add("--topology", "topology.file", path(&self.topology));
        add("--step", "detector.step", self.step.clone());
        add("--webhook", "webhooks.0.url", self.webhook.as_ref().map(ToString::to_string));
        add("--webhook-secret-file", "webhooks.0.secret_file", path(&self.webhook_secret_file));
        add("--admin", "admin.listen", self.admin.map(|a| a.to_string()));
        all
    }
}

/// `flowshift demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Print the event log as JSON lines instead of a report for people
    #[arg(long)]
    pub json: bool,
    /// Seed of the simulated region's noise
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// `flowshift local`
#[derive(Debug, Args)]
pub struct Local {
    /// Folder for streams and state; made if absent, used by one process at a time
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Address that agents and producers post to; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub collect: Option<SocketAddr>,
    /// On SIGTERM end the input: judge and deliver everything, then exit. Without it SIGTERM commits and leaves
    #[arg(long)]
    pub drain: bool,
    /// Print a ready line with the addresses, then every event, as JSON lines
    #[arg(long)]
    pub json: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// `flowshift run`
#[derive(Debug, Args)]
pub struct Run {
    /// Stages this process runs
    #[arg(long, value_enum, default_value_t)]
    pub role: Role,
    /// Find incidents, print them, and post nothing
    #[arg(long)]
    pub dry_run: bool,
    /// On SIGTERM end the input: judge and deliver everything in the streams, then exit. For the last worker of a job
    /// whose input is finite: stop the others first. Without it SIGTERM commits and leaves
    #[arg(long)]
    pub drain: bool,
    /// Print every event as a JSON line
    #[arg(long)]
    pub json: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// `flowshift collect`
#[derive(Debug, Args)]
pub struct Collect {
    /// Address that agents and producers post to
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Print the ready line with the addresses as JSON
    #[arg(long)]
    pub json: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// `flowshift simulate`
#[derive(Debug, Args)]
pub struct Simulate {
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Simulated minutes
    #[arg(long, default_value_t = 34)]
    pub minutes: u32,
    /// Seed of the region's noise
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
}

/// `flowshift config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check settings, topology and secrets; say what is wrong and how to mend it
    ///
    /// Nothing is contacted: `flowshift doctor` looks at AWS and the receivers as well.
    #[command(after_long_help = "Examples:\n  flowshift config check --config flowshift.toml\n  \
        flowshift config check --config flowshift.toml --input-shards 16 --exchange-shards 4 --json")]
    Check {
        /// Settings.
        #[command(flatten)]
        settings: Settings,
        /// Shards of the flows stream, to say how many the exchange stream needs
        #[arg(long, default_value_t = 1)]
        input_shards: u32,
        /// Shards of the exchange stream
        #[arg(long, default_value_t = 1)]
        exchange_shards: u32,
        /// Print what was found as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the settings in force, and where each came from
    #[command(after_long_help = "Examples:\n  flowshift config show --config flowshift.toml\n  \
        FLOWSHIFT__JOB__LANES=8 flowshift config show --json | jq .origins")]
    Show {
        /// Settings.
        #[command(flatten)]
        settings: Settings,
        /// Print the settings and their origins as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the settings file
    #[command(after_long_help = "Example:\n  flowshift config schema > flowshift.schema.json")]
    Schema,
    /// Print a settings file with every key at its default
    #[command(after_long_help = "Example:\n  flowshift config example > flowshift.toml")]
    Example,
}

/// Which job a command looks at.
#[derive(Debug, Args, Clone, Default)]
pub struct Place {
    /// Data folder of a `local` run, running or not; without it the job on AWS is meant
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Settings file (TOML) that the job runs with
    #[arg(long, value_name = "FILE", env = "FLOWSHIFT_CONFIG")]
    pub config: Option<PathBuf>,
}

/// `flowshift state …`
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Show what is stored of each shard: parts, generations, bytes, and what our own parts hold
    ///
    /// Reads and proves every part it shows; a part that cannot be proven is shown with the reason.
    #[command(after_long_help = "Examples:\n  flowshift state inspect --data-dir ./data\n  \
        flowshift state inspect --config flowshift.toml --lane 17 --json")]
    Inspect(StateInspect),
    /// Print totals per pair over all panes and every reason counter, from committed state, as JSON
    #[command(after_long_help = "Examples:\n  flowshift state export --data-dir ./data\n  \
        flowshift state export --config flowshift.toml --out totals.json")]
    Export {
        /// Write to this file instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Which job.
        #[command(flatten)]
        place: Place,
    },
}

/// `flowshift state inspect`
#[derive(Debug, Args)]
pub struct StateInspect {
    /// Which job.
    #[command(flatten)]
    pub place: Place,
    /// Only this stream: flows, exchange, evidence, or its name
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<String>,
    /// Only this lane's state
    #[arg(long, value_name = "N", conflicts_with = "shard")]
    pub lane: Option<u16>,
    /// Only this shard's state
    #[arg(long, value_name = "SHARD")]
    pub shard: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
