//! DETECT: owns the panes of its lanes, judges their steps, and says what it found as evidence.
//!
//! A thin reducer around [`LaneDetector`]: the statistics are there, exactness is the engine's. Besides the detector a
//! lane keeps the account of records that travelled with its batches, for `state export` and the metrics. The pages of the
//! detector's seasons are pages of the engine, under the detector's names.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use flowshift_consumer::commit::PageName;
use flowshift_consumer::exchange::{LaneId, Watermarks};
use flowshift_consumer::stage::{Reducer, StageError};
use flowshift_detector::{FeedKind, LaneDetector, LaneState, LaneStateV2, MergeOutcome, PageKey, Settings};
use flowshift_proto::exchange::Batch;
use flowshift_proto::reason::Reason;
use flowshift_proto::state::{Chunk, Kind};
use serde::{Deserialize, Serialize};

use crate::convert::{evidence, pane};
use crate::metrics::Metrics;
use crate::metrics::pairs::TopPairs;
use crate::metrics::paths::Paths;
use crate::metrics::pipeline::{PipelineMetrics, Share};

/// Version of the stored state. Version 2 knew nothing of parts of the peers' flows and is taken up; version 1 had no
/// seasons, nothing of it can be judged with, so it is refused.
const STATE_VERSION: u32 = 3;
const OLDEST_READABLE: u32 = 2;

/// What became of the records whose account travelled with a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Records read.
    pub records_in: u64,
    /// Records in panes.
    pub accounted: u64,
    /// Records in no pane, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Payloads or panes of the exchange that could not be read: a fault of ours.
    pub unreadable: u64,
}

/// A lane's stored state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LaneBody {
    /// The statistics.
    pub detector: LaneState,
    /// The account.
    pub account: Account,
    /// Topology of the last batch with panes.
    pub topology_hash: Vec<u8>,
}

impl LaneBody {
    /// Reads a lane's committed state.
    ///
    /// # Errors
    /// The bytes are not a lane's state, or of a version this program does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, StageError> {
        let chunk = Chunk::decode(bytes, Kind::Lane, STATE_VERSION).map_err(|e| StageError::with("lane state", e))?;
        if chunk.version < OLDEST_READABLE {
            let (found, oldest) = (chunk.version, OLDEST_READABLE);
            return Err(StageError::new(format!("lane state has version {found}, the oldest readable is {oldest}")));
        }
        let body = if chunk.version == OLDEST_READABLE {
            postcard::from_bytes::<LaneBodyV2>(&chunk.body).map(Self::from)
        } else {
            postcard::from_bytes(&chunk.body)
        };
        body.map_err(|e| StageError::with("lane state", e))
    }
}

/// A lane's state as version 2 stored it.
#[derive(Deserialize)]
struct LaneBodyV2 {
    detector: LaneStateV2,
    account: Account,
    topology_hash: Vec<u8>,
}

impl From<LaneBodyV2> for LaneBody {
    fn from(old: LaneBodyV2) -> Self {
        Self { detector: old.detector.into(), account: old.account, topology_hash: old.topology_hash }
    }
}

/// What new lanes start with, by lane number: baselines with all their pages.
pub type Seed = BTreeMap<u16, LaneDetector>;

/// The reducer of the job.
#[derive(Debug)]
pub struct Detect {
    settings: Settings,
    metrics: PipelineMetrics,
    paths: Paths,
    top: TopPairs,
    /// Pairs of all lanes, of which other shards of this worker have others.
    pairs: Share,
    seed: Option<Arc<Seed>>,
    lanes: BTreeMap<LaneId, Lane>,
}

#[derive(Debug)]
struct Lane {
    detector: LaneDetector,
    account: Account,
    topology_hash: Vec<u8>,
}

impl Detect {
    /// For lanes judged by these settings; a lane without state starts with its `seed`, if there is one.
    pub fn new(settings: Settings, metrics: &Metrics, seed: Option<Arc<Seed>>) -> Self {
        let (metrics, paths, top) =
            (metrics.pipeline.clone(), Paths::new(metrics.paths.clone()), metrics.pairs.owner());
        let pairs = Share::of(&metrics.subnet_pairs);
        Self { settings, metrics, paths, top, pairs, seed, lanes: BTreeMap::new() }
    }

    fn lane(&mut self, lane: LaneId) -> Result<&mut Lane, StageError> {
        own(&mut self.lanes, lane)
    }

    fn detector(&self, state: LaneState) -> Result<LaneDetector, StageError> {
        LaneDetector::from_state(self.settings.clone(), state).map_err(|e| StageError::with("lane state", e))
    }
}

impl Reducer for Detect {
    fn restore(&mut self, lane: LaneId, state: Option<&Bytes>) -> Result<(), StageError> {
        let seeded = || self.seed.as_ref().and_then(|seed| seed.get(&lane.index())).cloned();
        let restored = match state {
            Some(bytes) => {
                let body = LaneBody::decode(bytes)?;
                let detector = self.detector(body.detector)?;
                Lane { detector, account: body.account, topology_hash: body.topology_hash }
            }
            None => {
                let detector = seeded().unwrap_or_else(|| LaneDetector::new(self.settings.clone()));
                Lane { detector, account: Account::default(), topology_hash: Vec::new() }
            }
        };
        self.lanes.insert(lane, restored);
        Ok(())
    }

