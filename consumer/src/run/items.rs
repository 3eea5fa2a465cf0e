//! Keys of the state table's items that hold no state: who works, who lives, who leads.
//!
//! Not here: what stands in them ([`super::beat`] writes the list and the beats, the leader's lock its own) and the
//! keys of state ([`crate::commit`]). Invariant: no stream's state key is one of these, for it begins with the stream's
//! identity.

/// The item that lists the workers.
pub(crate) const WORKERS: &str = "workers";
/// The item that holds the leader's lock.
pub(crate) const LOCK: &str = "leader";

/// The item that holds a worker's beat and bell.
pub(crate) fn worker_key(worker: &str) -> String {
    format!("worker/{worker}")
}
