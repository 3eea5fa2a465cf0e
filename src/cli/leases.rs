//! `flowshift leases`: who reads what, and mending it.

use clap::{Args, Subcommand};

use super::Place;

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
    /// Stop waiting for the lanes of a shard that does not come on
    ///
    /// Incidents wait for every lane, step by step. The leader goes on by itself without the lanes of an exchange shard
    /// that has committed nothing for engine.stuck_after; this is for sooner, or for further. What the lanes say later of
    /// the steps skipped is dropped and counted (metric flowshift_evidence_dropped_total); later steps count again.
    #[command(after_long_help = "Examples:\n  flowshift leases resolve skip shardId-000000000002 --yes\n  \
        flowshift leases resolve skip shardId-000000000002 --lane 17 --until 2026-11-22T10:30:00Z --yes")]
    Skip(ResolveSkip),
}

/// `flowshift leases resolve skip`
#[derive(Debug, Args)]
pub struct ResolveSkip {
    /// The shard of the exchange stream.
    #[arg(value_name = "SHARD")]
    pub shard: String,
    /// Only this lane of it; can be given several times
    #[arg(long = "lane", value_name = "N")]
    pub lanes: Vec<u16>,
    /// Skip the steps that end by this time (RFC 3339); without it those that all other exchange shards have judged
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// How to decide.
    #[command(flatten)]
    pub decide: Decide,
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
