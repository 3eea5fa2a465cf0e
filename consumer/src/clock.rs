//! The one place where wall-clock time enters the engine, as an argument.
//!
//! Monotonic time is tokio's, so that a paused runtime drives it. Wall time is used only to stamp a new lease row with
//! its creation (LATEST becomes AT_TIMESTAMP of it) and with the time it was read to its tip. Two machines' clocks are
//! compared in one place, with hours of margin: whether a record that is gone can be a sign of loss (`run::retention`).

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Source of wall-clock time in epoch milliseconds.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

impl WallClock {
    /// A clock of the caller's.
    pub fn new(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// The system's clock.
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    /// Now, epoch milliseconds.
    pub fn now_ms(&self) -> i64 {
        (self.0)()
    }
}
