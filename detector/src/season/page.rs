//! A finished slot of all pairs of a lane, as it is stored.
//!
//! For: writing a slot once and reading it when its time of day comes again.
//! Not for: deciding which slots are needed; see `shelf`.
//! Invariant: equal cells give equal bytes; a page of an unknown version is refused, never guessed at.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{SLOT_S, SlotCell};
use crate::feed::FeedKind;

const VERSION: u8 = 1;

/// A page cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PageError {
    /// It is of a version this program does not know.
    #[error("page {key} has version {version}, known is {VERSION}")]
    Version {
        /// The page.
        key: PageKey,
        /// Its version; `None`: it is empty.
        version: u8,
    },
    /// Its bytes are damaged.
    #[error("page {key} is damaged: {why}")]
    Damaged {
        /// The page.
        key: PageKey,
        /// What was found.
        why: String,
    },
}

/// Name of a page within its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PageKey {
    /// The feed kind.
    pub kind: FeedKind,
    /// Number of the slot: quarter hours since the epoch.
    pub slot: i64,
}

impl PageKey {
    /// Reads the form that `Display` writes; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, slot) = text.split_once('-')?;
        let kind = match kind {
            "reports" => FeedKind::Reports,
            "flow_logs" => FeedKind::FlowLogs,
            _ => return None,
        };
        Some(Self { kind, slot: slot.parse().ok()? })
    }

    /// Start of the slot, epoch s.
    pub fn start_s(&self) -> i64 {
        self.slot.saturating_mul(SLOT_S)
    }
}

impl fmt::Display for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind, self.slot)
    }
}

/// Cells by the number of their pair, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SlotPage(Vec<(u32, SlotCell)>);

impl SlotPage {
    /// From cells in any order.
    pub(crate) fn new(mut cells: Vec<(u32, SlotCell)>) -> Self {
        cells.sort_by_key(|(number, _)| *number);
        Self(cells)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&SlotCell> {
        let index = self.0.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.0.get(index).map(|(_, cell)| cell)
    }

    /// The stored form.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Writing to memory cannot fail; an empty page would be refused by its reader and leave the baseline without it.
        postcard::to_extend(&self.0, vec![VERSION]).unwrap_or_default()
    }

    /// Reads the stored form.
    pub(crate) fn decode(key: PageKey, bytes: &[u8]) -> Result<Self, PageError> {
        let damaged = |why: String| PageError::Damaged { key, why };
        let (&version, body) = bytes.split_first().ok_or_else(|| damaged("no bytes".into()))?;
        if version != VERSION {
            return Err(PageError::Version { key, version });
        }
        let cells: Vec<(u32, SlotCell)> = postcard::from_bytes(body).map_err(|e| damaged(e.to_string()))?;
        if cells.windows(2).any(|two| two[0].0 >= two[1].0) {
            return Err(damaged("pairs do not ascend".into()));
        }
        Ok(Self(cells))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Split, Tally};
    use super::*;

    const KEY: PageKey = PageKey { kind: FeedKind::Reports, slot: 1_888_888 };

    fn page() -> SlotPage {
        let cell = |steps| SlotCell { steps, flows: 7, ..SlotCell::default() };
        SlotPage::new(vec![(9, cell(3)), (2, cell(1))])
    }

    #[test]
    fn a_page_comes_back_from_its_bytes_and_its_name_from_its_text() {
        assert_eq!(SlotPage::decode(KEY, &page().encode()), Ok(page()));
        assert_eq!(page().get(9).map(|cell| cell.steps), Some(3));
        assert_eq!(PageKey::parse(&KEY.to_string()), Some(KEY));
        assert_eq!(PageKey::parse("reports-x"), None);
    }

    #[test]
    fn bytes_that_are_no_page_are_refused_with_the_reason() {
        let bytes = page().encode();
        assert!(matches!(SlotPage::decode(KEY, &[]), Err(PageError::Damaged { .. })));
        assert!(matches!(SlotPage::decode(KEY, &bytes[..bytes.len() - 1]), Err(PageError::Damaged { .. })));
        let newer = [&[2], &bytes[1..]].concat();
        assert_eq!(SlotPage::decode(KEY, &newer), Err(PageError::Version { key: KEY, version: 2 }));
    }

    /// Pages are never written again: what a release of version 1 stored is read for two weeks of baselines after it.
    #[test]
    fn the_bytes_of_version_1_are_read_and_written_as_they_were() {
        let tally = |n| Tally { events: n, trials: n * 1_000 };
        let split = |n| Split { learned: tally(n), held: tally(n + 1) };
        let mut cell = SlotCell {
            steps: 15,
            flows: 300,
            segments: split(1),
            marked: split(3),
            connects: split(5),
            timeouts: split(7),
            ..SlotCell::default()
        };
        [(-40, 2), (-38, 300)].into_iter().for_each(|(bin, count)| cell.rtt.learned.put(bin, count));
        cell.rtt.held.put(90, 1);
        let page = SlotPage(vec![(2, SlotCell::default()), (70_000, cell)]);
        assert_eq!(page.encode(), VERSION_1);
        assert_eq!(SlotPage::decode(KEY, &VERSION_1), Ok(page));
    }

    const VERSION_1: [u8; 65] = [
        1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 240, 162, 4, 15, 172, 2, 1, 232, 7,
        2, 208, 15, 3, 184, 23, 4, 160, 31, 5, 136, 39, 6, 240, 46, 7, 216, 54, 8, 192, 62, 79, 3, 2, 0, 172, 2, 180,
        1, 1, 1,
    ];
}
