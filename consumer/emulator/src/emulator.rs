//! Starting and stopping an emulator.
//!
//! Invariant: a data directory is used by one emulator at a time (a lock on a file in it), and once an [`Emulator`]
//! is dropped or shut down it writes nothing more, so that the next may open the directory at once.

use std::{
    fs::{self, File, TryLockError},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    config::EmulatorConfig,
    faults::Faults,
    meta::MetaError,
    server::{self, CuttableListener, Cutter},
    service::Service,
    stats::Stats,
};

/// How long [`Emulator::shutdown`] waits for answers under way.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);

/// An emulator that did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Other machines could reach the address, and `allow_public` is not set.
    #[error("address {0} is not on this machine only and there is no authentication")]
    NotLoopback(SocketAddr),
    /// A setting out of its range.
    #[error("{setting} must be at least {least}")]
    Setting {
        /// The name of the field.
        setting: &'static str,
        /// The least value.
        least: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address wanted.
        addr: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another emulator uses the data directory.
    #[error("data directory {0} is in use")]
    InUse(PathBuf),
    /// The data directory cannot be made or locked.
    #[error("cannot use the data directory {path}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What the data directory holds cannot be read.
    #[error("cannot open the stored streams")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<MetaError> for StartError {
    fn from(error: MetaError) -> Self {
        Self::Storage(Box::new(error))
    }
}

/// A running emulator. Dropping it is like killing it: connections are cut, and what was acknowledged is kept.
#[derive(Debug)]
pub struct Emulator {
    addr: SocketAddr,
    service: Arc<Service>,
    server: Option<JoinHandle<()>>,
    /// Locked while the emulator lives.
    _lock: Option<File>,
}

impl Emulator {
    /// Starts an emulator on `addr` (port 0 takes a free one) within the current tokio runtime.
    ///
    /// Operations run on the runtime's threads and read and write files there; with files in the page cache the
    /// longest, a read of 10 MiB, takes a few tens of milliseconds.
    ///
    /// # Errors
    /// When a setting or the address is refused, or the data directory cannot be used; see [`StartError`].
    pub async fn start(config: EmulatorConfig, addr: SocketAddr) -> Result<Self, StartError> {
        check(&config, addr)?;
        let lock = config.data_dir.as_deref().map(lock_dir).transpose()?;
        let trim_interval = config.trim_interval;
        let service = Arc::new(Service::open(config)?);
        let listener = TcpListener::bind(addr).await.map_err(|source| StartError::Listen { addr, source })?;
        let addr = listener.local_addr().map_err(|source| StartError::Listen { addr, source })?;

        let app = server::router(Arc::clone(&service)).into_make_service_with_connect_info::<Cutter>();
        let stopped = service.stopping.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            let serving = axum::serve(CuttableListener(listener), app).with_graceful_shutdown(stopped);
            if let Err(error) = serving.await {
                tracing::error!(%error, "the emulator's server ended");
            }
        });
        tokio::spawn(trim(Arc::downgrade(&service), trim_interval));
        Ok(Self { addr, service, server: Some(server), _lock: lock })
    }

    /// The URL for an SDK's endpoint override.
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The fault rules; changes apply to the next call.
    pub fn faults(&self) -> &Faults {
        &self.service.faults
    }

    /// What it has counted so far.
    pub fn stats(&self) -> Stats {
        self.service.counters.snapshot()
    }

    /// Ends subscriptions, lets calls under way finish for up to two seconds, and stops.
    pub async fn shutdown(mut self) {
        self.service.stopping.cancel();
        if let Some(mut server) = self.server.take()
            && tokio::time::timeout(SHUTDOWN_PATIENCE, &mut server).await.is_err()
        {
            tracing::debug!("connections were still open at the end");
            server.abort();
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.service.power_off();
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

fn check(config: &EmulatorConfig, addr: SocketAddr) -> Result<(), StartError> {
    if !addr.ip().is_loopback() && !config.allow_public {
        return Err(StartError::NotLoopback(addr));
    }
    let refused = |setting, least| Err(StartError::Setting { setting, least });
    if config.retention < Duration::from_millis(1) {
        return refused("retention", "1 ms");
    }
    if config.max_stream_bytes < 64 << 10 {
        return refused("max_stream_bytes", "64 KiB");
    }
    if config.trim_interval < Duration::from_millis(1) {
        return refused("trim_interval", "1 ms");
    }
    if config.max_shards_per_stream == 0 {
        return refused("max_shards_per_stream", "1");
    }
    Ok(())
}

/// Takes the directory for this emulator; the lock goes with the file, also when the process is killed.
fn lock_dir(dir: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::DataDir { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    let file = File::options().create(true).append(true).open(dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Removes expired records now and then, as long as the emulator lives.
async fn trim(service: Weak<Service>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(service) = service.upgrade() else { return };
        if service.powered().is_none() {
            return;
        }
        service.trim();
    }
}
