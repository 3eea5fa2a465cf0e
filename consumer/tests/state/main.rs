//! Committed state as a running worker keeps it: what happens when it does not fit its checkpoint or its job, and
//! pages.
//!
//! Streams and tables in memory, a virtual clock. A worker runs, leaves, something happens to what it stored, and the
//! next worker goes on.

#![allow(clippy::unwrap_used)]

mod ends;
mod job;
mod keys;
mod lanes;
mod leader;
mod mismatch;
#[path = "../support/mortal.rs"]
mod mortal;
mod pages;
mod pending;
mod port;
mod retention;
mod world;
