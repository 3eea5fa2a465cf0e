//! Values seen to stand still: the only clock by which anyone is judged dead.
//!
//! Invariant: an age counts from the first time this worker saw the value, so it is never longer than the truth.

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
