//! A thread for what must not wait behind a computing stage: lease renewals and commits, beats, the leader's lock.
//!
//! It has a runtime of its own, so it must be given a table client of its own: a connection is driven by the runtime
//! that opened it. Invariant: nothing that computes runs here.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The thread; dropping it ends its runtime, so keep it until [`Worker::run`](super::Worker::run) has returned.
#[derive(Debug)]
pub struct RenewalThread {
    handle: Handle,
    _stop: DropGuard,
}

impl RenewalThread {
    /// Starts a thread of this name with a runtime of one thread.
    ///
    /// # Errors
    /// The system gives no thread, or no runtime can be built.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(Self { handle, _stop: stop.drop_guard() })
    }

    /// For [`Worker::renewals_on`](super::Worker::renewals_on).
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}
