//! `flowshift incidents`: what is wrong now, and a word about it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

const LIST_HELP: &str = "\
Examples:
  flowshift incidents list
  flowshift incidents list --admin http://10.0.3.17:9464 --json";

const MUTE_HELP: &str = "\
An incident is muted while mutes cover all of its pairs. It is recorded as ever; its events carry `muted`, and webhooks
leave them out unless they have `muted = true`. If it is open when its mute ends, it is told of then.
A pair, subnet or zone that is not in the job's topology is refused, with the names there are, unless --force is given.

Examples:
  flowshift incidents mute --az use1-az1 --for 2h --note 'maintenance of az1'
  flowshift incidents mute --pair 'subnet-a>subnet-b' --signal latency --until 2026-11-22T18:00:00Z";

/// `flowshift incidents …`
#[derive(Debug, Subcommand)]
pub enum IncidentsCommand {
    /// Show the open incidents, the mutes, and what was dismissed
    #[command(after_long_help = LIST_HELP)]
    List(Door),
    /// Say that somebody takes care of an open incident
    #[command(
        after_long_help = "Example:\n  flowshift incidents ack inc-3f9a0c5d2b7e4811 --by ada --note 'rolling back'"
    )]
    Ack {
        /// Id of the incident.
        #[arg(value_name = "INCIDENT")]
        incident: String,
        /// Who and why.
        #[command(flatten)]
        speaker: Speaker,
        /// How it is said.
        #[command(flatten)]
        said: Said,
    },
    /// Keep incidents of a pair, subnet, zone or signal from the webhooks for a while
    #[command(after_long_help = MUTE_HELP)]
    Mute {
        /// About what.
        #[command(flatten)]
        scope: MuteScope,
        /// Take it also if the topology has no such pair, subnet or zone
        #[arg(long)]
        force: bool,
        /// Until when.
        #[command(flatten)]
        end: End,
        /// Who and why.
        #[command(flatten)]
        speaker: Speaker,
        /// How it is said.
        #[command(flatten)]
        said: Said,
    },
    /// End a mute, or take a dismissal back
    #[command(after_long_help = "Example:\n  flowshift incidents unmute mute-5d0cf3a1c2e94b76 --by ada --wait")]
    Unmute {
        /// Id of the mute, or of the incident that was dismissed.
        #[arg(value_name = "MUTE")]
        id: String,
        /// Who and why.
        #[command(flatten)]
        speaker: Speaker,
        /// How it is said.
        #[command(flatten)]
        said: Said,
    },
    /// Say that an open incident is none: it is resolved, and not raised again on its pairs for a while
    ///
    /// The same signal on the same pairs makes no incident for the time given (a day, if none is), unless it gets more
    /// severe than it was.
    #[command(after_long_help = "Example:\n  flowshift incidents not-an-issue inc-3f9a0c5d2b7e4811 --for 24h --by ada")]
    NotAnIssue {
        /// Id of the incident.
        #[arg(value_name = "INCIDENT")]
        incident: String,
        /// Until when.
        #[command(flatten)]
        end: End,
        /// Who and why.
        #[command(flatten)]
        speaker: Speaker,
        /// How it is said.
        #[command(flatten)]
        said: Said,
    },
}

/// Which job is spoken with.
#[derive(Debug, Args, Clone)]
pub struct Door {
    /// Admin address of any `run` or `local` of the job
    #[arg(long, value_name = "URL", env = "FLOWSHIFT_ADMIN_URL", default_value = "http://127.0.0.1:9464")]
    pub admin: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How a word is said.
#[derive(Debug, Args, Clone)]
pub struct Said {
    /// Which job.
    #[command(flatten)]
    pub door: Door,
    /// File with the token of `admin.token_file`; without it the environment variable `FLOWSHIFT_ADMIN_TOKEN`
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Wait until the job has heard it and says what became of it
    #[arg(long)]
    pub wait: bool,
}

/// Who speaks.
#[derive(Debug, Args, Clone)]
pub struct Speaker {
    /// Who says it; stands in the events
    #[arg(long, value_name = "NAME", env = "USER")]
    pub by: String,
    /// Why; stands in the events
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}

/// What a mute is about.
#[derive(Debug, Args, Clone)]
#[group(required = true, multiple = true)]
pub struct MuteScope {
    /// A directed pair, `SOURCE>DESTINATION`
    #[arg(long, value_name = "PAIR", conflicts_with_all = ["subnet", "az"])]
    pub pair: Option<String>,
    /// A subnet or edge, at either end
    #[arg(long, value_name = "ID", conflicts_with = "az")]
    pub subnet: Option<String>,
    /// An availability zone, of either end
    #[arg(long, value_name = "AZ")]
    pub az: Option<String>,
    /// Only this signal
    #[arg(long, value_enum)]
    pub signal: Option<SignalName>,
}

/// A signal by its name in events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SignalName {
    /// Retransmitted segments.
    Retransmit,
    /// Round-trip time.
    Latency,
    /// Failed connects.
    Connect,
    /// Missing traffic.
    Silence,
}

impl SignalName {
    /// The name in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retransmit => "retransmit",
            Self::Latency => "latency",
            Self::Connect => "connect",
            Self::Silence => "silence",
        }
    }
}

/// When a mute or dismissal ends: 1 minute to 30 days from now.
#[derive(Debug, Args, Clone)]
#[group(required = false, multiple = false)]
pub struct End {
    /// For how long, such as 2h
    #[arg(long = "for", value_name = "SPAN")]
    pub lasts: Option<String>,
    /// Until when, such as 2026-11-22T18:00:00Z
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}
