//! The settings as people write them. The doc comment of a field is its manual, and its text in `config schema`.
//!
//! Types here hold what one key can check alone (a duration, an address, a word of a closed set); what needs two keys
//! is checked in [`super::checked`]. Invariant: every key has a default, so any subset of keys is a valid file.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

mod input;
mod start;
mod webhook;

pub use input::{FetchMode, InputFormat, InputSettings, KplOutOfRange};
pub use start::StartAt;
pub use webhook::WebhookSettings;

/// Settings of flowshift.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The job: what all its workers must agree on.
    pub job: JobSettings,
    /// How to reach AWS.
    pub aws: AwsSettings,
    /// Names of the three Kinesis streams.
    pub streams: StreamSettings,
    /// Names of the DynamoDB tables.
    pub tables: TableSettings,
    /// Reading flow records.
    pub input: InputSettings,
    /// The stream engine: batches, commits, leases.
    pub engine: EngineSettings,
    /// The statistics.
    pub detector: DetectorSettings,
    /// Which address belongs to which subnet.
    pub topology: TopologySettings,
    /// The HTTP door for agents and producers.
    pub collect: CollectSettings,
    /// Metrics, probes and queries.
    pub admin: AdminSettings,
    /// Receivers of incidents.
    pub webhooks: Vec<WebhookSettings>,
    /// Log output.
    pub log: LogSettings,
}

/// `[job]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobSettings {
    /// Name of the job: prefix of its streams and tables. 1 to 64 letters, digits, `_`, `.` or `-`.
    pub name: String,
    /// Number of lanes the subnet pairs are spread over, 1 to 256. Fixed for the life of a job: the most workers that
    /// can ever share the detection.
    pub lanes: u16,
}

impl Default for JobSettings {
    fn default() -> Self {
        Self { name: "flowshift".into(), lanes: 64 }
    }
}

/// `[aws]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AwsSettings {
    /// Region, such as `eu-west-1`. Not set: the SDK's own chain (environment, profile, instance metadata).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Profile of the shared AWS configuration files. Not set: the SDK's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Kinesis endpoint, such as `http://127.0.0.1:4567`. Not set: AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_url_kinesis: Option<String>,
    /// DynamoDB endpoint, such as `http://127.0.0.1:8000`. Not set: AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_url_dynamodb: Option<String>,
}

/// `[streams]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StreamSettings {
    /// Stream the flow records come in on. Not set: `<job.name>-flows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<String>,
    /// Stream between AGGREGATE and DETECT. Not set: `<job.name>-exchange`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// Stream between DETECT and CORRELATE, one shard. Not set: `<job.name>-evidence`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// `[tables]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TableSettings {
    /// Prefix of every table. Not set: `job.name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Lease table of the flows stream; name the table of a KCL application to go on at its checkpoints. Not set:
    /// `<prefix>-flows-leases`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows_leases: Option<String>,
    /// Lease table of the exchange stream. Not set: `<prefix>-exchange-leases`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange_leases: Option<String>,
    /// Lease table of the evidence stream. Not set: `<prefix>-evidence-leases`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence_leases: Option<String>,
    /// Table of state chunks, snapshots and the leader's lock. Not set: `<prefix>-state`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// `[engine]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// Shortest time between two batches of one input shard. Raised to (open input shards x `job.lanes`) / (200 x open
    /// exchange shards) seconds while that is longer: every batch puts a record for each lane into the exchange stream.
    pub batch_interval: Span,
    /// Time between two commits of DETECT and CORRELATE. An incident forces one.
    pub commit_interval: Span,
    /// A lease whose counter did not move for this long is taken over.
    pub failover: Span,
    /// Time between two renewals of a lease.
    pub renewal: Span,
    /// A source at its tip for this long no longer holds back event time.
    pub idle_after: Span,
    /// A source without progress for this long is set aside, with an alert. Likewise an exchange shard that commits nothing
    /// while others go on (for at least three commit intervals): incidents no longer wait for its lanes.
    pub stuck_after: Span,
    /// How long the leader's lock is valid without a beat.
    pub leader_lock: Span,
    /// Time between two beats of the leader.
    pub leader_beat: Span,
    /// Time between two passes of lease assignment.
    pub assign_interval: Span,
    /// Time between two looks for newly assigned leases.
    pub discovery: Span,
    /// Time between two reads of one shard; Kinesis allows five reads a second and shard for all readers together.
    pub poll_interval: Span,
    /// What a shard does whose committed state does not belong to its checkpoint (another program moved it), or is missing
    /// or damaged: `fail` stops the shard until someone decides; `discard` goes on without the state, counted, with an
    /// error in the log, and windows marked incomplete.
    pub state_mismatch: StateMismatchPolicy,
    /// What a shard does whose last batch, cut and perhaps sent, comes out with other bytes when a new owner computes it
    /// again: `fail` stops the shard until someone decides; `emit` sends it as it is now, counted, with an error in the log,
    /// and windows marked incomplete.
    pub crc_mismatch: CrcMismatchPolicy,
    /// How long the lease tables are watched at the start when rows of another program are in them, such as a stopped KCL
    /// application's; at least `engine.failover`. A live KCL worker is seen when its `failoverTimeMillis` is at most three
    /// times this.
    pub foreign_watch: Span,
}

