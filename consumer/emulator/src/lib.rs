//! Kinesis Data Streams in a process, for local runs and tests.
//!
//! Speaks the JSON 1.1 protocol of the AWS SDKs on a loopback port, with the documented limits of AWS as a switch and
//! faults on demand, and keeps its records on disk if asked. It is no service for production: no authentication, no
//! encryption, and records are handed to the operating system but not synced to the medium.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use flowshift_kinesis_emulator::{Emulator, EmulatorConfig, FaultKind, FaultRule};
//!
//! let emulator = Emulator::start(EmulatorConfig::default(), "127.0.0.1:0".parse()?).await?;
//! println!("point an SDK at {}", emulator.endpoint_url());
//! emulator.faults().add(FaultRule::new(FaultKind::Throttle).on("GetRecords").times(3))?;
//! emulator.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Modules in reading order: `emulator` (start and stop), `server` (HTTP), `api` (the operations), `service` (all
//! streams), `stream` and `reshard` (one stream), `shard` (one shard, and the lock that everything rests on),
//! `storage` (bytes at rest), `meta` (descriptions at rest); beside them `config`, `faults`, `stats`, `throttle`,
//! `iterator` (tokens), `eventstream` (framing), `ids`, `error`, `sync`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod config;
mod emulator;
mod error;
mod eventstream;
mod faults;
mod ids;
mod iterator;
mod meta;
mod reshard;
mod server;
mod service;
mod shard;
mod stats;
mod storage;
mod stream;
mod sync;
mod throttle;

pub use config::{EmulatorConfig, Limits};
pub use emulator::{Emulator, StartError};
pub use faults::{ArmedFault, FailedRecords, FaultError, FaultKind, FaultRule, Faults};
pub use stats::Stats;
