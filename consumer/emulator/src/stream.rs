//! One stream: its shards by hash range, its status, its consumers, and putting records into it.
//!
//! A put holds the topology for reading and a reshard holds it for writing, so no record can be routed to a shard
//! that closes meanwhile. Invariants: the open shards cover the hash space without overlap; a change is on disk
//! before it is visible. Resharding itself is in [`crate::reshard`].

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    config::{EmulatorConfig, millis, now_ms},
    error::ApiError,
    ids::{HashKey, HashRange, Position, SequenceNumber, ShardIndex},
    meta::{Consumer, MetaError, StreamMeta},
    shard::{Refusal, Shard, ShardSpec},
    stats::Counters,
    storage::NewRecord,
    sync::{read, write},
};

/// A stream's state as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Active,
    Updating,
    Deleting,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Active => "ACTIVE",
            Self::Updating => "UPDATING",
            Self::Deleting => "DELETING",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) created_ms: u64,
    pub(crate) config: Arc<EmulatorConfig>,
    dir: Option<PathBuf>,
    counters: Arc<Counters>,
    /// Bytes of all frames in all shards.
    bytes: AtomicU64,
    topology: RwLock<Topology>,
}

/// Everything about a stream that an operation may change.
#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) on_demand: bool,
    pub(crate) retention_ms: u64,
    pub(crate) next_index: u32,
    /// What the stream is until `busy_until_ms`; DELETING stays.
    pub(crate) phase: Status,
    pub(crate) busy_until_ms: u64,
    /// Every shard whose records have not all expired.
    pub(crate) shards: BTreeMap<ShardIndex, Arc<Shard>>,
    /// The open shards in order of their hash ranges.
    pub(crate) open: Vec<Arc<Shard>>,
    pub(crate) consumers: BTreeMap<String, Consumer>,
}

/// A record to put, checked and routed by `hash`.
#[derive(Debug)]
pub(crate) struct PutRecord<'a> {
    pub(crate) partition_key: &'a str,
    pub(crate) data: Vec<u8>,
    pub(crate) hash: HashKey,
}

/// One answer of a put: the shard that was meant, and what it said.
pub(crate) type PutAnswer = (ShardIndex, Result<SequenceNumber, Refusal>);

impl Topology {
    pub(crate) fn status(&self) -> Status {
        if self.phase == Status::Deleting || now_ms() < self.busy_until_ms { self.phase } else { Status::Active }
    }

    pub(crate) fn set_phase(&mut self, phase: Status, config: &EmulatorConfig) {
        self.phase = phase;
        self.busy_until_ms = now_ms().saturating_add(millis(config.transition_delay));
    }

    /// Puts the open shards in order of hash ranges again.
    pub(crate) fn index_open(&mut self) {
        self.open = self.shards.values().filter(|s| s.is_open()).cloned().collect();
        self.open.sort_by_key(|s| s.spec.range.start);
    }

    fn route(&self, hash: HashKey) -> Option<usize> {
        self.open.partition_point(|s| s.spec.range.start <= hash).checked_sub(1)
    }
}

impl Stream {
    /// A new stream with `shards` open shards of equal size.
    pub(crate) fn create(
        meta: StreamMeta,
        shards: u32,
        dir: Option<PathBuf>,
        config: Arc<EmulatorConfig>,
        counters: Arc<Counters>,
    ) -> Result<Self, MetaError> {
        // Numbers of a re-created stream lie above those of its predecessor.
        let start = Position(meta.created_ms << 20);
        let (created_ms, stream) = (meta.created_ms, Self::open(meta, dir, config, counters)?);
        {
            let mut topology = write(&stream.topology);
            for range in HashRange::uniform(shards) {
                let index = ShardIndex(topology.next_index);
                topology.next_index += 1;
                let spec =
                    ShardSpec { index, parent: None, adjacent_parent: None, range, opened_ms: created_ms, start };
                let shard = stream.open_shard(spec)?;
                topology.shards.insert(index, shard);
            }
            topology.index_open();
            topology.set_phase(Status::Creating, &stream.config);
            stream.save(&topology)?;
        }
        Ok(stream)
    }

