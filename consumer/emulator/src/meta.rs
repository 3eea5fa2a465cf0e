//! What a stream is, on disk: `meta.json` in the stream's folder.
//!
//! The file is written beside and renamed over the old one, so it is whole at every moment. It is written before a
//! change is visible to clients; the records themselves are in the shards' logs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{HashKey, HashRange, Position, ShardIndex},
    shard::{Closed, ShardSpec},
    storage::StorageError,
};

const FILE: &str = "meta.json";
const TEMPORARY: &str = "meta.json.new";
/// The version of the format; a file of another version is refused.
const VERSION: u32 = 1;

/// A stream's description cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetaError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("{path} is not a stream's description")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{path} has version {found}, not {VERSION}")]
    Version { path: PathBuf, found: u32 },
    #[error("{path} has the bad hash key {value:?}")]
    HashKey { path: PathBuf, value: String },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StreamMeta {
    version: u32,
    pub(crate) name: String,
    /// Milliseconds since 1970; with the name, the identity of the stream.
    pub(crate) created_ms: u64,
    pub(crate) on_demand: bool,
    pub(crate) retention_ms: u64,
    pub(crate) next_index: u32,
    pub(crate) deleting: bool,
    pub(crate) busy_until_ms: u64,
    pub(crate) consumers: Vec<Consumer>,
    shards: Vec<ShardMeta>,
}

/// A registered consumer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Consumer {
    pub(crate) name: String,
    pub(crate) created_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ShardMeta {
    index: ShardIndex,
    parent: Option<ShardIndex>,
    adjacent_parent: Option<ShardIndex>,
    start_hash: String,
    end_hash: String,
    opened_ms: u64,
    start: Position,
    closed: Option<ClosedMeta>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ClosedMeta {
    at_ms: u64,
    ending: Position,
    children: Vec<ShardIndex>,
}

impl StreamMeta {
    /// A description without shards and consumers.
    pub(crate) fn new(name: &str, created_ms: u64, on_demand: bool, retention_ms: u64) -> Self {
        Self {
            version: VERSION,
            name: name.to_owned(),
            created_ms,
            on_demand,
            retention_ms,
            next_index: 0,
            deleting: false,
            busy_until_ms: 0,
            consumers: Vec::new(),
            shards: Vec::new(),
        }
    }

    pub(crate) fn add_shard(&mut self, spec: &ShardSpec, closed: Option<&Closed>) {
        self.shards.push(ShardMeta {
            index: spec.index,
            parent: spec.parent,
            adjacent_parent: spec.adjacent_parent,
            start_hash: spec.range.start.to_string(),
            end_hash: spec.range.end.to_string(),
            opened_ms: spec.opened_ms,
            start: spec.start,
            closed: closed.map(|c| ClosedMeta { at_ms: c.at_ms, ending: c.ending, children: c.children.clone() }),
        });
    }

    /// The shards, or the first hash key that is none.
    pub(crate) fn shards(&self, dir: &Path) -> Result<Vec<(ShardSpec, Option<Closed>)>, MetaError> {
        let hash = |text: &str| {
            text.parse::<HashKey>().map_err(|_| MetaError::HashKey { path: dir.join(FILE), value: text.to_owned() })
        };
        let mut shards = Vec::with_capacity(self.shards.len());
        for s in &self.shards {
            let spec = ShardSpec {
                index: s.index,
                parent: s.parent,
                adjacent_parent: s.adjacent_parent,
                range: HashRange { start: hash(&s.start_hash)?, end: hash(&s.end_hash)? },
                opened_ms: s.opened_ms,
                start: s.start,
            };
            let closed = s.closed.as_ref();
            let closed = closed.map(|c| Closed { at_ms: c.at_ms, ending: c.ending, children: c.children.clone() });
            shards.push((spec, closed));
        }
        Ok(shards)
    }

    /// Replaces the description in `dir`.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), MetaError> {
        let path = dir.join(FILE);
        let json = serde_json::to_vec_pretty(self).map_err(|source| MetaError::Json { path: path.clone(), source })?;
        fs::create_dir_all(dir).map_err(StorageError::io("create", dir))?;
        let temporary = dir.join(TEMPORARY);
        fs::write(&temporary, json).map_err(StorageError::io("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(StorageError::io("replace", &path))?;
        Ok(())
    }

    /// The description in `dir`; `None` when there is none, as after a kill during creation or deletion.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, MetaError> {
        let path = dir.join(FILE);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("read", &path)(error).into()),
        };
        let meta: Self =
            serde_json::from_slice(&json).map_err(|source| MetaError::Json { path: path.clone(), source })?;
        if meta.version != VERSION {
            return Err(MetaError::Version { path, found: meta.version });
        }
        Ok(Some(meta))
    }

    /// Removes the description, then everything else in `dir`.
    pub(crate) fn remove(dir: &Path) -> Result<(), MetaError> {
        let path = dir.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StorageError::io("remove", &path)(error).into());
            }
            _ => {}
        }
        Ok(fs::remove_dir_all(dir).map_err(StorageError::io("remove", dir))?)
    }
}
