//! The throughput limits of one shard, as token buckets over a time that the caller passes in.
//!
//! Writes: 1 MiB/s and 1,000 records/s with a burst of one second. Reads: 5 calls/s and 2 MiB/s, where one large
//! read goes into debt, so that after 10 MiB calls are refused for five seconds, as AWS documents.

use std::time::{Duration, Instant};

const MIB: f64 = 1_048_576.0;

/// A bucket that fills at `rate` per second up to one second's worth.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: f64, now: Instant) -> Self {
        Self { rate, level: rate, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * self.rate).min(self.rate);
        self.at = self.at.max(now);
    }
}

/// Limits of one shard; each method says whether the call may go on, and counts it only then.
#[derive(Debug)]
pub(crate) struct ShardThrottle {
    write_bytes: Bucket,
    write_records: Bucket,
    read_calls: Bucket,
    read_bytes: Bucket,
    iterator_calls: Bucket,
}

impl ShardThrottle {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            write_bytes: Bucket::new(MIB, now),
            write_records: Bucket::new(1000.0, now),
            read_calls: Bucket::new(5.0, now),
            read_bytes: Bucket::new(2.0 * MIB, now),
            iterator_calls: Bucket::new(5.0, now),
        }
    }

    /// One record of `bytes` (key and data). A record above 1 MiB passes when the bucket is full, leaving debt.
    pub(crate) fn write(&mut self, now: Instant, bytes: usize) -> bool {
        self.write_bytes.refill(now);
        self.write_records.refill(now);
        let bytes = bytes as f64;
        if self.write_records.level < 1.0 || self.write_bytes.level < bytes.min(MIB) {
            return false;
        }
        self.write_records.level -= 1.0;
        self.write_bytes.level -= bytes;
        true
    }

    /// One `GetRecords` call; tell [`Self::count_read`] afterwards what it returned.
    pub(crate) fn read(&mut self, now: Instant) -> bool {
        self.read_calls.refill(now);
        self.read_bytes.refill(now);
        if self.read_calls.level < 1.0 || self.read_bytes.level < 0.0 {
            return false;
        }
        self.read_calls.level -= 1.0;
        true
    }

    /// Bytes that the read just allowed gave out.
    pub(crate) fn count_read(&mut self, bytes: u64) {
        let bytes = bytes as f64;
        let level = &mut self.read_bytes.level;
        // The burst does not shorten the pause after a read larger than it: 10 MiB cost five seconds, not four.
        *level = if bytes > self.read_bytes.rate { level.min(0.0) - bytes } else { *level - bytes };
    }

    /// One `GetShardIterator` call.
    pub(crate) fn iterator(&mut self, now: Instant) -> bool {
        self.iterator_calls.refill(now);
        let allowed = self.iterator_calls.level >= 1.0;
        if allowed {
            self.iterator_calls.level -= 1.0;
        }
        allowed
    }
}

/// How long a subscription pauses after an event of this many bytes to stay at 2 MiB/s.
pub(crate) fn subscription_pause(bytes: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / (2.0 * MIB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_records_pass_in_a_burst_and_then_a_thousand_a_second() {
        let start = Instant::now();
        let mut shard = ShardThrottle::new(start);
        assert_eq!((0..1500).filter(|_| shard.write(start, 10)).count(), 1000);
        assert_eq!((0..1500).filter(|_| shard.write(start + Duration::from_millis(500), 10)).count(), 500);
        assert_eq!((0..5000).filter(|_| shard.write(start + Duration::from_secs(9), 10)).count(), 1000);
    }

    #[test]
    fn one_mebibyte_passes_in_a_burst() {
        let start = Instant::now();
        let mut shard = ShardThrottle::new(start);
        assert_eq!((0..10).filter(|_| shard.write(start, 262_144)).count(), 4);
        assert!(!shard.write(start, 1));
        assert!(shard.write(start + Duration::from_secs(1), 1 << 20));
    }

    #[test]
    fn five_reads_a_second_pass() {
        let start = Instant::now();
        let mut shard = ShardThrottle::new(start);
        assert_eq!((0..10).filter(|_| shard.read(start)).count(), 5);
        assert!(!shard.read(start + Duration::from_millis(150)));
        assert!(shard.read(start + Duration::from_millis(201)));
    }

    #[test]
    fn after_ten_mebibytes_reads_are_refused_for_five_seconds() {
        let start = Instant::now();
        let mut shard = ShardThrottle::new(start);
        assert!(shard.read(start));
        shard.count_read(10 << 20);
        assert!(!shard.read(start + Duration::from_millis(4900)));
        assert!(shard.read(start + Duration::from_millis(5001)));
    }
}
