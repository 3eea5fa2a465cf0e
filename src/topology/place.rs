//! What an address can belong to.

use std::fmt;

use ipnet::IpNet;

/// The edge that every public address in no CIDR belongs to.
pub const INTERNET: &str = "internet";

/// One subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnet {
    /// Id, unique in the topology, such as `subnet-0a1b`.
    pub id: String,
    /// Its address ranges, v4 and v6, at least one.
    pub cidrs: Vec<IpNet>,
    /// Availability zone id, such as `use1-az1`; empty if unknown.
    pub az: String,
    /// VPC id; empty if unknown. Subnets without one are taken to be in one VPC.
    pub vpc: String,
    /// Account id; empty if unknown.
    pub account: String,
    /// Name for people; empty if it has none.
    pub name: String,
}

/// A named group of addresses that is not a subnet: an office, a partner, a NAT pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    /// Name, unique; stands where a subnet id would in a pair.
    pub name: String,
    /// Its address ranges.
    pub cidrs: Vec<IpNet>,
}

/// Position of a subnet in [`super::Topology::subnets`]; valid for that topology only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetIndex(pub(super) u32);

impl SubnetIndex {
    /// The position, for slices.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for SubnetIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an address belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In a subnet.
    Subnet(SubnetIndex),
    /// In a named edge of the file, or [`INTERNET`].
    Edge(&'a str),
    /// Nowhere we know: a private, shared, link-local, loopback or multicast address in no CIDR, or one that subnets
    /// of several VPCs claim when the record does not say which VPC it is from.
    Unmapped,
}