    /// The stream that `meta` describes, with the records in `dir`.
    pub(crate) fn open(
        meta: StreamMeta,
        dir: Option<PathBuf>,
        config: Arc<EmulatorConfig>,
        counters: Arc<Counters>,
    ) -> Result<Self, MetaError> {
        let mut topology = Topology {
            on_demand: meta.on_demand,
            retention_ms: meta.retention_ms,
            next_index: meta.next_index,
            phase: if meta.deleting { Status::Deleting } else { Status::Updating },
            busy_until_ms: meta.busy_until_ms,
            shards: BTreeMap::new(),
            open: Vec::new(),
            consumers: meta.consumers.iter().map(|c| (c.name.clone(), c.clone())).collect(),
        };
        let mut bytes = 0;
        for (spec, closed) in meta.shards(dir.as_deref().unwrap_or(std::path::Path::new("")))? {
            let shard_dir = dir.as_ref().map(|d| d.join(spec.index.to_string()));
            let shard = Shard::open(spec, closed, shard_dir, &config)?;
            bytes += shard.lock().log.bytes();
            topology.shards.insert(shard.spec.index, shard);
        }
        topology.index_open();
        Ok(Self {
            arn: config.stream_arn(&meta.name),
            name: meta.name,
            created_ms: meta.created_ms,
            config,
            dir,
            counters,
            bytes: AtomicU64::new(bytes),
            topology: RwLock::new(topology),
        })
    }

    /// Opens the log of a shard of this stream.
    pub(crate) fn open_shard(&self, spec: ShardSpec) -> Result<Arc<Shard>, MetaError> {
        let dir = self.dir.as_ref().map(|d| d.join(spec.index.to_string()));
        Ok(Shard::open(spec, None, dir, &self.config)?)
    }

