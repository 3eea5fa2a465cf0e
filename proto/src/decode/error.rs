//! What can be wrong with input. Every error has one [`Reason`], and its text names the value at fault.
//!
//! [`ValueError`] is about one record, [`DecodeError`] about a payload, a line or a report. Texts quote at most a short
//! excerpt of the input, so that a hostile payload cannot flood the log.

use crate::reason::Reason;

/// A value of a record is out of range or missing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// The interval is negative, too long, or outside the years 1970 to 9999.
    #[error(
        "interval from {start_ms} to {end_ms} ms is not 0 to 3600000 ms long or not between the years 1970 and 9999"
    )]
    Interval {
        /// Start, milliseconds.
        start_ms: i64,
        /// End, milliseconds.
        end_ms: i64,
    },
    /// A count is above 2^53.
    #[error("{field} is {value}, above 2^53")]
    TooLarge {
        /// Field.
        field: &'static str,
        /// Value.
        value: u64,
    },
    /// A number that must be a count is negative, fractional, not finite or above 2^53.
    #[error("{field} is {value:?}, not a whole number from 0 to 2^53")]
    NotACount {
        /// Field or metric.
        field: String,
        /// Value.
        value: f64,
    },
    /// A list is too long.
    #[error("{field} has {len} entries, above {max}")]
    TooMany {
        /// Field.
        field: &'static str,
        /// Entries.
        len: usize,
        /// Most entries.
        max: usize,
    },
    /// Count, minimum, maximum and sum of RTT contradict each other.
    #[error("rtt count {count}, min {min_us}, max {max_us}, sum {sum_us} us contradict each other")]
    InconsistentRtt {
        /// Samples.
        count: u64,
        /// Smallest.
        min_us: u64,
        /// Largest.
        max_us: u64,
        /// Sum.
        sum_us: u64,
    },
    /// More than one form of RTT in one record.
    #[error("rtt is given in more than one form")]
    SeveralRtt,
    /// Bucket bounds do not ascend.
    #[error("rtt bucket bound {le_us} us does not ascend")]
    UnsortedBuckets {
        /// The bound at fault.
        le_us: u64,
    },
    /// Not an IP address.
    #[error("{field} is {value:?}, not an ip address")]
    Address {
        /// Field.
        field: &'static str,
        /// Value, shortened.
        value: String,
    },
    /// Not a port.
    #[error("{field} is {value}, not a port")]
    Port {
        /// Field.
        field: &'static str,
        /// Value.
        value: i64,
    },
    /// Not a protocol name or number.
    #[error("protocol is {0:?}, neither a known name nor a number from 0 to 255")]
    Protocol(String),
    /// A field is not one of its allowed values.
    #[error("{field} is {value:?}, not an allowed value")]
    Choice {
        /// Field.
        field: &'static str,
        /// Value, shortened.
        value: String,
    },
    /// A field that every record has is absent.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A metric is not a single delta point.
    #[error("metric {0:?} is not a single delta point")]
    NotADelta(String),
}

/// A payload, line or report cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing is in it.
    #[error("payload is empty")]
    Empty,
    /// It is larger than the limit, as it is or after decompression.
    #[error("payload is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Limit, bytes.
        limit: usize,
    },
    /// The gzip stream is broken or cut.
    #[error("gzip stream is broken: {0}")]
    Gzip(String),
    /// The protobuf encoding is broken.
    #[error("protobuf of {message} is broken: {detail}")]
    Protobuf {
        /// Message being read.
        message: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A flow batch does not carry the magic number.
    #[error("flow batch has magic {found:#010x} instead of 0x31425346")]
    Magic {
        /// Number found, 0 when absent.
        found: u32,
    },
    /// The JSON is broken.
    #[error("json is broken: {0}")]
    Json(String),
    /// A value is out of range.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A known format or content that is not read here.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// None of the known formats.
    #[error("payload is in no known format, it starts with {0}")]
    UnknownFormat(String),
    /// Not the format the stream is configured for.
    #[error("payload is {found} where {expected} is configured")]
    WrongFormat {
        /// Format the bytes look like.
        found: &'static str,
        /// Format configured.
        expected: &'static str,
    },
}

impl DecodeError {
    /// The reason its records are counted under.
    pub fn reason(&self) -> Reason {
        match self {
            DecodeError::Unsupported(_) => Reason::Unsupported,
            _ => Reason::Malformed,
        }
    }
}

/// At most 40 characters of outside text, for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}
