//! A waiting room between being seen and being learned.
//!
//! For: keeping the first, still unproven minutes of a slow fault out of the baseline that must show it.
//! Not for: steps that are known to be bad; they never come in here.
//! Invariant: what is admitted leaves in order, 10 to 15 minutes later, unless an episode empties the room.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Length of a block that leaves together, s.
const BLOCK_S: i64 = 300;
/// Complete blocks that wait.
const WAITING: usize = 2;

/// What can be added up while it waits.
pub(crate) trait Sum {
    fn add(&mut self, other: &Self);
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Probation<T> {
    blocks: VecDeque<(i64, T)>,
}

impl<T: Sum + Clone> Probation<T> {
    /// Admits one step; gives back what has waited long enough.
    pub(crate) fn admit(&mut self, start_s: i64, step: &T) -> Option<T> {
        let block_s = start_s.div_euclid(BLOCK_S).saturating_mul(BLOCK_S);
        match self.blocks.back_mut() {
            Some((last, sum)) if *last == block_s => sum.add(step),
            _ => self.blocks.push_back((block_s, step.clone())),
        }
        if self.blocks.len() > WAITING + 1 { self.blocks.pop_front().map(|(_, sum)| sum) } else { None }
    }

    /// Forgets everything that waits.
    pub(crate) fn clear(&mut self) {
        self.blocks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sum for u32 {
        fn add(&mut self, other: &Self) {
            *self += other;
        }
    }

    #[test]
    fn steps_leave_in_blocks_after_ten_minutes_and_never_after_an_episode() {
        let mut room = Probation::default();
        let left: Vec<u32> = (0..20).filter_map(|minute| room.admit(minute * 60, &1)).collect();
        assert_eq!(left, [5]);
        room.clear();
        assert_eq!((20..35).filter_map(|minute| room.admit(minute * 60, &1)).count(), 0);
    }
}
