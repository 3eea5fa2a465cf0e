//! What can be wrong with a topology file.

use ipnet::IpNet;
use thiserror::Error;

/// Why a topology was refused. Entries are named by their place in the file and their id.
#[derive(Debug, Error)]
pub enum TopologyError {
    /// The text is neither YAML nor JSON of the expected shape.
    #[error("{0}")]
    Syntax(String),
    /// A CIDR that cannot be read, or has bits set behind its prefix.
    #[error("{entry}: `{value}` is not a CIDR; {fix}")]
    Cidr {
        /// The entry.
        entry: String,
        /// As written.
        value: String,
        /// What to write.
        fix: String,
    },
    /// An entry without the field it needs.
    #[error("{entry}: `{field}` is missing; {fix}")]
    Missing {
        /// The entry.
        entry: String,
        /// The field.
        field: &'static str,
        /// What to write.
        fix: &'static str,
    },
    /// Two entries with one id or name.
    #[error("{first} and {second} are both called `{id}`; give each its own id")]
    DuplicateId {
        /// The entry that came first.
        first: String,
        /// The other.
        second: String,
        /// The id.
        id: String,
    },
    /// One CIDR claimed twice inside one VPC, or by an edge as well.
    #[error("{first} and {second} both claim {cidr}; keep one, or give them different `vpc`s")]
    DuplicateCidr {
        /// The entry that came first.
        first: String,
        /// The other.
        second: String,
        /// The range.
        cidr: IpNet,
    },
    /// No subnet at all.
    #[error("no subnet in the topology; list at least one under `subnets`")]
    Empty,
    /// More entries than an index can name.
    #[error("{0} subnets are too many; at most 1000000 are supported")]
    TooMany(usize),
}
