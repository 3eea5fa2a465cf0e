//! Settings of an emulator. Every field has a default that fits a local run; its comment is its manual.

use std::{path::PathBuf, time::Duration};

/// Whether the throughput limits of AWS apply. Sizes and counts of one request are always checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limits {
    /// No throttling.
    #[default]
    Off,
    /// Per shard 1 MiB/s and 1,000 records/s in (burst one second), 5 `GetRecords`/s, 5 `GetShardIterator`/s and
    /// 2 MiB/s out, and 2 MiB/s for each subscription. Refusals are `ProvisionedThroughputExceededException`.
    Aws,
}

/// What an emulator is started with.
#[derive(Debug, Clone)]
pub struct EmulatorConfig {
    /// Where streams live on disk; `None` keeps them in memory. One emulator at a time may use a directory.
    ///
    /// An acknowledged record has been handed to the operating system, so it survives the death of the process
    /// (`kill -9`), not the loss of power: nothing is synced to the medium.
    pub data_dir: Option<PathBuf>,
    /// How long records stay readable, at least 1 ms. Streams may change theirs by API.
    pub retention: Duration,
    /// Bytes (frames of records with their overhead of 26 bytes each) a stream may hold over all its shards; whole
    /// segments, oldest first, are dropped above it and counted in [`Stats`](crate::Stats). At least 64 KiB.
    pub max_stream_bytes: u64,
    /// Bytes of a segment, the unit of trimming; at most a quarter of `max_stream_bytes` is used.
    pub segment_bytes: u64,
    /// Largest record, partition key included, in bytes (AWS: 1 MiB, up to 10 MiB by setting).
    pub max_record_bytes: usize,
    /// Open shards a stream may have; more is `LimitExceededException`.
    pub max_shards_per_stream: u32,
    /// Throughput limits.
    pub limits: Limits,
    /// How long a shard iterator may be used after it was given out.
    pub iterator_ttl: Duration,
    /// How long a stream stays CREATING, UPDATING or DELETING, and a consumer CREATING.
    pub transition_delay: Duration,
    /// After this time a `SubscribeToShard` response ends.
    pub subscription_lifetime: Duration,
    /// A second subscription within this time of the first is refused, after it takes over.
    pub subscription_takeover: Duration,
    /// An idle subscription sends an empty event this often.
    pub subscription_heartbeat: Duration,
    /// How often expired records and shards are removed from disk and memory (they are unreadable at once).
    pub trim_interval: Duration,
    /// The twelve digits in ARNs.
    pub account_id: String,
    /// The region in ARNs.
    pub region: String,
    /// Seed of chance in fault rules.
    pub fault_seed: u64,
    /// Allows an address that other machines can reach. There is no authentication.
    pub allow_public: bool,
}

impl Default for EmulatorConfig {
    fn default() -> Self {
        Self {
            data_dir: None,
            retention: Duration::from_secs(24 * 3600),
            max_stream_bytes: 1 << 30,
            segment_bytes: 8 << 20,
            max_record_bytes: 1 << 20,
            max_shards_per_stream: 1000,
            limits: Limits::Off,
            iterator_ttl: Duration::from_secs(300),
            transition_delay: Duration::ZERO,
            subscription_lifetime: Duration::from_secs(300),
            subscription_takeover: Duration::from_secs(5),
            subscription_heartbeat: Duration::from_secs(5),
            trim_interval: Duration::from_secs(1),
            account_id: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            fault_seed: 0,
            allow_public: false,
        }
    }
}

impl EmulatorConfig {
    /// The ARN of a stream of this name.
    pub(crate) fn stream_arn(&self, name: &str) -> String {
        format!("arn:aws:kinesis:{}:{}:stream/{name}", self.region, self.account_id)
    }
}

/// A duration in whole milliseconds, saturating.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock in milliseconds since 1970; 0 before.
pub(crate) fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, millis)
}
