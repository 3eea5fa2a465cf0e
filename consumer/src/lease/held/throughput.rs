//! The throughput of a shard as KCL keeps it: `throughputKBps`, a running mean of what was delivered between writes.
//!
//! It rides on renewals and commits and never causes a write. The leader balances by it. Integers only, so that two
//! workers compute the same from the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::table::{Item, Value};

/// Bytes since the last sample, and when that was.
#[derive(Debug)]
pub(super) struct Throughput {
    delivered: AtomicU64,
    sampled: std::sync::Mutex<Instant>,
}

impl Throughput {
    pub(super) fn new() -> Self {
        Self { delivered: AtomicU64::new(0), sampled: std::sync::Mutex::new(Instant::now()) }
    }

    pub(super) fn delivered(&self, bytes: u64) {
        self.delivered.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The next value of the row's mean, once at least `every` has passed since the last one.
    pub(super) fn sample(&self, every: Duration, known: Option<u64>) -> Option<Value> {
        let mut sampled = self.sampled.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let elapsed = sampled.elapsed();
        if elapsed < every || elapsed.is_zero() {
            return None;
        }
        *sampled = Instant::now();
        let bytes = u128::from(self.delivered.swap(0, Ordering::Relaxed));
        let now = u64::try_from(bytes * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX);
        // Alpha 0.5, as KCL; a row without a value starts with the first sample.
        let mean = known.map_or(now, |known| known / 2 + now / 2 + (known % 2 + now % 2) / 2);
        Some(kilobytes(mean))
    }
}

/// Bytes per second as KCL's kilobytes per second, three decimals.
fn kilobytes(bytes: u64) -> Value {
    let thousandths = u128::from(bytes) * 1000 / 1024;
    Value::N(format!("{}.{:03}", thousandths / 1000, thousandths % 1000))
}

/// Bytes per second from a row; none when there is no such attribute or it is not a number in range.
pub(in crate::lease) fn bytes_per_second(item: &Item, attribute: &str) -> Option<u64> {
    let Some(Value::N(text)) = item.get(attribute) else { return None };
    let kilobytes: f64 = text.parse().ok()?;
    // Ten gigabytes a second is beyond any shard; a float that large is someone's slip.
    (0.0..1e7).contains(&kilobytes).then_some((kilobytes * 1024.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_mean_halves_the_distance_to_each_new_sample_and_waits_for_its_interval() {
        let every = Duration::from_secs(3);
        let throughput = Throughput::new();
        throughput.delivered(4096 * 3);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(throughput.sample(every, None), None);
        tokio::time::advance(Duration::from_secs(2)).await;
        let first = throughput.sample(every, None).unwrap();
        assert_eq!(first, Value::N("4.000".into()));
        let known = bytes_per_second(&Item::new().with("t", first), "t");
        tokio::time::advance(every).await;
        assert_eq!(throughput.sample(every, known), Some(Value::N("2.000".into())));
    }

    #[test]
    fn a_value_that_is_no_rate_is_none() {
        for text in ["-1", "NaN", "1e30", "x"] {
            assert_eq!(bytes_per_second(&Item::new().with("t", Value::N(text.into())), "t"), None, "{text}");
        }
        assert_eq!(bytes_per_second(&Item::new().with("t", Value::N("1.5".into())), "t"), Some(1536));
    }
}
