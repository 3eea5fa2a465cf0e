//! Values seen to stand still: the only clock by which anyone is judged dead.
//!
//! Invariant: an age counts from the first time this worker saw the value, so it is never longer than the truth.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Since when each value has stood still, as seen from here.
#[derive(Debug, Default)]
pub(crate) struct Observed(BTreeMap<String, (i64, Instant)>);

impl Observed {
    /// Notes the value of `key` and says for how long it has been this one.
    pub(crate) fn age(&mut self, key: &str, value: i64) -> Duration {
        let now = Instant::now();
        let Some(entry) = self.0.get_mut(key) else {
            self.0.insert(key.to_owned(), (value, now));
            return Duration::ZERO;
        };
        if entry.0 != value {
            *entry = (value, now);
        }
        now.duration_since(entry.1)
    }

    /// Forgets what `keep` does not want.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| keep(key));
    }
}
