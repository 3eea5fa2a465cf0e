//! Splitting an interval's counter over the panes it touches.
//!
//! For: additive counters of a report whose interval crosses pane borders.
//! Not for: what cannot be split (the flow itself, its mark, its round-trip time): that goes whole to
//! [`pane_of_last_ms`].
//! Invariant: the shares of a value sum to exactly that value; equal inputs give equal shares.

/// Start (epoch seconds) of the pane that holds the last millisecond of an interval that ends, exclusively, at `end_ms`.
/// A `pane_s` of 0 is read as 1.
pub fn pane_of_last_ms(end_ms: i64, pane_s: u32) -> i64 {
    floor_to(end_ms.saturating_sub(1).div_euclid(1_000), pane_s)
}

/// Splits `value` over the panes of length `pane_s` seconds touched by `[start_ms, end_ms)`, in proportion to the
/// milliseconds spent in each, in integers by largest remainder (ties go to the earlier pane). An empty or reversed
/// interval gives everything to the pane of its last millisecond. Panes are yielded in ascending order, also those
/// whose share is 0. Costs no memory; its length is the number of panes, so callers bound the interval first.
pub fn apportion(start_ms: i64, end_ms: i64, pane_s: u32, value: u64) -> Shares {
    let pane_s = pane_s.max(1);
    let pane_ms = i128::from(pane_s) * 1_000;
    let last_start = pane_of_last_ms(end_ms, pane_s);
    if end_ms <= start_ms {
        return Shares::whole(last_start, pane_s, value);
    }
    let first_start = floor_to(start_ms.div_euclid(1_000), pane_s);
    let panes = ((i128::from(last_start) - i128::from(first_start)) / i128::from(pane_s)) as u64 + 1;
    if panes == 1 {
        return Shares::whole(last_start, pane_s, value);
    }
    let first_ms = i128::from(first_start) * 1_000 + pane_ms - i128::from(start_ms);
    let last_ms = i128::from(end_ms) - i128::from(last_start) * 1_000;
    let total_ms = (i128::from(end_ms) - i128::from(start_ms)).unsigned_abs();
    let share = |ms: i128| {
        let product = u128::from(value) * ms.unsigned_abs();
        Share { floor: (product / total_ms) as u64, remainder: product % total_ms }
    };
    let (first, middle, last) = (share(first_ms), share(pane_ms), share(last_ms));
    let handed_out =
        u128::from(first.floor) + u128::from(middle.floor) * u128::from(panes - 2) + u128::from(last.floor);
    let left = (u128::from(value) - handed_out) as u64;
    Shares { first, middle, last, left, panes, next: 0, first_start, pane_s }
}

#[derive(Debug, Clone, Copy)]
struct Share {
    floor: u64,
    remainder: u128,
}

/// Iterator over (pane start in epoch seconds, share); made by [`apportion`].
#[derive(Debug, Clone)]
pub struct Shares {
    first: Share,
    middle: Share,
    last: Share,
    /// Units that rounding down left over; fewer than there are panes.
    left: u64,
    panes: u64,
    next: u64,
    first_start: i64,
    pane_s: u32,
}

impl Shares {
    fn whole(start: i64, pane_s: u32, value: u64) -> Self {
        let all = Share { floor: value, remainder: 0 };
        Self { first: all, middle: all, last: all, left: 0, panes: 1, next: 0, first_start: start, pane_s }
    }

    /// How many panes come before pane `index` in the order of largest remainder, ties by time. All panes between the
    /// first and the last have the same remainder, so this needs no sorting.
    fn rank(&self, index: u64) -> u64 {
        let middles = self.panes - 2;
        if index == 0 {
            u64::from(self.last.remainder > self.first.remainder)
                + if self.middle.remainder > self.first.remainder { middles } else { 0 }
        } else if index == self.panes - 1 {
            u64::from(self.first.remainder >= self.last.remainder)
                + if self.middle.remainder >= self.last.remainder { middles } else { 0 }
        } else {
            index - 1
                + u64::from(self.first.remainder >= self.middle.remainder)
                + u64::from(self.last.remainder > self.middle.remainder)
        }
    }
}

impl Iterator for Shares {
    type Item = (i64, u64);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.panes {
            return None;
        }
        let index = self.next;
        self.next += 1;
        let share = match index {
            0 => self.first,
            i if i == self.panes - 1 => self.last,
            _ => self.middle,
        };
        let extra = u64::from(self.left > 0 && self.rank(index) < self.left);
        let offset = i64::from(self.pane_s).saturating_mul(i64::try_from(index).unwrap_or(i64::MAX));
        Some((self.first_start.saturating_add(offset), share.floor + extra))
    }
}

fn floor_to(seconds: i64, pane_s: u32) -> i64 {
    let pane = i64::from(pane_s.max(1));
    seconds.div_euclid(pane).saturating_mul(pane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_inside_one_pane_is_not_split() {
        assert_eq!(apportion(1_000, 9_999, 10, 7).collect::<Vec<_>>(), [(0, 7)]);
        assert_eq!(apportion(0, 10_000, 10, 7).collect::<Vec<_>>(), [(0, 7)], "the end is exclusive");
    }

    #[test]
    fn ties_go_to_the_earlier_pane() {
        assert_eq!(apportion(5_000, 15_000, 10, 3).collect::<Vec<_>>(), [(0, 2), (10, 1)]);
        assert_eq!(apportion(5_000, 25_000, 10, 1).collect::<Vec<_>>(), [(0, 0), (10, 1), (20, 0)]);
        assert_eq!(apportion(0, 30_000, 10, 2).collect::<Vec<_>>(), [(0, 1), (10, 1), (20, 0)]);
    }

    #[test]
    fn an_empty_or_reversed_interval_goes_to_the_pane_of_its_last_millisecond() {
        assert_eq!(apportion(10_000, 10_000, 10, 5).collect::<Vec<_>>(), [(0, 5)]);
        assert_eq!(apportion(90_000, 10_001, 10, 5).collect::<Vec<_>>(), [(10, 5)]);
    }

    #[test]
    fn extreme_inputs_do_not_overflow() {
        let mut shares = apportion(i64::MIN, i64::MAX, 10, u64::MAX);
        assert!(shares.next().is_some());
        assert_eq!(apportion(-5_000, 5_000, 10, u64::MAX).map(|s| u128::from(s.1)).sum::<u128>(), u128::from(u64::MAX));
    }
}
