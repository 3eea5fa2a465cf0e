//! What the results depend on besides the records: the topology and the result-changing settings, as one snapshot.
//!
//! A snapshot is stored before a cut names it, so [`Rules`] must be readable from its bytes alone. Invariant: equal
//! files and settings give equal bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use flowshift_consumer::commit::Snapshot as StoredSnapshot;
use flowshift_consumer::exchange::{Lanes, LanesError};
use flowshift_detector::{FalseAlarmBudget, FeedKind, Settings, SettingsError};
use flowshift_proto::decode::InputFormat;
use flowshift_proto::snapshot::{self, ContentHash, Edge, Setting, Snapshot, SnapshotError, Subnet};

use crate::config::Config;
use crate::topology::{self, Topology, TopologyError};

/// The rules cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The snapshot's encoding.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Its topology.
    #[error("topology: {0}")]
    Topology(#[from] TopologyError),
    /// The number of lanes.
    #[error(transparent)]
    Lanes(#[from] LanesError),
    /// The detector's settings.
    #[error(transparent)]
    Detector(#[from] SettingsError),
    /// An address range of the topology.
    #[error("range {0:?} of the topology is no CIDR")]
    Range(String),
    /// A setting is missing or malformed.
    #[error("setting {key} is {value:?}")]
    Setting {
        /// Its key.
        key: &'static str,
        /// What stands there.
        value: String,
    },
}

/// The rules a batch is mapped by.
#[derive(Debug)]
pub struct Rules {
    /// Address to subnet.
    pub topology: Topology,
    /// 16 bytes that name the topology in what the stages tell each other.
    pub topology_hash: [u8; 16],
    /// What a record of the input stream holds.
    pub format: InputFormat,
    /// Pane length.
    pub pane_s: u32,
    /// Interval of a report that has no predecessor.
    pub agent_interval_ms: i64,
    /// Allowed lateness of agent reports and flow batches.
    pub lateness_ms: i64,
    /// How far event time may be ahead of arrival.
    pub future_ms: i64,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The snapshot of a configuration and its topology.
///
/// # Errors
/// The topology names something twice.
pub fn snapshot_of(config: &Config, topology: &Topology) -> Result<StoredSnapshot, RulesError> {
    let subnets = topology.subnets().iter().map(|s| Subnet {
        id: s.id.clone(),
        cidrs: s.cidrs.iter().map(ToString::to_string).collect(),
        az: s.az.clone(),
        vpc: s.vpc.clone(),
        account: s.account.clone(),
        name: s.name.clone(),
    });
    let edges = topology
        .edges()
        .iter()
        .map(|e| Edge { name: e.name.clone(), cidrs: e.cidrs.iter().map(ToString::to_string).collect() });
    let mut settings: BTreeMap<String, String> =
        config.result_settings().into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    settings.insert("input.agent_interval_ms".into(), millis(config.input.agent_interval.get()).to_string());
    settings.insert("input.lateness_reports_ms".into(), millis(config.input.lateness_reports.get()).to_string());
    settings.insert("input.future_tolerance_ms".into(), millis(config.input.future_tolerance.get()).to_string());
    settings.insert("detector.pane_s".into(), config.detector.pane.get().as_secs().to_string());
    let snapshot = Snapshot {
        version: snapshot::VERSION,
        subnets: subnets.collect(),
        edges: edges.collect(),
        settings: settings.into_iter().map(|(key, value)| Setting { key, value }).collect(),
    };
    Ok(StoredSnapshot::new(snapshot::encode(snapshot)?.0))
}

impl Rules {
    /// Reads rules from a stored snapshot.
    ///
    /// # Errors
    /// The snapshot is damaged or of another version.
    pub fn read(stored: &StoredSnapshot) -> Result<Self, RulesError> {
        let bytes = stored.bytes();
        let snapshot = snapshot::decode(bytes, ContentHash::of(bytes))?;
        let settings: BTreeMap<&str, &str> =
            snapshot.settings.iter().map(|s| (s.key.as_str(), s.value.as_str())).collect();
        let text = |key: &'static str| settings.get(key).copied().unwrap_or_default();
        let number = |key: &'static str| {
            text(key).parse::<i64>().map_err(|_| RulesError::Setting { key, value: text(key).to_owned() })
        };
        let format = match text("input.format") {
            "auto" => InputFormat::Auto,
            "agent" => InputFormat::Agent,
            "flow-batch" => InputFormat::FlowBatch,
            "json-lines" => InputFormat::JsonLines,
            other => return Err(RulesError::Setting { key: "input.format", value: other.to_owned() }),
        };
        let pane_s = number("detector.pane_s")?;
        let topology = topology_from(&snapshot)?;
        Ok(Self {
            topology_hash: topology.content_hash().to_be_bytes(),
            topology,
            format,
            pane_s: u32::try_from(pane_s)
                .map_err(|_| RulesError::Setting { key: "detector.pane_s", value: pane_s.to_string() })?,
            agent_interval_ms: number("input.agent_interval_ms")?,
            lateness_ms: number("input.lateness_reports_ms")?,
            future_ms: number("input.future_tolerance_ms")?,
        })
    }
}

fn topology_from(snapshot: &Snapshot) -> Result<Topology, RulesError> {
    let ranges = |texts: &[String]| {
        texts.iter().map(|t| t.parse().map_err(|_| RulesError::Range(t.clone()))).collect::<Result<Vec<_>, _>>()
    };
    let mut subnets = Vec::new();
    for s in &snapshot.subnets {
        subnets.push(topology::Subnet {
            id: s.id.clone(),
            cidrs: ranges(&s.cidrs)?,
            az: s.az.clone(),
            vpc: s.vpc.clone(),
            account: s.account.clone(),
            name: s.name.clone(),
        });
    }
    let mut edges = Vec::new();
    for e in &snapshot.edges {
        edges.push(topology::Edge { name: e.name.clone(), cidrs: ranges(&e.cidrs)? });
    }
    Ok(Topology::new(subnets, edges)?)
}

/// The detector's settings of a configuration. Only the reports feed is judged so far.
///
/// # Errors
/// A length does not fit another.
pub fn detector_settings(config: &Config) -> Result<Settings, RulesError> {
    let seconds = |span: crate::config::Span| u32::try_from(span.get().as_secs()).unwrap_or(u32::MAX);
    let detector = &config.detector;
    let budget = FalseAlarmBudget::new(detector.false_alarms_per_1000_pair_days)?;
    let feeds = BTreeMap::from([(FeedKind::Reports, seconds(config.input.lateness_reports))]);
    Ok(Settings::new(seconds(detector.pane), seconds(detector.window), seconds(detector.step), budget, feeds)?)
}

/// The job's lanes.
///
/// # Errors
/// Never for a checked configuration.
pub fn lanes(config: &Config) -> Result<Lanes, RulesError> {
    Ok(Lanes::new(u32::from(config.lanes.get()))?)
}
