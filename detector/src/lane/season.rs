//! Slots of one feed kind of a lane: cutting pages and taking up baselines.
//!
//! For: the moment at which a step begins a new quarter of an hour.
//! Not for: what a page holds and how cells are pooled; see [`crate::season`].
//! Invariant: a slot's page is cut once, when the first step of a later slot with traffic is judged; the baselines in use
//! are those of the current slot. Both depend only on the state and the pages, so a restored lane goes on equally.

use std::collections::BTreeSet;

use crate::feed::FeedKind;
use crate::season::{PageKey, Past, SLOTS, Shelf, SlotBaseline, SlotPage, slot_of};

use super::FeedState;

impl FeedState {
    /// Called before the step that starts at `start_s` is judged.
    pub(super) fn enter_slot(&mut self, kind: FeedKind, start_s: i64, shelf: &mut Shelf) {
        let slot = slot_of(start_s);
        if self.slot == Some(slot) {
            return;
        }
        if let Some(finished) = self.slot.replace(slot) {
            self.cut_page(PageKey { kind, slot: finished }, shelf);
        }
        for slot in self.index.expire(slot) {
            shelf.discard(PageKey { kind, slot });
        }
        self.take_up_baselines(kind, slot, shelf);
        let next: BTreeSet<i64> = self.index.pooled(slot.saturating_add(1)).collect();
        shelf.retain(kind, &next);
    }

    /// The pages that judging up to the watermark needs and that are not on the shelf.
    pub(super) fn wanted(&self, kind: FeedKind, watermark_ms: i64, step_s: u32, shelf: &Shelf) -> Vec<PageKey> {
        let step_s = i64::from(step_s);
        let due_s = watermark_ms.div_euclid(1_000).div_euclid(step_s).saturating_mul(step_s);
        let steps = self.open.keys().map(|&pane| pane.div_euclid(step_s).saturating_mul(step_s));
        let mut wanted = BTreeSet::new();
        let mut last = self.slot;
        for slot in steps.take_while(|&step| step < due_s).map(slot_of) {
            if last.replace(slot) != Some(slot) {
                wanted.extend(self.index.pooled(slot).map(|slot| PageKey { kind, slot }));
            }
        }
        wanted.retain(|key| !shelf.has(key));
        wanted.into_iter().collect()
    }

    fn cut_page(&mut self, key: PageKey, shelf: &mut Shelf) {
        let mut cells = Vec::new();
        for state in self.pairs.values_mut() {
            let cell = std::mem::take(&mut state.slot);
            if !cell.is_empty() {
                cells.push((state.number, cell));
            }
        }
        if !cells.is_empty() {
            shelf.write(key, SlotPage::new(cells).encode());
            self.index.insert(key.slot);
        }
    }

    fn take_up_baselines(&mut self, kind: FeedKind, slot: i64, shelf: &Shelf) {
        let mut pages = Vec::new();
        for past in self.index.pooled(slot) {
            let key = PageKey { kind, slot: past };
            let Some(Ok(page)) = shelf.get(&key).map(|bytes| SlotPage::decode(key, bytes)) else { continue };
            // The nearest multiple of a day: a neighbour across midnight belongs to the day it is a neighbour in.
            let day = (slot - past + SLOTS / 2).div_euclid(SLOTS);
            let neighbour = usize::try_from(past - (slot - day * SLOTS) + 1).unwrap_or_default();
            pages.push((past, day, neighbour, page));
        }
        for state in self.pairs.values_mut() {
            let cells = pages.iter().filter_map(|(slot, day, neighbour, page)| {
                let cell = page.get(state.number)?;
                Some(Past { slot: *slot, day: *day, neighbour: *neighbour, cell })
            });
            let past: Vec<Past<'_>> = cells.collect();
            state.take_up(SlotBaseline::pool(&past, &state.levels));
        }
    }
}
