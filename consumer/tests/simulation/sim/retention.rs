//! A calm run that outlives the shards it began with.

use std::collections::BTreeSet;
use std::time::Duration;

use flowshift_consumer::inspect;
use flowshift_consumer::lease::Checkpoint;
use flowshift_consumer::log::Log;
use flowshift_consumer::shard::ShardId;
use flowshift_consumer::table::Table;

use super::port::Faults;
use super::world::{EXCHANGE, INPUT, Roles, World, tables};

const SECOND: Duration = Duration::from_secs(1);

impl World {
    /// Every shard of both streams is split; the old ones leave their streams: rows stay, and go.
    pub(crate) async fn reshard_and_outlive_retention(&mut self) -> Result<(), String> {
        self.start(Roles::All, Faults::default());
        self.produce_slowly(100).await;
        let streams = [INPUT, EXCHANGE];
        let mut old = Vec::new();
        for stream in streams {
            for shard in self.log.shards(stream).await.map_err(|e| e.to_string())? {
                self.log.split(stream, &shard.id);
                old.push((stream, shard.id));
            }
        }
        self.produce_slowly(100).await;
        tokio::time::sleep(60 * SECOND).await;
        for (stream, shard) in &old {
            let row = self.row(stream, shard).await?.ok_or(format!("row of {shard} went before its records"))?;
            if row.checkpoint != Checkpoint::ShardEnd {
                return Err(format!("{shard} of {stream} was not read to its end"));
            }
        }
        // The rows of an input's children without a cut: they are not yet on their own.
        self.kill(0);
        old.iter().for_each(|(stream, shard)| self.log.expire(stream, shard));
        let epochs = self.kept("/epoch").await?;
        self.start(Roles::All, Faults::default());
        self.produce_slowly(100).await;
        tokio::time::sleep(90 * SECOND).await;
        for (stream, shard) in &old {
            if self.row(stream, shard).await?.is_some() {
                return Err(format!("row of {shard} of {stream} is still there"));
            }
        }
        // A lane's chunks went on to a child, under the lane's key; what is named by the shard has gone.
        let named = |key: &String| {
            old.iter().any(|(stream, shard)| key.contains(&format!("{stream}:")) && key.contains(shard.as_str()))
        };
        let left: Vec<String> =
            self.kept("").await?.into_iter().filter(named).filter(|k| !k.ends_with("/epoch")).collect();
        if !left.is_empty() {
            return Err(format!("left behind: {left:?}"));
        }
        match epochs.difference(&self.kept("/epoch").await?).next() {
            Some(lost) => Err(format!("the highest epoch {lost} is forgotten")),
            None => Ok(()),
        }
    }

    async fn row(&self, stream: &str, shard: &ShardId) -> Result<Option<flowshift_consumer::lease::LeaseRow>, String> {
        let rows = inspect::rows(&*self.table, &tables(), stream).await.map_err(|e| e.to_string())?;
        Ok(rows.into_iter().find(|row| row.shard == *shard))
    }

    /// Keys of the state table that end so.
    async fn kept(&self, end: &str) -> Result<BTreeSet<String>, String> {
        let state = tables().state();
        let items = self.table.scan(&state).await.map_err(|e| e.to_string())?;
        let keys = items.iter().filter_map(|item| item.string(state.key)).filter(|key| key.ends_with(end));
        Ok(keys.map(str::to_owned).collect())
    }
}
