//! The lane's surface: merge panes, close steps, read windows and totals.
//!
//! For: the one type a lane's owner talks to.
//! Not for: the statistics of a single pair.
//! Invariant: see [`super`].

use std::collections::btree_map::Entry;

use crate::evidence::StepEvidence;
use crate::feed::FeedKind;
use crate::pane::PaneCell;
use crate::season::{PageError, PageKey, Shelf, SlotPage};
use crate::settings::Settings;
use crate::topology::Pair;
use crate::window::WindowView;

use super::{LaneState, MergeOutcome, StateError, Totals};

/// All pairs of one lane, and the pages of their seasons that are at hand.
///
/// A lane that is stored commits [`LaneDetector::take_pages`] together with [`LaneDetector::state`], and before it closes
/// steps delivers what [`LaneDetector::wanted_pages`] asks for. One that is not stored keeps its pages in memory.
#[derive(Debug, Clone)]
pub struct LaneDetector {
    settings: Settings,
    state: LaneState,
    shelf: Shelf,
}

impl LaneDetector {
    /// A lane that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        let state = LaneState { pane_s: settings.pane_s(), step_s: settings.step_s(), ..LaneState::default() };
        Self { settings, state, shelf: Shelf::default() }
    }

    /// Takes a stored lane up again.
    ///
    /// # Errors
    /// [`StateError::Lengths`] when the state was made with other pane or step lengths.
    pub fn from_state(settings: Settings, state: LaneState) -> Result<Self, StateError> {
        if (state.pane_s, state.step_s) != (settings.pane_s(), settings.step_s()) {
            return Err(StateError::Lengths {
                state_pane_s: state.pane_s,
                state_step_s: state.step_s,
                pane_s: settings.pane_s(),
                step_s: settings.step_s(),
            });
        }
        Ok(Self { settings, state, shelf: Shelf::default() })
    }

    /// What must be stored.
    pub fn state(&self) -> &LaneState {
        &self.state
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Adds what one batch says about one pair in the pane that starts at `pane_start_s` (epoch s, a multiple of the
    /// pane length).
    pub fn merge(&mut self, pair: &Pair, kind: FeedKind, pane_start_s: i64, cell: &PaneCell) -> MergeOutcome {
        let feed = self.state.feeds.entry(kind).or_default();
        if pane_start_s.rem_euclid(i64::from(self.settings.pane_s())) != 0 {
            feed.refused_misaligned = feed.refused_misaligned.saturating_add(1);
            return MergeOutcome::Misaligned;
        }
        if feed.ended || feed.next_step_s.is_some_and(|next| pane_start_s < next) {
            feed.refused_closed = feed.refused_closed.saturating_add(1);
            return MergeOutcome::Closed;
        }
        // The pair is cloned only when it is new: four counted references take as long as the search.
        match feed.pairs.get_mut(pair) {
            Some(state) => state.totals.add(pane_start_s, cell),
            None => feed.pairs.entry(pair.clone()).or_default().totals.add(pane_start_s, cell),
        }
        match feed.open.entry(pane_start_s).or_default().cells.entry(pair.clone()) {
            Entry::Occupied(mut sum) => sum.get_mut().merge(cell),
            Entry::Vacant(first) => _ = first.insert(cell.clone()),
        }
        MergeOutcome::Accepted
    }

    /// Judges, in order, every step of `kind` that ends at or before the watermark (epoch ms) and says what was found;
    /// runs of steps in which nothing happened come as one. A watermark of `i64::MAX` is the end of the input: all
    /// remaining panes are judged, then the last evidence says so and later panes are refused.
    pub fn close(&mut self, kind: FeedKind, watermark_ms: i64) -> Vec<StepEvidence> {
        self.state.feeds.entry(kind).or_default().close(kind, watermark_ms, &self.settings, &mut self.shelf)
    }

    /// The pages that [`LaneDetector::close`] with this watermark needs and that are not at hand. Without them it judges
    /// with the baselines of a younger pair.
    pub fn wanted_pages(&self, kind: FeedKind, watermark_ms: i64) -> Vec<PageKey> {
        let Some(feed) = self.state.feeds.get(&kind) else { return Vec::new() };
        feed.wanted(kind, watermark_ms, self.settings.step_s(), &self.shelf)
    }

    /// Delivers a page that was wanted, as it was taken; `None`: it is lost, and is not wanted again.
    ///
    /// # Errors
    /// [`PageError`] when the bytes are no page; nothing was taken.
    pub fn give_page(&mut self, key: PageKey, bytes: Option<Vec<u8>>) -> Result<(), PageError> {
        match bytes {
            Some(bytes) => {
                SlotPage::decode(key, &bytes)?;
                self.shelf.load(key, bytes);
            }
            None => {
                if let Some(feed) = self.state.feeds.get_mut(&key.kind) {
                    feed.index.remove(key.slot);
                }
            }
        }
        Ok(())
    }

    /// The pages that are new since the last call, or no longer needed by anybody (`None`), to be committed together with
    /// the state. What the last call gave is taken to be committed now and may leave the memory.
    pub fn take_pages(&mut self) -> Vec<(PageKey, Option<Vec<u8>>)> {
        self.shelf.hand_out()
    }

    /// Sums over all panes ever accepted, by feed kind and pair.
    pub fn totals(&self) -> impl Iterator<Item = (FeedKind, &Pair, &Totals)> + '_ {
        self.state.totals()
    }

    /// The sliding window of a pair as of the last judged step; `None` when nothing is in it.
    pub fn window(&self, kind: FeedKind, pair: &Pair) -> Option<WindowView> {
        let feed = self.state.feeds.get(&kind)?;
        let oldest_s = feed.next_step_s?.saturating_sub(i64::from(self.settings.window_s()));
        feed.pairs.get(pair)?.window.view(oldest_s)
    }
}
