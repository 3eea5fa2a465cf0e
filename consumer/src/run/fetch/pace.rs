//! When to read a shard again, as a pure function of what the last reads gave.
//!
//! Kinesis allows 5 reads and 2 MB a second and shard, shared by everyone who polls it. A reader with something to read
//! uses what it is allowed; one at the tip of a quiet shard reads more and more rarely, up to once in `idle`.
//! Invariant: two reads are never less than [`SHORTEST`] apart.

use std::time::Duration;

/// Five reads a second.
pub(super) const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// Bytes a second that a shard gives out.
const BYTES_PER_SECOND: f64 = 2.0 * 1024.0 * 1024.0;

/// The pause between the beginnings of two reads.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    busy: Duration,
    idle: Duration,
    pause: Duration,
}

impl Pace {
    /// `busy` between reads that give something, at most `idle` when nothing comes.
    pub(super) fn new(busy: Duration, idle: Duration) -> Self {
        let busy = busy.max(SHORTEST);
        Self { busy, idle: idle.max(busy), pause: busy }
    }

    /// After an answer with this many bytes, that ended so far behind the tip.
    pub(super) fn read(&mut self, bytes: usize, records: usize, behind_ms: i64) -> Duration {
        if records > 0 || behind_ms > 0 {
            self.pause = self.busy;
            // What a read gives out beyond the rate is owed in time: 10 MB are five seconds.
            return self.busy.max(Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND));
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(self.idle);
        pause
    }

    /// After an answer that says nothing about the shard.
    pub(super) fn soon(&self) -> Duration {
        self.busy
    }

    /// After a refusal or no answer.
    pub(super) fn failed(&mut self) -> Duration {
        self.pause = (self.pause * 2).min(LONGEST);
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_quiet_shard_is_read_more_and_more_rarely_and_quickly_again_once_something_comes() {
        let mut pace = Pace::new(MS(250), MS(1000));
        let pauses: Vec<Duration> = (0..4).map(|_| pace.read(0, 0, 0)).collect();
        assert_eq!(pauses, [MS(250), MS(500), MS(1000), MS(1000)]);
        assert_eq!(pace.read(10, 1, 0), MS(250));
        assert_eq!(pace.read(0, 0, 0), MS(250));
    }

    #[test]
    fn an_empty_answer_behind_the_tip_is_not_quiet() {
        let mut pace = Pace::new(MS(250), MS(1000));
        assert_eq!([pace.read(0, 0, 5_000), pace.read(0, 0, 5_000)], [MS(250); 2]);
    }

    #[test]
    fn no_setting_reads_more_than_five_times_a_second() {
        let mut pace = Pace::new(MS(1), MS(1));
        assert_eq!([pace.read(10, 1, 9), pace.read(0, 0, 0), pace.read(0, 0, 0)], [MS(200); 3]);
    }

    #[test]
    fn ten_megabytes_cost_five_seconds() {
        let mut pace = Pace::new(MS(250), MS(1000));
        assert_eq!(pace.read(10 << 20, 5_000, 9_000), Duration::from_secs(5));
        assert_eq!(pace.read(100, 1, 9_000), MS(250));
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_five_seconds() {
        let mut pace = Pace::new(MS(250), MS(1000));
        let pauses: Vec<Duration> = (0..6).map(|_| pace.failed()).collect();
        assert_eq!(pauses, [MS(500), MS(1000), MS(2000), MS(4000), MS(5000), MS(5000)]);
        assert_eq!(pace.read(10, 1, 0), MS(250));
    }
}