/// What to do with state that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateMismatchPolicy {
    /// The shard stops with an error.
    Fail,
    /// The shard goes on without the state.
    Discard,
}

/// What to do with a batch that does not come out as it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CrcMismatchPolicy {
    /// The shard stops with an error.
    Fail,
    /// The batch is sent as it is now.
    Emit,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            batch_interval: Span::secs(5),
            commit_interval: Span::secs(10),
            failover: Span::secs(10),
            renewal: Span::secs(3),
            idle_after: Span::secs(30),
            stuck_after: Span::secs(600),
            leader_lock: Span::secs(6),
            leader_beat: Span::secs(2),
            assign_interval: Span::secs(2),
            discovery: Span::millis(500),
            poll_interval: Span::millis(500),
            state_mismatch: StateMismatchPolicy::Fail,
            crc_mismatch: CrcMismatchPolicy::Fail,
            foreign_watch: Span::secs(30),
        }
    }
}

/// `[detector]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DetectorSettings {
    /// How often every pair is judged: `60s` or `10s`.
    pub step: Span,
    /// Length of a pane, the smallest unit of time kept, in whole seconds; divides `step` and `window`.
    pub pane: Span,
    /// Length of the sliding window that quantiles and effect sizes are read from.
    pub window: Span,
    /// False alarms allowed in 1,000 pairs in one day, above 0 and at most 1000. The one knob of sensitivity.
    pub false_alarms_per_1000_pair_days: f64,
}

impl Default for DetectorSettings {
    fn default() -> Self {
        Self {
            step: Span::secs(60),
            pane: Span::secs(10),
            window: Span::secs(60),
            false_alarms_per_1000_pair_days: 1.0,
        }
    }
}

/// `[topology]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TopologySettings {
    /// Topology file: our YAML or the output of `aws ec2 describe-subnets`. Relative to the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// `[collect]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CollectSettings {
    /// Address to listen on; port 0 takes a free one. It has no authentication of its own: loopback unless you set it.
    pub listen: SocketAddr,
    /// Largest accepted request body in bytes, as sent, 1 KiB to 64 MiB.
    pub max_body_bytes: u64,
    /// Largest body in bytes after decompression, at least `max_body_bytes`, at most 256 MiB.
    pub max_inflated_bytes: u64,
}

impl Default for CollectSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 4318)), max_body_bytes: 4 << 20, max_inflated_bytes: 32 << 20 }
    }
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Address of `/metrics`, the probes, the queries and an operator's commands; port 0 takes a free one.
    pub listen: SocketAddr,
    /// File that holds the bearer token (at least 16 characters) that commands must carry. At most one of `token_file` and
    /// `token_env`; with neither, commands are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Environment variable that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// Subnet pairs that have metrics of their own (`flowshift_pair_…`): those with the most flows, 0 to 200 in each
    /// process; 0 is none. Each costs seven series. Subnets are labels of no other metric.
    pub top_pairs: u16,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9464)), token_file: None, token_env: None, top_pairs: 0 }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// The least severe log line that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Failures that need a person.
    Error,
    /// And what is odd but handled.
    Warn,
    /// And what the program does.
    #[default]
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

impl LogLevel {
    /// The word in the settings, which is also the filter directive of `tracing`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// `auto` (text on a terminal, JSON elsewhere), `json` or `text`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: LogLevel,
}
