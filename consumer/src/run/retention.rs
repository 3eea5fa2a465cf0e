//! How long the streams keep their records, and what follows from it.
//!
//! The leader asks Kinesis now and then and publishes it ([`super::roster`]); workers read it with everything else the
//! leader publishes. It decides two things: for how long a lane remembers a source that has ended, and whether a shard
//! whose last read record is gone can have lost any. Invariant: not knowing it is safe: the tombstone stays for the
//! longest time that Kinesis keeps anything, and what may be lost is told as loss.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// The longest retention there is, and a day.
const LONGEST_TOMBSTONE: Duration = Duration::from_secs(366 * 24 * 3_600);
/// How far two machines' clocks may be apart, and how late a record may expire or a change of the retention be heard
/// of.
const MARGIN: Duration = Duration::from_secs(3 * 3_600);

/// What the leader published, by stream.
pub(crate) type Retentions = BTreeMap<String, Duration>;

/// The retention of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    known: watch::Receiver<Retentions>,
    stream: String,
}

impl Retention {
    pub(crate) fn new(known: watch::Receiver<Retentions>, stream: &str) -> Self {
        Self { known, stream: stream.to_owned() }
    }

    fn get(&self) -> Option<Duration> {
        self.known.borrow().get(&self.stream).copied()
    }

    /// For how long the marks of an ended source are needed: until no copy of its batches can be in the stream.
    pub(crate) fn tombstone(&self) -> Duration {
        self.get().map_or(LONGEST_TOMBSTONE, |kept| kept.saturating_add(DAY))
    }

    /// Whether nothing can have expired unread in a shard that was read to its tip so long ago: what came since is
    /// kept.
    pub(crate) fn keeps_since(&self, tip: Duration) -> bool {
        self.get().is_some_and(|kept| tip.saturating_add(MARGIN) < kept)
    }

    /// How often a shard in which nothing happens has to say that it was read to its tip; none: it need not.
    pub(crate) fn say_every(&self) -> Option<Duration> {
        self.get().map(|kept| (kept / 8).max(HOUR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_taken_for_the_worst() {
        let (sender, known) = watch::channel(Retentions::new());
        let retention = Retention::new(known, "flows");
        assert_eq!(retention.tombstone(), LONGEST_TOMBSTONE);
        assert!(!retention.keeps_since(Duration::ZERO) && retention.say_every().is_none());
        sender.send_replace(Retentions::from([("flows".into(), DAY), ("other".into(), 7 * DAY)]));
        assert_eq!(retention.tombstone(), 2 * DAY);
        assert!(retention.keeps_since(20 * HOUR) && !retention.keeps_since(21 * HOUR));
        assert_eq!(retention.say_every(), Some(3 * HOUR));
    }
}
