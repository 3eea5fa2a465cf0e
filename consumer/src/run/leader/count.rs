//! Counts the open shards on both sides of the exchange, from the rows of a pass, and publishes them.
//!
//! Mappers go by what is published and not by what they see, so all of them wait for as long, and a reshard moves it
//! for all. A worker that cannot read it goes on as before. Not here: what follows from the counts
//! ([`ShardCounts`](crate::exchange::ShardCounts)).

use std::collections::BTreeSet;

use super::Leader;
use crate::exchange::ShardCounts;
use crate::lease::{Checkpoint, LeaseRow};
use crate::run::{DriveError, roster};
use crate::shard::ShardId;

impl Leader {
    /// Publishes how many shards lie on both sides of the exchange: when that changed, and now and then again in case
    /// an earlier leader's write landed late.
    pub(super) async fn count_shards(
        &mut self,
        tables: &[(String, Vec<LeaseRow>)],
        due: bool,
    ) -> Result<(), DriveError> {
        let Some(control) = &self.control else { return Ok(()) };
        let open = |name: &str| tables.iter().find(|(stream, _)| stream == name).map(|(_, rows)| open_shards(rows));
        let (input, exchange) = control.streams();
        let Some((input, exchange)) = open(input).zip(open(exchange)) else { return Ok(()) };
        let counts = ShardCounts { input, exchange };
        if due || self.counted != Some(counts) {
            roster::publish_counts(&*self.parts.table, &self.parts.config, counts).await?;
            self.counted = Some(counts);
        }
        Ok(())
    }
}

/// Shards that records are put into, as far as there are rows: those without a child.
fn open_shards(rows: &[LeaseRow]) -> u64 {
    let parents: BTreeSet<&ShardId> = rows.iter().flat_map(|row| &row.parents).collect();
    rows.iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd && !parents.contains(&row.shard)).count() as u64
}
