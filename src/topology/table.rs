//! The lookup: one trie over everything and one for each VPC.
//!
//! With a VPC, its own subnets (and the edges) are asked first, then the whole. Without one, or for the far end of a
//! peering, the whole is asked; there a range that overlaps one of another VPC answers nothing, because a guess would
//! be a silent error. Cost: one or two walks of at most 128 bits, no allocation.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use xxhash_rust::xxh3::Xxh3;

use super::place::INTERNET;
use super::{Edge, Place, Subnet, SubnetIndex};

/// What a range leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Subnet(SubnetIndex),
    Edge(u32),
    /// Subnets of more than one VPC hold these addresses.
    Ambiguous,
}

#[derive(Clone, Debug, Default)]
struct Trie {
    v4: PrefixMap<Ipv4Net, Target>,
    v6: PrefixMap<Ipv6Net, Target>,
}

impl Trie {
    fn insert(&mut self, cidr: IpNet, target: Target) {
        match cidr {
            IpNet::V4(net) => drop(self.v4.insert(net, target)),
            IpNet::V6(net) => drop(self.v6.insert(net, target)),
        }
    }

    fn longest(&self, ip: IpAddr) -> Option<Target> {
        match ip {
            IpAddr::V4(ip) => self.v4.get_lpm(&Ipv4Net::from(ip)).map(|(_, target)| *target),
            IpAddr::V6(ip) => self.v6.get_lpm(&Ipv6Net::from(ip)).map(|(_, target)| *target),
        }
    }

    /// Targets of every range that contains `cidr`, itself included.
    fn covering(&self, cidr: IpNet) -> Vec<Target> {
        match cidr {
            IpNet::V4(net) => self.v4.cover_values(&net).copied().collect(),
            IpNet::V6(net) => self.v6.cover_values(&net).copied().collect(),
        }
    }
}

/// An immutable topology; replace it whole to change it.
#[derive(Clone, Debug)]
pub struct Topology {
    subnets: Vec<Subnet>,
    edges: Vec<Edge>,
    whole: Trie,
    by_vpc: HashMap<String, Trie>,
    ambiguous: Vec<IpNet>,
    hash: u128,
}

impl Topology {
    /// Builds the tries over checked entries in their final order.
    pub(super) fn assemble(subnets: Vec<Subnet>, edges: Vec<Edge>) -> Self {
        let mut by_vpc: HashMap<String, Trie> = HashMap::new();
        let mut claims: Vec<(IpNet, Target, &str)> = Vec::new();
        for (index, subnet) in (0_u32..).zip(&subnets) {
            let own = by_vpc.entry(subnet.vpc.clone()).or_default();
            for cidr in &subnet.cidrs {
                own.insert(*cidr, Target::Subnet(SubnetIndex(index)));
                claims.push((*cidr, Target::Subnet(SubnetIndex(index)), &subnet.vpc));
            }
        }
        let mut whole = Trie::default();
        let mut ambiguous = Vec::new();
        // Shorter ranges first, so that what covers a range is in the trie before it.
        claims.sort_by_key(|(cidr, ..)| (cidr.prefix_len(), *cidr));
        for (cidr, target, vpc) in claims {
            let clashes = |other: &Target| match other {
                Target::Subnet(index) => subnets.get(index.get()).is_some_and(|subnet| subnet.vpc != vpc),
                Target::Ambiguous => true,
                Target::Edge(_) => false,
            };
            if whole.covering(cidr).iter().any(clashes) {
                whole.insert(cidr, Target::Ambiguous);
                ambiguous.push(cidr);
            } else {
                whole.insert(cidr, target);
            }
        }
        for (index, edge) in (0_u32..).zip(&edges) {
            for cidr in &edge.cidrs {
                whole.insert(*cidr, Target::Edge(index));
                by_vpc.values_mut().for_each(|trie| trie.insert(*cidr, Target::Edge(index)));
            }
        }
        ambiguous.dedup();
        let hash = content_hash(&subnets, &edges);
        Self { subnets, edges, whole, by_vpc, ambiguous, hash }
    }

    /// Where `ip` belongs. `vpc` is the VPC the record says the address is in, if it does; one that is not in the
    /// topology is as none. `::ffff:a.b.c.d` is looked up as `a.b.c.d`.
    pub fn lookup(&self, ip: IpAddr, vpc: Option<&str>) -> Place<'_> {
        let ip = ip.to_canonical();
        let own = vpc.and_then(|vpc| self.by_vpc.get(vpc)).and_then(|trie| trie.longest(ip));
        match own.or_else(|| self.whole.longest(ip)) {
            Some(Target::Subnet(index)) => Place::Subnet(index),
            Some(Target::Edge(index)) => {
                self.edges.get(index as usize).map_or(Place::Unmapped, |edge| Place::Edge(&edge.name))
            }
            Some(Target::Ambiguous) => Place::Unmapped,
            None if is_public(ip) => Place::Edge(INTERNET),
            None => Place::Unmapped,
        }
    }

    /// All subnets, by id ascending; [`SubnetIndex`] points into this slice.
    pub fn subnets(&self) -> &[Subnet] {
        &self.subnets
    }

    /// The subnet at an index of this topology.
    pub fn subnet(&self, index: SubnetIndex) -> Option<&Subnet> {
        self.subnets.get(index.get())
    }

    /// All named edges of the file, by name ascending ([`INTERNET`] is there only if the file names it).
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Ranges that only records with a VPC can be told apart in; worth a warning.
    pub fn ambiguous(&self) -> &[IpNet] {
        &self.ambiguous
    }

    /// xxh3-128 of the content, the same for every order of the same entries.
    pub fn content_hash(&self) -> u128 {
        self.hash
    }
}

/// Hashes every field with its length before it, so that no two contents share one serialisation.
fn content_hash(subnets: &[Subnet], edges: &[Edge]) -> u128 {
    let mut hasher = Xxh3::new();
    let mut field = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    field("flowshift topology 1");
    for subnet in subnets {
        field("subnet");
        for text in [&subnet.id, &subnet.az, &subnet.vpc, &subnet.account, &subnet.name] {
            field(text);
        }
        subnet.cidrs.iter().for_each(|cidr| field(&cidr.to_string()));
    }
    for edge in edges {
        field("edge");
        field(&edge.name);
        edge.cidrs.iter().for_each(|cidr| field(&cidr.to_string()));
    }
    hasher.digest128()
}

/// Whether an address in no CIDR can be on the internet.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    let shared = first == 100 && (64..128).contains(&second);
    let special = first == 0 || first >= 240 || ip.is_loopback() || ip.is_multicast();
    !(ip.is_private() || shared || ip.is_link_local() || special)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    !(ip.is_unique_local() || ip.is_unicast_link_local() || special)
}