    fn apply(&mut self, lane: LaneId, payload: &Bytes) -> Result<(), StageError> {
        let metrics = self.metrics.clone();
        let Self { lanes, paths, top, .. } = self;
        let lane = own(lanes, lane)?;
        let batch = match Batch::decode(payload) {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(error = %error, "payload of a batch cannot be read");
                lane.account.unreadable += 1;
                return Ok(());
            }
        };
        lane.topology_hash = batch.topology_hash().to_vec();
        for received in batch.panes() {
            match pane::from_exchange(&received) {
                Ok((pair, kind, start, cell)) => {
                    if lane.detector.merge(&pair, kind, start, &cell) == MergeOutcome::Accepted {
                        paths.count(&pair, &cell);
                        top.count(&pair, start, &cell);
                    } else {
                        tracing::warn!(pair = %pair, pane = start, "pane came after its step was judged");
                    }
                }
                Err(error) => {
                    tracing::error!(error = %error, "pane of a batch cannot be read");
                    lane.account.unreadable += 1;
                }
            }
        }
        if let Some(account) = batch.accounting() {
            metrics.records_in.with_label_values(&["reports"]).inc_by(account.records_in);
            metrics.records_accounted.inc_by(account.accounted);
            lane.account.records_in += account.records_in;
            lane.account.accounted += account.accounted;
            for (reason, count) in account.reasons.iter().filter(|(_, count)| *count > 0) {
                metrics.records_rejected.with_label_values(&[reason.as_str()]).inc_by(count);
                *lane.account.reasons.entry(reason.as_str().to_owned()).or_default() += count;
            }
        }
        Ok(())
    }

    fn advance(&mut self, lane: LaneId, watermarks: &Watermarks) -> Result<Vec<Bytes>, StageError> {
        let mark = watermarks.get(0);
        let index = lane.index();
        let steps_judged = self.metrics.steps_judged.clone();
        let lane = self.lane(lane)?;
        if mark == i64::MIN {
            return Ok(Vec::new());
        }
        let (steps, said) = judge(index, &mut lane.detector, &lane.topology_hash, mark);
        steps_judged.inc_by(steps);
        Ok(said)
    }

    fn pages(&mut self, lane: LaneId) -> Result<Vec<(PageName, Option<Bytes>)>, StageError> {
        let changes = self.lane(lane)?.detector.take_pages();
        let named = changes.into_iter().map(|(key, bytes)| Ok((page_name(key)?, bytes.map(Bytes::from))));
        named.collect()
    }

    fn wanted(&self, lane: LaneId, watermarks: &Watermarks) -> Vec<PageName> {
        let mark = watermarks.get(0);
        let Some(lane) = self.lanes.get(&lane).filter(|_| mark != i64::MIN) else { return Vec::new() };
        let wanted = lane.detector.wanted_pages(FeedKind::Reports, mark);
        wanted.into_iter().filter_map(|key| page_name(key).ok()).collect()
    }

    fn page(&mut self, lane: LaneId, name: &PageName, page: Option<Bytes>) -> Result<(), StageError> {
        let key = PageKey::parse(name.as_str()).ok_or_else(|| StageError::new(format!("page {name} is not ours")))?;
        if page.is_none() {
            tracing::error!(page = %name, "page of baselines is missing");
        }
        let taken = self.lane(lane)?.detector.give_page(key, page.map(|bytes| bytes.to_vec()));
        taken.map_err(|e| StageError::with("baselines", e))
    }

    fn save(&mut self, lane: LaneId) -> Result<Vec<u8>, StageError> {
        let pairs: usize = self.lanes.values().map(|lane| lane.detector.totals().count()).sum();
        self.pairs.set(i64::try_from(pairs).unwrap_or(i64::MAX));
        let lane = self.lane(lane)?;
        let body = LaneBody {
            detector: lane.detector.state().clone(),
            account: lane.account.clone(),
            topology_hash: lane.topology_hash.clone(),
        };
        let body = postcard::to_stdvec(&body).map_err(|e| StageError::with("lane state", e))?;
        Ok(Chunk { version: STATE_VERSION, kind: Kind::Lane, body }.encode())
    }
}

fn own(lanes: &mut BTreeMap<LaneId, Lane>, lane: LaneId) -> Result<&mut Lane, StageError> {
    lanes.get_mut(&lane).ok_or_else(|| StageError::new(format!("lane {lane} is not of this shard")))
}

fn page_name(key: PageKey) -> Result<PageName, StageError> {
    PageName::new(key.to_string()).map_err(|e| StageError::with("baselines", e))
}

/// Judges every step of a lane that ends at or before the mark (epoch ms): the number of steps, and what the lane says
/// about them as records of the evidence stream.
pub(in crate::stage) fn judge(
    lane: u16,
    detector: &mut LaneDetector,
    topology_hash: &[u8],
    mark_ms: i64,
) -> (u64, Vec<Bytes>) {
    let judged = detector.close(FeedKind::Reports, mark_ms);
    let steps = judged.iter().map(|e| e.steps).sum();
    (steps, judged.iter().map(|e| Bytes::from(evidence::encode(lane, topology_hash, e))).collect())
}

impl Account {
    /// Adds another lane's account.
    pub fn add(&mut self, other: &Self) {
        self.records_in += other.records_in;
        self.accounted += other.accounted;
        self.unreadable += other.unreadable;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }

    /// Records in no pane for a reason.
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons.get(reason.as_str()).copied().unwrap_or_default()
    }
}
