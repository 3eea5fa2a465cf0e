//! What a leader remembers of values from pass to pass: since when they stand still, and what they are on the whole.
//!
//! Standing still is the only clock by which anyone is judged dead. Invariant: an age counts from the first time this
//! worker saw the value, so it is never longer than the truth. Not here: what follows from it (`assign`).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Since when each value has stood still, as seen from here.
#[derive(Debug, Default)]
pub(crate) struct Observed(BTreeMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    value: i64,
    since: Instant,
    /// Another value was seen before this one.
    moved: bool,
}

impl Observed {
    /// Notes the value of `key` and says for how long it has been this one.
    pub(crate) fn age(&mut self, key: &str, value: i64) -> Duration {
        let now = Instant::now();
        let seen = self.0.entry(key.to_owned()).or_insert(Seen { value, since: now, moved: false });
        if seen.value != value {
            *seen = Seen { value, since: now, moved: true };
        }
        now.duration_since(seen.since)
    }

    /// Whether the value was ever seen to change: then somebody was alive while this worker looked.
    pub(crate) fn moved(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|seen| seen.moved)
    }

    /// Forgets what `keep` does not want.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| keep(key));
    }
}

/// Passes over which a rate is levelled.
const LEVELLED: u128 = 16;

/// Throughputs without their bursts. A row's own is of a few seconds, in which an exchange shard got all sources'
/// batches or none; balanced by that, leases would go to and fro for ever.
#[derive(Debug, Default)]
pub(crate) struct Levelled(BTreeMap<String, u64>);

impl Levelled {
    /// Takes the rate of `key` as it is now and returns it as it has been; the first one counts in full.
    pub(crate) fn level(&mut self, key: &str, now: u64) -> u64 {
        let Some(rate) = self.0.get_mut(key) else {
            self.0.insert(key.to_owned(), now);
            return now;
        };
        let sum = u128::from(*rate) * (LEVELLED - 1) + u128::from(now);
        *rate = u64::try_from(sum.div_ceil(LEVELLED)).unwrap_or(u64::MAX);
        *rate
    }

    /// Forgets what `keep` does not want.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_level_out_and_a_lasting_change_comes_through() {
        let mut rates = Levelled::default();
        rates.level("a", 500);
        for pass in 0..100 {
            let rate = rates.level("a", if pass % 2 == 0 { 0 } else { 1_000 });
            assert!((400..=600).contains(&rate), "pass {pass}: {rate}");
        }
        let after_a_minute = (0..30).map(|_| rates.level("a", 5_000)).last().unwrap();
        assert!(after_a_minute > 4_000, "{after_a_minute}");
        assert_eq!(rates.level("b", u64::MAX), u64::MAX);
        assert_eq!(rates.level("b", u64::MAX), u64::MAX);
    }
}