    /// Writes the description of the stream; does nothing in memory.
    pub(crate) fn save(&self, topology: &Topology) -> Result<(), MetaError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let mut meta = StreamMeta::new(&self.name, self.created_ms, topology.on_demand, topology.retention_ms);
        meta.next_index = topology.next_index;
        meta.deleting = topology.phase == Status::Deleting;
        meta.busy_until_ms = topology.busy_until_ms;
        meta.consumers = topology.consumers.values().cloned().collect();
        for shard in topology.shards.values() {
            meta.add_shard(&shard.spec, shard.lock().closed.as_ref());
        }
        meta.save(dir)
    }

    /// Whatever the stream's status is.
    pub(crate) fn topology(&self) -> RwLockReadGuard<'_, Topology> {
        read(&self.topology)
    }

    /// For operations on records, which need a stream that is ready.
    pub(crate) fn ready(&self) -> Result<RwLockReadGuard<'_, Topology>, ApiError> {
        let topology = read(&self.topology);
        match topology.status() {
            Status::Active | Status::Updating => Ok(topology),
            Status::Creating | Status::Deleting => Err(self.not_found()),
        }
    }

    /// Changes an active stream: `change` works on the topology, then it is saved; when either fails, `undo` runs.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Topology) -> Result<T, ApiError>,
        undo: impl FnOnce(&mut Topology),
    ) -> Result<T, ApiError> {
        let mut topology = write(&self.topology);
        match topology.status() {
            Status::Active => {}
            Status::Deleting => return Err(self.not_found()),
            status => return Err(self.busy(status)),
        }
        let result = change(&mut topology);
        let result = result.and_then(|value| self.save(&topology).map(|()| value).map_err(|e| storage_failure(&e)));
        if result.is_err() {
            undo(&mut topology);
        }
        result
    }

    /// Marks the stream as being deleted, whatever it does; wakes its subscriptions.
    pub(crate) fn start_deleting(&self) -> Result<(), ApiError> {
        let mut topology = write(&self.topology);
        topology.set_phase(Status::Deleting, &self.config);
        self.save(&topology).map_err(|e| storage_failure(&e))?;
        topology.shards.values().for_each(|s| s.notify());
        Ok(())
    }

    /// Whether the time of DELETING is over.
    pub(crate) fn is_deleted(&self) -> bool {
        let topology = read(&self.topology);
        topology.phase == Status::Deleting && now_ms() >= topology.busy_until_ms
    }

    /// Removes the stream's files.
    pub(crate) fn remove_files(&self) {
        if let Some(dir) = &self.dir
            && let Err(error) = StreamMeta::remove(dir)
        {
            tracing::warn!(stream = %self.name, %error, "cannot remove a deleted stream's files");
        }
    }

    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found(format!("Stream {} under account {} not found.", self.name, self.config.account_id))
    }

    fn busy(&self, status: Status) -> ApiError {
        let account = &self.config.account_id;
        ApiError::in_use(format!(
            "Stream {} under account {account} not ACTIVE, instead in state {}",
            self.name,
            status.as_str()
        ))
    }

    /// Finds a shard of a stream that is ready.
    pub(crate) fn shard(&self, index: ShardIndex) -> Result<Arc<Shard>, ApiError> {
        self.ready()?.shards.get(&index).cloned().ok_or_else(|| self.no_shard(&index.to_string()))
    }

    pub(crate) fn no_shard(&self, shard: &str) -> ApiError {
        let account = &self.config.account_id;
        ApiError::not_found(format!("Could not find shard {shard} in stream {} under account {account}.", self.name))
    }

    /// Puts records, each into the shard that owns its hash key; `fail` names records to refuse as throttled.
    /// Records for one shard keep their order and become visible together.
    pub(crate) fn put(
        &self,
        records: &[PutRecord<'_>],
        fail: impl Fn(usize, ShardIndex) -> bool,
    ) -> Result<Vec<PutAnswer>, ApiError> {
        let topology = self.ready()?;
        let mut answers: Vec<PutAnswer> = Vec::with_capacity(records.len());
        let mut by_shard: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, record) in records.iter().enumerate() {
            let route = topology.route(record.hash).ok_or_else(|| ApiError::internal("no shard owns the hash key"))?;
            let shard = topology.open[route].spec.index;
            answers.push((shard, Err(Refusal::Throttled)));
            if !fail(i, shard) {
                by_shard.entry(route).or_default().push(i);
            }
        }
        for (route, indices) in by_shard {
            let batch: Vec<NewRecord<'_>> = indices
                .iter()
                .map(|i| NewRecord { partition_key: records[*i].partition_key, data: &records[*i].data })
                .collect();
            let stored = topology.open[route].append(&batch);
            let mut bytes = 0;
            for (answer, (i, record)) in stored.into_iter().zip(indices.iter().zip(&batch)) {
                if answer.is_ok() {
                    bytes += crate::storage::OVERHEAD + record.partition_key.len() + record.data.len();
                }
                answers[*i].1 = answer;
            }
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        let accepted = answers.iter().filter(|(_, answer)| answer.is_ok()).count() as u64;
        self.counters.records_in.add(accepted);
        self.counters.records_refused.add(records.len() as u64 - accepted);
        self.hold_size(&topology);
        Ok(answers)
    }

    /// Drops the oldest segments while the stream is larger than allowed.
    fn hold_size(&self, topology: &Topology) {
        while self.bytes.load(Ordering::Relaxed) > self.config.max_stream_bytes {
            let oldest = topology
                .shards
                .values()
                .filter_map(|s| Some((s.lock().log.oldest_arrival_ms()?, s)))
                .min_by_key(|o| o.0);
            let Some(trimmed) = oldest.and_then(|(_, shard)| shard.lock().log.trim_oldest()) else { return };
            self.bytes.fetch_sub(trimmed.bytes, Ordering::Relaxed);
            self.counters.records_dropped_by_size.add(trimmed.records);
            tracing::warn!(stream = %self.name, records = trimmed.records, "stream is full, dropped its oldest records");
        }
    }

    /// Removes expired records, and closed shards whose last record has expired.
    pub(crate) fn trim(&self) {
        let mut gone = Vec::new();
        {
            let topology = read(&self.topology);
            let cutoff_ms = now_ms().saturating_sub(topology.retention_ms);
            for shard in topology.shards.values() {
                let mut state = shard.lock();
                let trimmed = state.log.trim_before(cutoff_ms);
                self.bytes.fetch_sub(trimmed.bytes, Ordering::Relaxed);
                self.counters.records_expired.add(trimmed.records);
                if state.closed.as_ref().is_some_and(|c| c.at_ms < cutoff_ms) {
                    gone.push(shard.spec.index);
                }
            }
        }
        if !gone.is_empty() {
            self.forget(&gone);
        }
    }

    fn forget(&self, gone: &[ShardIndex]) {
        let mut topology = write(&self.topology);
        let removed: Vec<_> = gone.iter().filter_map(|index| topology.shards.remove(index)).collect();
        if let Err(error) = self.save(&topology) {
            tracing::warn!(stream = %self.name, %error, "cannot forget expired shards yet");
            topology.shards.extend(removed.into_iter().map(|s| (s.spec.index, s)));
            return;
        }
        for shard in removed {
            let trimmed = shard.lock().log.remove();
            self.bytes.fetch_sub(trimmed.bytes, Ordering::Relaxed);
            self.counters.records_expired.add(trimmed.records);
            if let Some(dir) = &self.dir {
                let dir = dir.join(shard.spec.index.to_string());
                if dir.exists()
                    && let Err(error) = std::fs::remove_dir(&dir)
                {
                    tracing::warn!(path = %dir.display(), %error, "cannot remove an expired shard's folder");
                }
            }
        }
    }
}

/// The disk failed an operation; the details go to the log, not to the client.
pub(crate) fn storage_failure(error: &dyn std::error::Error) -> ApiError {
    tracing::error!(%error, source = ?error.source(), "storage failure");
    ApiError::internal("the emulator could not read or write its files")
}
