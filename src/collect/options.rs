//! Limits of the collector.

use std::time::Duration;

/// How much a client may send and how much memory all of them may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectOptions {
    /// Largest body as sent, bytes; 10 MiB.
    pub max_body_bytes: usize,
    /// Largest body after decompression, bytes; 32 MiB. Must not be above what the pipeline's decoder takes.
    pub max_decoded_bytes: usize,
    /// Bodies held at once, bytes; 128 MiB. More is answered 429. At least `max_body_bytes`.
    pub max_held_bytes: usize,
    /// Bodies decoded at once, at least 1; 2. Bounds decompressed bytes to this times `max_decoded_bytes`.
    pub decoders: usize,
    /// Longest time for a body to arrive; 20 s.
    pub body_timeout: Duration,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self {
            max_body_bytes: 10 << 20,
            max_decoded_bytes: 32 << 20,
            max_held_bytes: 128 << 20,
            decoders: 2,
            body_timeout: Duration::from_secs(20),
        }
    }
}
