//! All streams of one emulator, and what every operation shares: settings, counters, faults, the power switch.
//!
//! Invariant: once [`Service::power_off`] has returned, nothing is written any more, so that another emulator may
//! open the directory; operations take the gate for reading and hold it only while they run, never across an await.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, RwLock, RwLockReadGuard},
};

use tokio_util::sync::CancellationToken;

use crate::{
    api::subscribe::Subscriptions,
    config::{EmulatorConfig, millis, now_ms},
    error::ApiError,
    faults::Faults,
    meta::{MetaError, StreamMeta},
    stats::Counters,
    storage::StorageError,
    stream::{Status, Stream, storage_failure},
    sync::{read, write},
};

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) config: Arc<EmulatorConfig>,
    pub(crate) faults: Faults,
    pub(crate) counters: Arc<Counters>,
    pub(crate) subscriptions: Mutex<Subscriptions>,
    /// Cancelled when the emulator stops; ends subscriptions.
    pub(crate) stopping: CancellationToken,
    streams: RwLock<BTreeMap<String, Arc<Stream>>>,
    dir: Option<PathBuf>,
    /// False once the emulator is off.
    power: RwLock<bool>,
}

impl Service {
    /// Opens what is in the data directory.
    pub(crate) fn open(config: EmulatorConfig) -> Result<Self, MetaError> {
        let config = Arc::new(config);
        let dir = config.data_dir.as_ref().map(|d| d.join("streams"));
        let service = Self {
            faults: Faults::new(config.fault_seed),
            counters: Arc::default(),
            subscriptions: Mutex::default(),
            stopping: CancellationToken::new(),
            streams: RwLock::default(),
            power: RwLock::new(true),
            dir,
            config,
        };
        if let Some(dir) = &service.dir {
            fs::create_dir_all(dir).map_err(StorageError::io("create", dir))?;
            let mut streams = write(&service.streams);
            for entry in fs::read_dir(dir).map_err(StorageError::io("list", dir))? {
                let path = entry.map_err(StorageError::io("list", dir))?.path();
                let Some(meta) = StreamMeta::load(&path)? else {
                    // A kill between creating the folder and describing it, or during deletion.
                    tracing::warn!(path = %path.display(), "removing a folder without a stream");
                    StreamMeta::remove(&path)?;
                    continue;
                };
                let stream = Stream::open(meta, Some(path), service.config.clone(), service.counters.clone())?;
                streams.insert(stream.name.clone(), Arc::new(stream));
            }
        }
        Ok(service)
    }

    /// Holds the power on while the guard lives; `None` when it is off.
    pub(crate) fn powered(&self) -> Option<RwLockReadGuard<'_, bool>> {
        Some(read(&self.power)).filter(|on| **on)
    }

    /// Ends everything at once, as a kill would: no operation runs or writes after this returns.
    pub(crate) fn power_off(&self) {
        self.stopping.cancel();
        *write(&self.power) = false;
    }

    /// Every stream by name, without those whose deletion is over.
    pub(crate) fn streams(&self) -> Vec<Arc<Stream>> {
        read(&self.streams).values().filter(|s| !s.is_deleted()).cloned().collect()
    }

    /// Finds a stream by name, whatever its status.
    pub(crate) fn stream(&self, name: &str) -> Result<Arc<Stream>, ApiError> {
        read(&self.streams).get(name).filter(|s| !s.is_deleted()).cloned().ok_or_else(|| {
            ApiError::not_found(format!("Stream {name} under account {} not found.", self.config.account_id))
        })
    }

    pub(crate) fn create_stream(&self, name: &str, shards: u32, on_demand: bool) -> Result<(), ApiError> {
        let mut streams = write(&self.streams);
        let mut created_ms = now_ms();
        if let Some(old) = streams.get(name) {
            if !old.is_deleted() {
                let account = &self.config.account_id;
                return Err(ApiError::in_use(format!("Stream {name} under account {account} already exists.")));
            }
            old.remove_files();
            // The time of creation is part of a stream's identity: iterators of the old one must not fit the new.
            created_ms = created_ms.max(old.created_ms + 1);
            streams.remove(name);
        }
        let dir = self.dir.as_ref().map(|d| d.join(format!("{created_ms}-{name}")));
        let meta = StreamMeta::new(name, created_ms, on_demand, millis(self.config.retention));
        let stream = Stream::create(meta, shards, dir, self.config.clone(), self.counters.clone());
        let stream = stream.map_err(|e| storage_failure(&e))?;
        streams.insert(name.to_owned(), Arc::new(stream));
        Ok(())
    }

    pub(crate) fn delete_stream(&self, stream: &Stream) -> Result<(), ApiError> {
        if stream.topology().status() == Status::Deleting {
            return Err(ApiError::in_use(format!("Stream {} is being deleted.", stream.name)));
        }
        stream.start_deleting()
    }

    /// Removes what has expired or was deleted; called now and then.
    pub(crate) fn trim(&self) {
        let Some(_power) = self.powered() else { return };
        for stream in self.streams() {
            stream.trim();
        }
        let mut streams = write(&self.streams);
        streams.retain(|_, stream| {
            let deleted = stream.is_deleted();
            if deleted {
                stream.remove_files();
            }
            !deleted
        });
    }
}
