//! Lane states as older programs stored them.
//!
//! For: taking up what version 2 wrote: the sliding window carried two of its sums, and nothing was known of parts of the
//! peers' flows, which a pair learns anew within hours.
//! Not for: version 1, which had no seasons; nothing of it can be judged with.
//! Invariant: the order of the fields is that of version 2 and never changes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::evidence::PairRow;
use crate::feed::FeedKind;
use crate::map;
use crate::score::{ConnectTest, LatencyTest, RetransmitTest, SilenceTest};
use crate::season::{Levels, PageIndex, SlotBaseline, SlotCell};
use crate::topology::Pair;
use crate::window::WindowV2;

use super::pair::{PairState, Told};
use super::state::OpenPane;
use super::{FeedState, LaneState, Totals};

/// What a lane remembered in version 2.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct LaneStateV2 {
    pane_s: u32,
    step_s: u32,
    feeds: BTreeMap<FeedKind, FeedStateV2>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct FeedStateV2 {
    next_step_s: Option<i64>,
    open: BTreeMap<i64, OpenPane>,
    #[serde(with = "map")]
    pairs: BTreeMap<Pair, PairStateV2>,
    active: BTreeSet<Pair>,
    ended: bool,
    slot: Option<i64>,
    index: PageIndex,
    numbered: u32,
    refused_closed: u64,
    refused_misaligned: u64,
}

#[derive(Debug, Clone, Deserialize)]
struct PairStateV2 {
    totals: Totals,
    window: WindowV2,
    number: u32,
    slot: SlotCell,
    season: Option<SlotBaseline>,
    levels: Levels,
    first_s: Option<i64>,
    steps: u64,
    connect: ConnectTest,
    retransmit: RetransmitTest,
    latency: LatencyTest,
    silence: SilenceTest,
    told: [Told; 4],
    said: [f64; 2],
    last_row: Option<PairRow>,
}

impl From<LaneStateV2> for LaneState {
    fn from(old: LaneStateV2) -> Self {
        let feeds = old.feeds.into_iter().map(|(kind, feed)| (kind, feed.into())).collect();
        Self { pane_s: old.pane_s, step_s: old.step_s, feeds }
    }
}

impl From<FeedStateV2> for FeedState {
    fn from(old: FeedStateV2) -> Self {
        Self {
            next_step_s: old.next_step_s,
            open: old.open,
            pairs: old.pairs.into_iter().map(|(pair, state)| (pair, state.into())).collect(),
            active: old.active,
            ended: old.ended,
            slot: old.slot,
            index: old.index,
            numbered: old.numbered,
            refused_closed: old.refused_closed,
            refused_misaligned: old.refused_misaligned,
        }
    }
}

impl From<PairStateV2> for PairState {
    fn from(old: PairStateV2) -> Self {
        Self {
            totals: old.totals,
            window: old.window.into(),
            number: old.number,
            slot: old.slot,
            season: old.season,
            levels: old.levels,
            first_s: old.first_s,
            steps: old.steps,
            connect: old.connect,
            retransmit: old.retransmit,
            latency: old.latency,
            silence: old.silence,
            told: old.told,
            said: old.said,
            last_row: old.last_row,
            ..Self::default()
        }
    }
}
