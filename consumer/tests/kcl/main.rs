//! Going on from an application on the Kinesis Client Library, and back to it. The application is `kcl-rs`, a port of
//! KCL 3 in other people's hands, run from its Python package against the emulators.
//!
//! `forth` goes on from it, `kpl` from inside an aggregate, `back` the other way, `compare` compares what both write.
//! `app` runs it, `engine` runs ours, `services` is what both talk to, `rows`, `rules` and `recorded` look at lease
//! rows. Without the package the tests that need it are skipped, loudly.
#![allow(clippy::unwrap_used)]

mod app;
mod back;
mod compare;
mod engine;
mod forth;
mod kpl;
mod recorded;
mod rows;
mod rules;
mod services;
