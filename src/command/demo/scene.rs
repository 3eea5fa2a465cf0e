//! What is played: the region that ends now, its configuration, and its baselines.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

use flowshift_consumer::commit::Snapshot;

use crate::command::Failure;
use crate::config::{Config, Override, Settings, Sources, load};
use crate::simulate::Region;
use crate::stage::rules::{self, Rules};
use crate::stage::seed::{PastReport, Seeded, seed};
use crate::topology::Topology;

/// History the baselines are made from, seconds.
pub(super) const HISTORY_S: i64 = 3 * 3_600;
/// Simulated history is judged up to here before the start: no report of the demo reaches behind it, as intervals are
/// at most 35 s long.
const OPEN_S: i64 = 60;
/// Reports made ahead of the one being mapped.
const AHEAD: usize = 64;

/// One play.
pub(super) struct Scene {
    pub(super) region: Arc<Region>,
    pub(super) topology: Topology,
    pub(super) config: Arc<Config>,
    pub(super) snapshot: Snapshot,
}

impl Scene {
    /// The region of a seed, ending at the last full minute. Settings of the environment are for real jobs: a demo shows
    /// the same everywhere.
    pub(super) fn new(seed: u64) -> Result<Self, Failure> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Failure::start)?.as_secs();
        // The detector learns in blocks of 5 minutes of event time: ending at such a border, a seed tells the same
        // story at whatever minute it is started.
        let end_s = i64::try_from(now_s / 300 * 300).map_err(Failure::start)?;
        let region = Region::demo(seed).starting_at(end_s - Region::DEMO_SECONDS);
        let topology = Topology::parse(&region.topology_yaml()).map_err(Failure::start)?;
        let flags = [("collect.listen", "127.0.0.1:0"), ("job.name", "demo"), ("log.level", "warn")];
        let flags = flags.map(|(key, value)| Override::new("demo", key, value)).into();
        let sources = Sources { flags, ..Sources::default() };
        let config = Arc::new(load(&Settings::local_defaults(), &sources)?.config);
        let snapshot = rules::snapshot_of(&config, &topology).map_err(Failure::start)?;
        Ok(Self { region: Arc::new(region), topology, config, snapshot })
    }

    /// Baselines from the hours before; takes seconds of computing, so call it where blocking is allowed.
    pub(super) fn baselines(&self) -> anyhow::Result<Seeded> {
        let rules = Rules::read(&self.snapshot)?;
        let (lanes, settings) = (rules::lanes(&self.config)?, rules::detector_settings(&self.config)?);
        let until_s = self.region.start_s() - OPEN_S;
        let (sender, receiver) = mpsc::sync_channel::<PastReport>(AHEAD);
        let seeded = std::thread::scope(|scope| {
            // Making history costs as much as learning from it: a thread each.
            scope.spawn(move || {
                for report in self.region.reports(-HISTORY_S, 0) {
                    let start_ms = report.time_ms - report.interval_ms;
                    if sender.send(PastReport { start_ms, report: report.into_agent_report() }).is_err() {
                        return;
                    }
                }
            });
            seed(&rules, lanes, &settings, receiver.into_iter(), until_s)
        });
        Ok(seeded)
    }
}
