//! The engine's metrics: the only place that names them.
//!
//! Base units, bounded labels (stream, shard, table, closed sets of reasons), recorded per batch, commit or call, never
//! per record. A new metric is one line in `names` and one small method beside its like: `reading`
//! (fetch), `leases` (owners and the leader), `state` (commits), `exchange` (batches and lanes), `calls` (AWS).
//! Invariant: what is listed in [`EngineMetrics::ALL`] is registered, and the README says the same (tested).

mod ages;
mod calls;
mod engine;
mod exchange;
mod kind;
mod leases;
mod names;
mod reading;
mod state;

pub use engine::EngineMetrics;
pub use kind::Described;
