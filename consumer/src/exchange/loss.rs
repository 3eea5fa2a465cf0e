//! What a lane knows to be missing.
//!
//! A loss is never silent: it stops the lane, or, where it is explained (records expired unread, state discarded by
//! policy) or an operator accepted it ([`crate::resolve`]), it is counted and told to the job by
//! [`Reducer::incomplete`](crate::stage::Reducer::incomplete). Read next: `lane_state`, which decides.

use std::fmt;

use super::envelope::BatchPart;
use super::source::SourceId;

/// Why a lane's windows are incomplete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// Batches of a source are missing.
    Gap {
        /// The source.
        source: SourceId,
        /// Its epoch.
        epoch: u64,
        /// The last batch applied before.
        applied: u64,
        /// The batch it goes on with.
        next: u64,
    },
    /// A batch was emitted, or had to be closed, without all the records its cut counted: they expired unread.
    Expired {
        /// The source.
        source: SourceId,
        /// The batch.
        n: u64,
        /// Records of the whole batch that expired. A lane without any part of an earlier emission misses at most so
        /// many; one that had some of its parts keeps those, and misses whatever else the batch held for it.
        records: u64,
    },
    /// A batch came out otherwise when it was computed again, and was emitted so by policy: what an earlier emission
    /// gave other lanes, or this one in part, does not fit it.
    Diverged {
        /// The source.
        source: SourceId,
        /// The batch.
        n: u64,
    },
    /// Records of a source expired before anyone read them; nobody can say how many.
    Trimmed {
        /// The source.
        source: SourceId,
        /// The first batch behind them.
        n: u64,
    },
    /// The last batches of a source are missing, its END among them.
    End {
        /// The source.
        source: SourceId,
        /// Its epoch.
        epoch: u64,
        /// The last batch applied.
        applied: u64,
    },
    /// The lane's committed state was discarded, by setting or by an operator.
    Discarded,
}

impl Loss {
    /// What is missing by an emission that is not the first of its batch.
    pub(super) fn again(part: &BatchPart) -> Self {
        let (source, n) = (part.source.clone(), part.n);
        if part.diverged { Self::Diverged { source, n } } else { Self::Expired { source, n, records: part.expired } }
    }

    /// A name for metrics: `gap`, `expired`, `trimmed`, `diverged` or `discarded`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gap { .. } | Self::End { .. } => "gap",
            Self::Expired { .. } => "expired",
            Self::Diverged { .. } => "diverged",
            Self::Trimmed { .. } => "trimmed",
            Self::Discarded => "discarded",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { source, epoch, applied, next } => {
                write!(f, "batches after {applied} and before {next} of {source} epoch {epoch} are lost")
            }
            Self::Expired { source, n, records } => {
                write!(f, "{records} records of batch {n} of {source} expired before it was emitted")
            }
            Self::Diverged { source, n } => {
                write!(f, "batch {n} of {source} was emitted again with other content")
            }
            Self::End { source, epoch, applied } => {
                write!(f, "batches after {applied} of {source} epoch {epoch} are lost with its end")
            }
            Self::Trimmed { source, n } => {
                write!(f, "records of {source} expired unread before its batch {n}")
            }
            Self::Discarded => f.write_str("the committed state was discarded"),
        }
    }
}
