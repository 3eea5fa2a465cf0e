//! Why a backtest stopped: always with the file, and with the line where there is one.

use std::io;
use std::path::PathBuf;

use flowshift_consumer::stage::StageError;
use flowshift_proto::anomaly::AnomalyError;
use thiserror::Error;

/// A backtest stopped.
#[derive(Debug, Error)]
pub enum BacktestError {
    /// A file cannot be opened or read, or its gzip is damaged.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not what it should be.
    #[error("{} line {line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// A file holds nothing.
    #[error("{}: no lines in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A folder of traces has none.
    #[error("{}: no *.csv in it", path.display())]
    NoTraces {
        /// The folder.
        path: PathBuf,
    },
    /// The event log cannot be written.
    #[error("event log: {0}")]
    Write(#[source] io::Error),
    /// An event has no JSON form: a fault of ours.
    #[error(transparent)]
    Event(#[from] AnomalyError),
    /// A stage refused its own words: a fault of ours.
    #[error(transparent)]
    Stage(#[from] StageError),
}
