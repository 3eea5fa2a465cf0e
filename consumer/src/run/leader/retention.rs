//! Asks how long the streams keep their records, and publishes it for all workers.
//!
//! Once a term and every hour: a retention is changed by hand, and being late with it is allowed for
//! ([`Retention`](crate::run::retention::Retention)). A stream that cannot be asked changes nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::Leader;
use crate::run::retention::Retentions;
use crate::run::{DriveError, roster};

const EVERY: Duration = Duration::from_secs(3_600);

impl Leader {
    /// Publishes the streams' retention when it is time.
    pub(super) async fn ask_retention(&mut self, due: bool) -> Result<(), DriveError> {
        if !due || self.asked_retention.is_some_and(|at| at.elapsed() < EVERY) {
            return Ok(());
        }
        let mut kept = Retentions::new();
        for stream in &self.parts.streams {
            match self.parts.log.retention(stream).await {
                Ok(Duration::ZERO) => {}
                Ok(retention) => drop(kept.insert(stream.clone(), retention)),
                Err(e) => {
                    tracing::warn!(stream, error = %e, "retention cannot be read, trying again");
                    return Ok(());
                }
            }
        }
        roster::publish_retention(&*self.parts.table, &self.parts.config, &kept).await?;
        self.asked_retention = Some(Instant::now());
        Ok(())
    }
}
