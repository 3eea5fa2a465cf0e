//! Every metric of the program: one registry, and one file per component that names its metrics.
//!
//! A component's file is the only place where the name, help text, unit and labels of its metrics stand. Names start
//! with `flowshift_`, units are base units (seconds, bytes), and labels have closed or small sets of values: a shard or
//! an endpoint may be a label, a subnet only where it was asked for ([`pairs`]). Components count per batch, not per record.
//!
//! Not here: the HTTP side (`admin`), and what the numbers mean for health (`admin::Health`).
//!
//! Reading order: [`Metrics`] (the whole set), [`pipeline`], [`paths`], [`pairs`], [`collect`], [`webhook`], then `register`.

pub mod collect;
pub mod pairs;
pub mod paths;
pub mod pipeline;
pub mod webhook;

mod register;
mod set;
mod traffic;

pub use register::{Described, MetricsError, Registrar};
pub use set::Metrics;
