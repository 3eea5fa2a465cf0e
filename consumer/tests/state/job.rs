//! A small job: keeps the sum of the numbers per lane, and a page per ten seconds of event time.

use std::collections::BTreeMap;

use bytes::Bytes;
use flowshift_consumer::commit::{PageName, Snapshot};
use flowshift_consumer::exchange::{LaneId, Lanes, Loss, Watermarks};
use flowshift_consumer::stage::{Batch, Mapped, Mapper, Reducer, StageError};

/// Sends every number to a lane by its parity; event time: the number, in seconds.
#[derive(Default)]
pub(crate) struct Copy {
    /// Numbers from here on go to the other lane, as by a program of other rules that forgot to say so.
    pub(crate) swapped_from: Option<u64>,
    /// Digits of every number in the parts, leading zeros included.
    pub(crate) digits: usize,
}

fn number(bytes: &[u8]) -> Result<u64, StageError> {
    String::from_utf8_lossy(bytes).parse().map_err(|e| StageError::with("number", e))
}

impl Mapper for Copy {
    type State = Option<i64>;
    type Prepared = ();

    fn semantics(&self) -> u32 {
        1
    }
    fn prepare(&self, _: &Snapshot) -> Result<(), StageError> {
        Ok(())
    }
    fn map(&self, state: &mut Self::State, batch: &Batch<'_>, (): &()) -> Result<Mapped, StageError> {
        let lanes = Lanes::new(2).map_err(|e| StageError::with("lanes", e))?;
        let mut mapped = Mapped { kinds: [!batch.records.is_empty(), false, false, false], ..Mapped::default() };
        for record in batch.records {
            let n = number(&record.data)?;
            *state = (*state).max(i64::try_from(n).ok());
            let swapped = u64::from(self.swapped_from.is_some_and(|from| n >= from));
            let lane = lanes.get(u16::try_from((n + swapped) % 2).unwrap_or_default());
            let digits = n.to_string();
            let part = Bytes::from("0".repeat(self.digits.saturating_sub(digits.len())) + &digits);
            mapped.parts.entry(lane.ok_or_else(|| StageError::new("lane"))?).or_default().push(part);
        }
        Ok(mapped)
    }
    fn watermarks(&self, state: &Self::State) -> Watermarks {
        Watermarks::from_slice(&[state.unwrap_or(i64::MIN)])
    }
    fn raise(&self, state: &mut Self::State, to: &Watermarks) {
        if to.get(0) != i64::MIN {
            *state = (*state).max(Some(to.get(0)));
        }
    }
    fn inherit(&self, parents: Vec<Self::State>) -> Self::State {
        parents.into_iter().flatten().min()
    }
    fn save(&self, state: &Self::State) -> Result<Vec<u8>, StageError> {
        Ok(state.map(|n| n.to_string()).unwrap_or_default().into_bytes())
    }
    fn load(&self, bytes: &Bytes) -> Result<Self::State, StageError> {
        Ok(String::from_utf8_lossy(bytes).parse().ok())
    }
}

#[derive(Default)]
struct Lane {
    sum: u64,
    losses: u64,
    /// Ten seconds of event time that the watermark has reached.
    slot: Option<i64>,
    /// Sum of all pages that were read.
    read: u64,
    changed: BTreeMap<PageName, Option<Bytes>>,
    /// The page of the slot, once it is delivered.
    page: Option<PageName>,
}

/// `sum losses slot read` per lane. When the watermark enters a slot, the page of the slot two before is read and
/// dropped, and the page of this slot is written: it holds the sum.
#[derive(Default)]
pub(crate) struct Keep(BTreeMap<LaneId, Lane>);

fn page_of(slot: i64) -> PageName {
    PageName::new(format!("slot-{slot}")).unwrap()
}

fn slot_of(watermarks: &Watermarks) -> Option<i64> {
    let mark = watermarks.get(0);
    (mark != i64::MIN).then(|| mark.div_euclid(10))
}

impl Reducer for Keep {
    fn restore(&mut self, lane: LaneId, state: Option<&Bytes>) -> Result<(), StageError> {
        let mut restored = Lane::default();
        if let Some(bytes) = state {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let words: Vec<&str> = text.split(' ').collect();
            let word = |n: usize| words.get(n).and_then(|w| w.parse::<u64>().ok()).unwrap_or_default();
            restored = Lane { sum: word(0), losses: word(1), read: word(3), ..restored };
            restored.slot = words.get(2).and_then(|w| w.parse().ok());
        }
        self.0.insert(lane, restored);
        Ok(())
    }
    fn apply(&mut self, lane: LaneId, payload: &Bytes) -> Result<(), StageError> {
        self.0.entry(lane).or_default().sum += number(payload)?;
        Ok(())
    }
    fn advance(&mut self, lane: LaneId, watermarks: &Watermarks) -> Result<Vec<Bytes>, StageError> {
        let Some(slot) = slot_of(watermarks) else { return Ok(Vec::new()) };
        let state = self.0.entry(lane).or_default();
        if state.slot == Some(slot) {
            return Ok(Vec::new());
        }
        state.slot = Some(slot);
        if let Some(name) = state.page.take() {
            state.changed.insert(name, None);
        }
        state.changed.insert(page_of(slot), Some(Bytes::from(state.sum.to_string())));
        Ok(Vec::new())
    }
    fn incomplete(&mut self, lane: LaneId, _: &Loss) {
        self.0.entry(lane).or_default().losses += 1;
    }
    fn save(&mut self, lane: LaneId) -> Result<Vec<u8>, StageError> {
        let lane = self.0.entry(lane).or_default();
        let slot = lane.slot.map(|slot| slot.to_string()).unwrap_or_else(|| "-".into());
        Ok(format!("{} {} {slot} {}", lane.sum, lane.losses, lane.read).into_bytes())
    }
    fn pages(&mut self, lane: LaneId) -> Result<Vec<(PageName, Option<Bytes>)>, StageError> {
        Ok(std::mem::take(&mut self.0.entry(lane).or_default().changed).into_iter().collect())
    }
    fn wanted(&self, lane: LaneId, watermarks: &Watermarks) -> Vec<PageName> {
        match (slot_of(watermarks), self.0.get(&lane).and_then(|lane| lane.slot)) {
            (Some(slot), last) if last != Some(slot) => vec![page_of(slot - 2)],
            _ => Vec::new(),
        }
    }
    fn page(&mut self, lane: LaneId, name: &PageName, page: Option<Bytes>) -> Result<(), StageError> {
        let lane = self.0.entry(lane).or_default();
        if let Some(bytes) = page {
            lane.read += number(&bytes)?;
            lane.page = Some(name.clone());
        }
        Ok(())
    }
}
