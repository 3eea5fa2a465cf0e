//! Which subnet an address belongs to: longest-prefix match over the CIDRs of a topology file.
//!
//! Reads our YAML ([`Topology::from_yaml`]) and the JSON of `aws ec2 describe-subnets` ([`Topology::from_aws_json`]);
//! [`Topology::parse`] tells them apart. Several CIDRs a subnet, v4 and v6, named edges for groups of addresses that
//! are no subnet. Not here: reading files, reloading, snapshots. Invariant: equal content gives equal subnet order,
//! equal indices and an equal [`Topology::content_hash`], whatever the order in the file; a lookup allocates nothing.
//! Read next: [`table`], the lookup.

mod aws;
mod build;
mod error;
mod place;
mod table;
mod yaml;

#[cfg(test)]
mod tests;

pub use error::TopologyError;
pub use place::{Edge, INTERNET, Place, Subnet, SubnetIndex};
pub use table::Topology;
