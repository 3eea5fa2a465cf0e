//! Checks entries and collects them into a [`Topology`]; the same for every source.
//!
//! Invariant: what [`Builder::finish`] returns has unique ids and no range claimed twice inside one VPC.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::{Edge, Subnet, Topology, TopologyError};

/// More than any region has; keeps indices small.
const MAX_SUBNETS: usize = 1_000_000;

/// An entry as errors name it.
#[derive(Clone, Debug)]
pub(super) struct Entry(String);

impl Entry {
    pub(super) fn new(place: String, id: &str) -> Self {
        Self(if id.is_empty() { place } else { format!("{place} ({id})") })
    }
}

/// An edge as errors name it.
pub(super) fn edge(place: String, name: &str) -> Entry {
    Entry::new(format!("{place}, edge"), name)
}

/// Parses ranges; bits behind the prefix are an error, since they mean the line is not what its writer thinks.
pub(super) fn parse_cidrs<'a>(
    entry: &Entry,
    texts: impl Iterator<Item = &'a str>,
) -> Result<Vec<IpNet>, TopologyError> {
    let mut cidrs = Vec::new();
    for text in texts {
        let refuse = |fix: String| TopologyError::Cidr { entry: entry.0.clone(), value: text.to_owned(), fix };
        let net: IpNet = text.parse().map_err(|_| refuse("write it as 10.0.0.0/20 or 2600:1f18::/64".to_owned()))?;
        if net != net.trunc() {
            return Err(refuse(format!("write {}", net.trunc())));
        }
        if let IpNet::V6(v6) = net
            && v6.addr().to_ipv4_mapped().is_some()
        {
            return Err(refuse("write the IPv4 range itself; mapped addresses are un-mapped before the lookup".into()));
        }
        cidrs.push(net);
    }
    cidrs.sort_unstable();
    cidrs.dedup();
    Ok(cidrs)
}

/// Collects entries.
#[derive(Debug, Default)]
pub(super) struct Builder {
    subnets: Vec<Subnet>,
    edges: Vec<Edge>,
    /// Ids and edge names, with the entry that took them.
    ids: HashMap<String, Entry>,
    /// Ranges by VPC, with the entry that took them.
    claims: BTreeMap<(String, IpNet), Entry>,
    /// Ranges of edges, which count in every VPC.
    edge_claims: BTreeMap<IpNet, Entry>,
}

impl Builder {
    pub(super) fn subnet(&mut self, entry: Entry, subnet: Subnet) -> Result<(), TopologyError> {
        self.id(&entry, &subnet.id, "id", &subnet.cidrs)?;
        for cidr in &subnet.cidrs {
            let claim = (subnet.vpc.clone(), *cidr);
            if let Some(first) = self.claims.insert(claim, entry.clone()) {
                return Err(TopologyError::DuplicateCidr { first: first.0, second: entry.0, cidr: *cidr });
            }
        }
        self.subnets.push(subnet);
        Ok(())
    }

    pub(super) fn edge(&mut self, entry: Entry, edge: Edge) -> Result<(), TopologyError> {
        self.id(&entry, &edge.name, "name", &edge.cidrs)?;
        for cidr in &edge.cidrs {
            if let Some(first) = self.edge_claims.insert(*cidr, entry.clone()) {
                return Err(TopologyError::DuplicateCidr { first: first.0, second: entry.0, cidr: *cidr });
            }
        }
        self.edges.push(edge);
        Ok(())
    }

    fn id(&mut self, entry: &Entry, id: &str, field: &'static str, cidrs: &[IpNet]) -> Result<(), TopologyError> {
        let missing = |field, fix| TopologyError::Missing { entry: entry.0.clone(), field, fix };
        if id.is_empty() {
            return Err(missing(field, "give it a unique one"));
        }
        if cidrs.is_empty() {
            return Err(missing("cidr", "give its range, such as `cidr: 10.0.0.0/20`"));
        }
        match self.ids.insert(id.to_owned(), entry.clone()) {
            Some(first) => {
                Err(TopologyError::DuplicateId { first: first.0, second: entry.0.clone(), id: id.to_owned() })
            }
            None => Ok(()),
        }
    }

    pub(super) fn finish(mut self) -> Result<Topology, TopologyError> {
        for ((_, cidr), second) in &self.claims {
            if let Some(first) = self.edge_claims.get(cidr) {
                let (first, second) = (first.0.clone(), second.0.clone());
                return Err(TopologyError::DuplicateCidr { first, second, cidr: *cidr });
            }
        }
        if self.subnets.is_empty() {
            return Err(TopologyError::Empty);
        }
        if self.subnets.len() > MAX_SUBNETS {
            return Err(TopologyError::TooMany(self.subnets.len()));
        }
        self.subnets.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        self.edges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Topology::assemble(self.subnets, self.edges))
    }
}

impl Topology {
    /// Builds a topology from its parts, such as those of a stored snapshot.
    ///
    /// # Errors
    /// As the readers of files; entries are named by position.
    pub fn new(subnets: Vec<Subnet>, edges: Vec<Edge>) -> Result<Self, TopologyError> {
        let mut builder = Builder::default();
        for (position, mut subnet) in subnets.into_iter().enumerate() {
            subnet.cidrs.sort_unstable();
            subnet.cidrs.dedup();
            builder.subnet(Entry::new(format!("subnets[{position}]"), &subnet.id), subnet)?;
        }
        for (position, mut group) in edges.into_iter().enumerate() {
            group.cidrs.sort_unstable();
            group.cidrs.dedup();
            builder.edge(edge(format!("edges[{position}]"), &group.name), group)?;
        }
        builder.finish()
    }

    /// Reads either form: JSON with a `Subnets` list is AWS's, everything else is our YAML (which JSON is, too).
    ///
    /// # Errors
    /// [`TopologyError`] of the form it was taken for.
    pub fn parse(text: &str) -> Result<Self, TopologyError> {
        let looks_aws = text.trim_start().starts_with('{') && text.contains("\"Subnets\"");
        if looks_aws { Self::from_aws_json(text) } else { Self::from_yaml(text) }
    }
}
