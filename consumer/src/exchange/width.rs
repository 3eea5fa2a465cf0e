//! How often batches may be cut: what the exchange stream can carry.
//!
//! Every batch puts one record per lane, whether it holds anything or not, so the load of the exchange stream grows
//! with the input shards and not with the records. Method: an exchange shard takes 1,000 records a second (a Kinesis
//! limit), of which batches use a fifth; the rest is for parts, repeats and lanes that do not spread evenly.
//! A batch is a pure function of its cut, so the interval may change between any two batches.
//! Not here: who counts the shards (`run::leader`), and how long a mapper waits (`run::map_driver`).

use std::time::Duration;

/// Records a second that batches may put into one exchange shard.
const RECORDS_PER_SECOND: u64 = 200;

/// Open shards on both sides of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardCounts {
    /// Of the input stream.
    pub input: u64,
    /// Of the exchange stream; 0 is taken as 1.
    pub exchange: u64,
}

impl ShardCounts {
    /// The shortest time between two batches of one input shard that the exchange stream can carry, for this many
    /// lanes; rounded up to a millisecond.
    pub fn least_interval(self, lanes: u16) -> Duration {
        let per_second = RECORDS_PER_SECOND.saturating_mul(self.exchange.max(1));
        Duration::from_millis(self.record_millis(lanes).div_ceil(per_second))
    }

    /// Exchange shards with which a batch can be cut every `interval`; at least 1. An interval below 1 ms is taken as 1
    /// ms.
    pub fn exchange_needed(self, lanes: u16, interval: Duration) -> u64 {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        self.record_millis(lanes).div_ceil(RECORDS_PER_SECOND.saturating_mul(millis)).max(1)
    }

    /// Records of one batch of every input shard, times the milliseconds of a second.
    fn record_millis(self, lanes: u16) -> u64 {
        self.input.saturating_mul(u64::from(lanes)).saturating_mul(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_grows_with_input_shards_and_lanes_and_shrinks_with_exchange_shards() {
        let least = |input, exchange, lanes| ShardCounts { input, exchange }.least_interval(lanes);
        assert_eq!(least(100, 2, 64), Duration::from_secs(16));
        assert_eq!(least(100, 4, 64), Duration::from_secs(8));
        assert_eq!(least(200, 4, 64), Duration::from_secs(16));
        assert_eq!(least(100, 4, 32), Duration::from_secs(4));
        assert_eq!(least(1, 1, 1), Duration::from_millis(5));
        assert_eq!(least(0, 0, 64), Duration::ZERO);
        assert_eq!(least(u64::MAX, 0, u16::MAX), Duration::from_millis(u64::MAX.div_ceil(200)));
    }

    #[test]
    fn the_exchange_shards_needed_are_the_fewest_that_carry_the_interval() {
        for input in [1, 7, 100, 1_000] {
            let needed = ShardCounts { input, exchange: 0 }.exchange_needed(64, Duration::from_secs(5));
            let least = |exchange| ShardCounts { input, exchange }.least_interval(64);
            assert!(least(needed) <= Duration::from_secs(5));
            assert!(needed == 1 || least(needed - 1) > Duration::from_secs(5));
        }
    }
}
