//! Recorded traffic through the detector: files in, event log out.
//!
//! For `flowshift backtest`. [`input`] opens files and knows their line numbers, [`pairs`] and [`window`] read their
//! lines, [`run`] gives them to the job's own lanes and correlator ([`crate::stage::direct`]) in their order; [`traces`] does
//! the same for single series. Nothing here judges. Memory does not grow with the length of the recording. Invariant: the same input gives the same bytes,
//! and no event claims to be older than what was read.

mod error;
mod input;
mod pairs;
mod run;
mod traces;
mod window;

pub use error::BacktestError;
pub use input::Input;
pub use pairs::{PairTable, read_pairs};
pub use run::{Account, Backtest, window_length};
pub use traces::{TraceAccount, follow_trace, trace_files};
