//! The command line: what a person can ask for, in their words.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use reqwest::Url;

use crate::app::Role;
use crate::config::Override;

/// Did the network between these two subnets just get worse, how sure are we, and whose fault is it?
#[derive(Debug, Parser)]
#[command(name = "flowshift", version, max_term_width = 120, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it: a simulated region with planted faults, judged by the real pipeline, in under two minutes
    Demo(Demo),
    /// Run every stage in this process, with Kinesis and DynamoDB inside it and state on local disk
    Local(Local),
    /// Run the stages against AWS
    Run(Run),
    /// Take agent reports and flow records over HTTP and put them into Kinesis
    Collect(Collect),
    /// Write a simulated region's traffic to files
    Simulate(Simulate),
    /// Check, show or describe the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Try out webhooks
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// See and mend who reads which shard, and how far it is
    #[command(subcommand)]
    Leases(LeasesCommand),
    /// Look into committed state
    #[command(subcommand)]
    State(StateCommand),
    /// Print shell completions
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

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
    #[arg(long, value_name = "URL", requires = "webhook_secret_file")]
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
    },
    /// Print the settings in force, and where each came from
    Show {
        /// Settings.
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the JSON Schema of the settings file
    Schema,
    /// Print a settings file with every key at its default
    Example,
}

/// `flowshift webhook …`
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Post a signed test event to every configured webhook
    Test {
        /// Settings.
        #[command(flatten)]
        settings: Settings,
        /// Print the outcomes as JSON
        #[arg(long)]
        json: bool,
    },
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

/// `flowshift leases …`
#[derive(Debug, Subcommand)]
pub enum LeasesCommand {
    /// Show every shard: its owner and whether it lives, how far it is, what is committed
    ///
    /// Whether an owner lives is found by watching its beat and its leases' counters for a few seconds, as the leader
    /// does; no clocks are compared.
    #[command(after_long_help = LIST_HELP)]
    List(LeasesList),
    /// Take leases from their owners, so that the leader gives them to others
    ///
    /// A lease of a live owner is refused without --force: its worker would lose it in the middle of its work (nothing
    /// is lost or counted twice by that). Nothing is written without --yes.
    #[command(after_long_help = RELEASE_HELP)]
    Release(LeasesRelease),
    /// Let a shard go on that stopped at a proven loss
    ///
    /// Says what is lost before it does anything; nothing is written without --yes. A decision is used once and stands
    /// in the log.
    #[command(subcommand)]
    Resolve(ResolveCommand),
}

/// `flowshift leases resolve …`
#[derive(Debug, Subcommand)]
pub enum ResolveCommand {
    /// Go on without missing batches: the windows of the lanes they were for are marked incomplete
    ///
    /// For an exchange shard whose log says that batches are lost (metric flowshift_batch_gaps_total). Accepts what is
    /// missing among the records that are in the stream now; a later gap stops the shard again.
    #[command(after_long_help = "Example:\n  flowshift leases resolve gaps shardId-000000000002 --yes")]
    Gaps {
        /// The shard of the exchange stream.
        #[arg(value_name = "SHARD")]
        shard: String,
        /// How to decide.
        #[command(flatten)]
        decide: Decide,
        /// Records behind the checkpoint that are looked through for gaps
        #[arg(long, value_name = "RECORDS", default_value_t = 200_000)]
        limit: u64,
    },
    /// Go on from the checkpoint without the committed state, which cannot be used
    ///
    /// For a shard whose log says that its state is damaged, missing or not of its checkpoint. What the state held is
    /// lost: windows and baselines of its lanes, or what a source remembers of repeats.
    #[command(after_long_help = "Example:\n  flowshift leases resolve state --stream flows shardId-000000000000 --yes")]
    State {
        /// The shard.
        #[arg(value_name = "SHARD")]
        shard: String,
        /// Its stream: flows, exchange, evidence, or its name
        #[arg(long, value_name = "STREAM")]
        stream: String,
        /// How to decide.
        #[command(flatten)]
        decide: Decide,
        /// Also discard state that can be read and fits its checkpoint
        #[arg(long)]
        force: bool,
    },
}

/// How a decision is made.
#[derive(Debug, Args, Clone)]
pub struct Decide {
    /// Which job.
    #[command(flatten)]
    pub place: Place,
    /// Do it; without this only say what would be lost
    #[arg(long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const LIST_HELP: &str = "Examples:
  flowshift leases list --config flowshift.toml
  flowshift leases list --data-dir ./data --stream exchange --json";

const RELEASE_HELP: &str = "Examples:
  flowshift leases release --worker flowshift-7c9f-1-0a1b2c3d --yes
  flowshift leases release --stream flows shardId-000000000003 --force --yes";

/// `flowshift leases list`
#[derive(Debug, Args)]
pub struct LeasesList {
    /// Which job.
    #[command(flatten)]
    pub place: Place,
    /// Only this stream: flows, exchange, evidence, or its name
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<String>,
    /// Print what is stored at once, without watching who lives
    #[arg(long)]
    pub no_wait: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `flowshift leases release`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["shards", "worker", "all"])))]
pub struct LeasesRelease {
    /// Which job.
    #[command(flatten)]
    pub place: Place,
    /// Only this stream: flows, exchange, evidence, or its name
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<String>,
    /// Shards to release
    #[arg(value_name = "SHARD")]
    pub shards: Vec<String>,
    /// Every lease of this worker
    #[arg(long, value_name = "ID")]
    pub worker: Option<String>,
    /// Every lease of the job
    #[arg(long)]
    pub all: bool,
    /// Also take leases from owners that live
    #[arg(long)]
    pub force: bool,
    /// Do it; without this only say what would be done
    #[arg(long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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
    Export {
        /// Write to this file instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Data folder of a `local` run, running or not; without it the state is read from AWS
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Settings.
        #[command(flatten)]
        settings: Settings,
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
