//! flowshift: tells, within minutes and at a stated false-alarm rate, when the network between two subnets got worse.
//!
//! The program as a library, so that its parts can be tested and measured. The data's way: [`collect`] (the door) →
//! flows stream → [`stage::aggregate`] → exchange stream → [`stage::detect`] → evidence stream → [`stage::correlate`] →
//! [`webhook`]. [`app`] wires these; [`command`] is what a person calls; [`embedded`] is Kinesis and DynamoDB inside the
//! process. Around them: [`config`], [`topology`], [`metrics`], [`admin`], [`simulate`], [`backtest`], [`convert`], [`aws`],
//! [`doctor`], [`telemetry`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

/// Ends the process without any clean-up when the named fail point is set to return (`FAILPOINTS` in the environment): the
/// tests' kill -9 at a place. Nothing in a build without the embedded services.
macro_rules! crash_point {
    ($name:expr) => {
        fail::fail_point!($name, |_| std::process::abort())
    };
}

pub mod admin;
pub mod app;
pub mod aws;
pub mod backtest;
pub mod cli;
pub mod collect;
pub mod command;
pub mod config;
pub mod convert;
pub mod doctor;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod metrics;
pub mod simulate;
pub mod stage;
pub mod telemetry;
pub mod topology;
pub mod webhook;
