//! Why a value of the wire is none of the detector's.

use flowshift_proto::evidence::EvidenceError;
use flowshift_proto::exchange::ExchangeError;

/// A value cannot be converted. Trying again does not help: the bytes were written by a program that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The bytes are no step evidence.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// A histogram has no exchange form.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// A number stands for no member of a closed set.
    #[error("{what} has the unknown number {number}")]
    UnknownNumber {
        /// Which set.
        what: &'static str,
        /// The number.
        number: i32,
    },
    /// A number does not fit into the detector's type.
    #[error("{what} is {value}, above {max}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The largest that fits.
        max: u64,
    },
    /// A part without which the rest means nothing is absent.
    #[error("{what} is missing")]
    Missing {
        /// Which part.
        what: &'static str,
    },
    /// The rows of a list do not ascend, or one stands there twice.
    #[error("{what} do not ascend at {at}")]
    Order {
        /// Which list.
        what: &'static str,
        /// The later row.
        at: String,
    },
    /// Evidence of no step or of several steps says something about a step.
    #[error("evidence of {steps} steps has {rows} rows and sums, only one step can have any")]
    RunNotEmpty {
        /// Steps covered.
        steps: u64,
        /// Sums and rows, those left out included.
        rows: u64,
    },
    /// A bounded sample is larger than its bound, or has a hash twice.
    #[error("{what} have {rows} rows, of which {kept} can be kept")]
    Sample {
        /// Which sample.
        what: &'static str,
        /// Rows on the wire.
        rows: usize,
        /// Rows in the sample.
        kept: usize,
    },
    /// A round-trip time lies in a bin that does not exist, or a bin is empty or given twice.
    #[error("round-trip times have {bins} bins up to {last}, which are none of 1 us to 60 s")]
    Bins {
        /// Number of bins.
        bins: usize,
        /// Highest bin.
        last: u32,
    },
    /// The number of round-trip times is not what the bins hold, or extremes and sums are told without any.
    #[error("{records} round-trip times between {min_us} us and {max_us} us are told, bins hold {counted}")]
    RttTotals {
        /// Values told.
        records: u64,
        /// Values in the bins.
        counted: u64,
        /// Smallest told.
        min_us: u64,
        /// Largest told.
        max_us: u64,
    },
}
