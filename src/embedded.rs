//! Kinesis and DynamoDB inside the process, on threads and a runtime of their own, with state on local disk.
//!
//! For `local`, `demo` and tests. The data folder is locked: one process at a time. Nothing here is known to the stages;
//! they see two endpoint URLs.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig};
use tokio::sync::oneshot;

use crate::aws::{Clients, Endpoints};
use crate::config::StreamNames;

/// Shards of the flows stream; one per core of a small machine is plenty for one process.
const FLOWS_SHARDS: i32 = 2;

/// The running services. Dropping it ends them as a kill would; their data stays.
#[derive(Debug)]
pub struct Embedded {
    endpoints: Endpoints,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// Where others find the endpoints.
    note: PathBuf,
    _lock: File,
}

/// File of the data folder in which running services note their endpoints.
const ENDPOINTS: &str = "endpoints.json";

impl Embedded {
    /// Starts both services over a data folder, which is made if it is absent.
    ///
    /// # Errors
    /// The folder cannot be made or is in use, or a service cannot start.
    pub async fn start(data_dir: &Path) -> anyhow::Result<Self> {
        let lock = lock(data_dir)?;
        let (ready, started) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let folder = data_dir.to_path_buf();
        let thread = std::thread::Builder::new().name("embedded-aws".into()).spawn(move || {
            // Two threads: a slow table write must not hold up a stream.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(serve(folder, ready, stopped)),
                Err(error) => {
                    // The receiver is only gone when nobody waits for the services any more.
                    ready.send(Err(error.into())).ok();
                }
            }
        })?;
        let endpoints = started.await.context("the embedded services ended at their start")??;
        let note = data_dir.join(ENDPOINTS);
        // Renamed into place: who reads it sees the old one or the whole new one.
        let written = data_dir.join("endpoints.json.new");
        std::fs::write(&written, serde_json::to_vec(&endpoints)?)
            .and_then(|()| std::fs::rename(&written, &note))
            .with_context(|| format!("file {}", note.display()))?;
        Ok(Self { endpoints, stop: Some(stop), thread: Some(thread), note, _lock: lock })
    }

    /// The endpoints of the services that another process runs over this data folder; `None` when nobody uses it.
    ///
    /// # Errors
    /// It is used, but by a process that has not said where it listens (yet).
    pub fn running(data_dir: &Path) -> anyhow::Result<Option<Endpoints>> {
        let path = data_dir.join("lock");
        let Ok(file) = File::open(&path) else { return Ok(None) };
        match file.try_lock_shared() {
            Ok(()) => return Ok(None),
            Err(std::fs::TryLockError::WouldBlock) => {}
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(error).context(format!("lock file {}", path.display()));
            }
        }
        let note = data_dir.join(ENDPOINTS);
        let text = std::fs::read(&note).with_context(|| {
            format!(
                "data folder {} is used by another flowshift that is starting or ending; try again",
                data_dir.display()
            )
        })?;
        let endpoints = serde_json::from_slice(&text).with_context(|| format!("file {}", note.display()))?;
        Ok(Some(endpoints))
    }

    /// Where they listen.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Makes the job's streams if they are absent and waits until they can be used.
    ///
    /// # Errors
    /// A stream cannot be made.
    pub async fn create_streams(clients: &Clients, streams: &StreamNames) -> anyhow::Result<()> {
        for (name, shards) in [(&streams.flows, FLOWS_SHARDS), (&streams.exchange, 1), (&streams.evidence, 1)] {
            let made = clients.kinesis.create_stream().stream_name(name).shard_count(shards).send().await;
            if let Err(error) = made {
                let exists = error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception());
                if !exists {
                    return Err(anyhow!(error).context(format!("stream {name} cannot be made")));
                }
            }
        }
        Ok(())
    }

    /// Ends both services.
    pub async fn stop(mut self) {
        // Left behind by a kill it does no harm: without the lock nobody believes it.
        std::fs::remove_file(&self.note).ok();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Joining a thread that ends on its own runtime must not block ours.
            if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
                tracing::warn!("the embedded services did not end cleanly");
            }
        }
    }
}

fn lock(data_dir: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(data_dir).with_context(|| format!("data folder {}", data_dir.display()))?;
    let path = data_dir.join("lock");
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("lock file {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!(
                "data folder {} is used by another flowshift; stop it or choose another --data-dir",
                data_dir.display()
            )
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error).context(format!("lock file {}", path.display())),
    }
}

async fn serve(folder: PathBuf, ready: oneshot::Sender<anyhow::Result<Endpoints>>, stopped: oneshot::Receiver<()>) {
    let started = async {
        let config = EmulatorConfig {
            data_dir: Some(folder.join("kinesis")),
            retention: Duration::from_secs(24 * 3600),
            ..EmulatorConfig::default()
        };
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let kinesis = Emulator::start(config, loopback).await.context("Kinesis emulator")?;
        let file = folder.join("dynamodb.sqlite");
        let path = file.to_str().with_context(|| format!("path {} is not UTF-8", file.display()))?;
        let database = dynoxide::Database::new(path).map_err(|e| anyhow!("embedded DynamoDB: {e}"))?;
        let listener = tokio::net::TcpListener::bind(loopback).await.context("embedded DynamoDB")?;
        let dynamodb = format!("http://{}", listener.local_addr()?);
        anyhow::Ok((kinesis, database, listener, dynamodb))
    };
    let (kinesis, database, listener, dynamodb) = match started.await {
        Ok(parts) => parts,
        Err(error) => {
            ready.send(Err(error)).ok();
            return;
        }
    };
    let endpoints = Endpoints { kinesis: kinesis.endpoint_url(), dynamodb };
    if ready.send(Ok(endpoints)).is_err() {
        return;
    }
    let until = async {
        // The sender is dropped to stop; a message is never sent.
        stopped.await.ok();
    };
    if let Err(error) = dynoxide::server::serve_with_shutdown(listener, database, until).await {
        tracing::error!(error = %error, "embedded DynamoDB ended with an error");
    }
    kinesis.shutdown().await;
}
