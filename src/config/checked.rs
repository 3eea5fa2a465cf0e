//! The checked configuration the program runs on.
//!
//! Sections whose fields are already exact types (durations, addresses, closed sets) are kept as they are written; the
//! others get types of their own. The checks are in [`super::checks`]. Invariant: a [`Config`] exists only if all of
//! them passed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::checks::Checks;
use super::layer::Origins;
use super::settings::{AdminSettings, AwsSettings, CollectSettings, DetectorSettings, EngineSettings};
use super::{InputSettings, LogSettings, Problems, Settings, Span, Webhook};

/// Name of a job: 1 to 64 letters, digits, `_`, `.` or `-`, as stream and table names allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobName(String);

impl JobName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of lanes of a job, 1 to 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes(u16);

impl Lanes {
    /// The number, 1 to 256.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// Names of the three streams, all different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamNames {
    /// Flow records come in.
    pub flows: String,
    /// AGGREGATE to DETECT.
    pub exchange: String,
    /// DETECT to CORRELATE.
    pub evidence: String,
}

/// Names of the tables, all different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNames {
    /// Leases of the flows stream.
    pub flows_leases: String,
    /// Leases of the exchange stream.
    pub exchange_leases: String,
    /// Leases of the evidence stream.
    pub evidence_leases: String,
    /// State chunks, snapshots, the leader's lock.
    pub state: String,
}

/// The checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the job.
    pub job: JobName,
    /// Number of lanes, fixed for the life of the job.
    pub lanes: Lanes,
    /// How to reach AWS.
    pub aws: AwsSettings,
    /// The streams.
    pub streams: StreamNames,
    /// The tables.
    pub tables: TableNames,
    /// Reading flow records.
    pub input: InputSettings,
    /// Batches, commits, leases.
    pub engine: EngineSettings,
    /// The statistics.
    pub detector: DetectorSettings,
    /// The topology file.
    pub topology: Option<PathBuf>,
    /// The collector.
    pub collect: CollectSettings,
    /// Metrics, probes, queries.
    pub admin: AdminSettings,
    /// Receivers of incidents, names unique.
    pub webhooks: Vec<Webhook>,
    /// Log output.
    pub log: LogSettings,
}

impl Settings {
    /// Defaults of `local` and `demo`: everything in one process, so batches, commits and idleness can be quick.
    pub fn local_defaults() -> Self {
        let mut settings = Self::default();
        settings.job.lanes = 8;
        settings.engine.batch_interval = Span::secs(1);
        settings.engine.idle_after = Span::secs(5);
        settings.engine.poll_interval = Span::millis(200);
        settings
    }
}

impl Config {
    /// The checked form of [`Settings::local_defaults`].
    ///
    /// # Errors
    /// Never with the defaults as they are; the checks are the same for all.
    pub fn local_defaults() -> Result<Self, Problems> {
        Self::check(&Settings::local_defaults(), &Origins::default())
    }

    /// What changes results, as sorted key and value: the part of the configuration that a snapshot holds.
    pub fn result_settings(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("detector.false_alarms_per_1000_pair_days", self.detector.false_alarms_per_1000_pair_days.to_string()),
            ("detector.pane", self.detector.pane.to_string()),
            ("detector.step", self.detector.step.to_string()),
            ("detector.window", self.detector.window.to_string()),
            ("input.agent_interval", self.input.agent_interval.to_string()),
            ("input.format", self.input.format.as_str().to_owned()),
            ("input.future_tolerance", self.input.future_tolerance.to_string()),
            ("input.lateness_flow_logs", self.input.lateness_flow_logs.to_string()),
            ("input.lateness_reports", self.input.lateness_reports.to_string()),
            ("job.lanes", self.lanes.get().to_string()),
        ])
    }

    /// Runs every cross check.
    pub(super) fn check(settings: &Settings, origins: &Origins) -> Result<Self, Problems> {
        let mut checks = Checks { origins, problems: Vec::new() };
        checks.job(settings);
        checks.engine(&settings.engine);
        checks.detector(&settings.detector);
        checks.input(&settings.input);
        checks.collect(&settings.collect);
        checks.admin(&settings.admin);
        checks.endpoints(&settings.aws);
        let streams = stream_names(settings);
        checks.names(
            "streams",
            [&streams.flows, &streams.exchange, &streams.evidence],
            ["flows", "exchange", "evidence"],
        );
        let tables = table_names(settings);
        checks.names(
            "tables",
            [&tables.flows_leases, &tables.exchange_leases, &tables.evidence_leases, &tables.state],
            ["flows_leases", "exchange_leases", "evidence_leases", "state"],
        );
        let webhooks = checks.webhooks(settings);
        if !checks.problems.is_empty() {
            return Err(Problems(checks.problems));
        }
        Ok(Self {
            job: JobName(settings.job.name.clone()),
            lanes: Lanes(settings.job.lanes),
            aws: settings.aws.clone(),
            streams,
            tables,
            input: settings.input.clone(),
            engine: settings.engine.clone(),
            detector: settings.detector.clone(),
            topology: settings.topology.file.clone(),
            collect: settings.collect.clone(),
            admin: settings.admin.clone(),
            webhooks,
            log: settings.log.clone(),
        })
    }
}

/// Letters, digits, `_`, `.`, `-`; 1 to 64.
pub(super) fn name_is_valid(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

fn stream_names(settings: &Settings) -> StreamNames {
    let job = &settings.job.name;
    let named = |name: &Option<String>, suffix: &str| name.clone().unwrap_or_else(|| format!("{job}-{suffix}"));
    StreamNames {
        flows: named(&settings.streams.flows, "flows"),
        exchange: named(&settings.streams.exchange, "exchange"),
        evidence: named(&settings.streams.evidence, "evidence"),
    }
}

fn table_names(settings: &Settings) -> TableNames {
    let prefix = settings.tables.prefix.as_ref().unwrap_or(&settings.job.name);
    let named = |name: &Option<String>, suffix: &str| name.clone().unwrap_or_else(|| format!("{prefix}-{suffix}"));
    TableNames {
        flows_leases: named(&settings.tables.flows_leases, "flows-leases"),
        exchange_leases: named(&settings.tables.exchange_leases, "exchange-leases"),
        evidence_leases: named(&settings.tables.evidence_leases, "evidence-leases"),
        state: named(&settings.tables.state, "state"),
    }
}
