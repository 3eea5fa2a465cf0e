//! Whether what a mute names is there: the subnets, edges and zones of the topology this process goes by.
//!
//! A mute of a misspelt zone would be taken, shown and keep nothing quiet; it is refused with the names there are, unless
//! it is forced (a subnet that is about to be made, a topology that is newer elsewhere). A range or address is judged by
//! longest-prefix match: the only range of one subnet stands for the subnet, any other is refused with the ids to use,
//! since a mute of more or less than was written would be a silent error. Not here: the form of the fields
//! ([`super::fields`]). Invariant: what passes is an id of a subnet, the name of an edge, or a zone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use flowshift_consumer::commit::Snapshot;
use flowshift_detector::{Place, Scope};
use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::watch;

use super::refusal::Refusal;
use crate::stage::rules::Rules;
use crate::topology::{self, INTERNET, Topology};

/// Most names that a refusal lists.
const LISTED: usize = 10;

/// The rules in force, as they change.
pub(super) struct Known(watch::Receiver<Snapshot>);

impl Known {
    pub(super) fn new(rules: watch::Receiver<Snapshot>) -> Self {
        Self(rules)
    }

    /// The scope as it is put: of names the topology has.
    ///
    /// # Errors
    /// A name is not in the topology, or the topology cannot be read.
    pub(super) fn check(&self, scope: Scope) -> Result<Scope, Refusal> {
        if scope.place.is_none() {
            return Ok(scope);
        }
        let snapshot = self.0.borrow().clone();
        let rules = Rules::read(&snapshot).map_err(|error| {
            tracing::error!(%error, "the topology in force cannot be read");
            Refusal::no_topology()
        })?;
        checked(&rules.topology, scope)
    }
}

fn checked(topology: &Topology, scope: Scope) -> Result<Scope, Refusal> {
    let place = match scope.place {
        None => None,
        Some(Place::Az(az)) => Some(Place::Az(zone(topology, az)?)),
        Some(Place::Subnet(id)) => Some(Place::Subnet(end(topology, "subnet", &Value::from(id.as_str()), &id)?)),
        Some(Place::Pair { src, dst }) => {
            let written = Value::from(format!("{src}>{dst}"));
            let (src, dst) = (end(topology, "pair", &written, &src)?, end(topology, "pair", &written, &dst)?);
            Some(Place::Pair { src, dst })
        }
    };
    Ok(Scope { place, signal: scope.signal })
}

fn zone(topology: &Topology, az: String) -> Result<String, Refusal> {
    let zones: BTreeSet<&str> = topology.subnets().iter().map(|s| s.az.as_str()).filter(|az| !az.is_empty()).collect();
    if zones.contains(az.as_str()) {
        return Ok(az);
    }
    let fix = listed("zones", &az, &zones);
    Err(Refusal::unknown("az", &Value::from(az), "no subnet of the topology is in this zone", fix))
}

/// The id or name of one end; `field` and `written` are what a refusal shows.
fn end(topology: &Topology, field: &str, written: &Value, name: &str) -> Result<String, Refusal> {
    let ranges = ranges(topology);
    if name == INTERNET || ranges.contains_key(name) {
        return Ok(name.to_owned());
    }
    let (detail, ids) = match range(name) {
        Some(net) => match by_range(topology, &ranges, net) {
            Found::Is(id) => return Ok(id.to_owned()),
            Found::Part(ids) => (format!("{name} is a part of {}", named(&ids)), ids),
            Found::Covers(ids) => (format!("{name} covers {}", named(&ids)), ids),
            Found::Nothing => (format!("{name} is in no range of the topology"), Vec::new()),
        },
        None => {
            let same = topology.subnets().iter().filter(|s| s.name == name).map(|s| s.id.as_str()).collect::<Vec<_>>();
            let what = if same.is_empty() {
                "no subnet or edge of the topology".to_owned()
            } else {
                format!("the name of {}", named(&same))
            };
            (format!("{name} is {what}"), same)
        }
    };
    let fix = match &ids[..] {
        [] => listed("subnets and edges", name, &ranges.keys().copied().chain([INTERNET]).collect()),
        [id] => format!("use {id}, which mutes all of it"),
        ids => format!("mute each by its id: {}", shortened(ids)),
    };
    Err(Refusal::unknown(field, written, detail, fix))
}

/// Ids of subnets and names of edges, with their ranges.
fn ranges(topology: &Topology) -> BTreeMap<&str, &[IpNet]> {
    let subnets = topology.subnets().iter().map(|s| (s.id.as_str(), &s.cidrs[..]));
    subnets.chain(topology.edges().iter().map(|e| (e.name.as_str(), &e.cidrs[..]))).collect()
}

/// A range or single address, bits behind the prefix cut off.
fn range(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address).map(|net: IpNet| net.trunc())
}

/// How a range lies to those of the topology.
#[derive(Debug, PartialEq)]
enum Found<'a> {
    /// It is all of one end.
    Is(&'a str),
    /// It lies inside these (of several VPCs), by the longest prefix.
    Part(Vec<&'a str>),
    /// These lie inside it.
    Covers(Vec<&'a str>),
    Nothing,
}

fn by_range<'a>(topology: &Topology, ranges: &BTreeMap<&'a str, &'a [IpNet]>, net: IpNet) -> Found<'a> {
    let whole: Vec<&str> = ranges.iter().filter(|(_, own)| **own == [net]).map(|(name, _)| *name).collect();
    if let [only] = whole[..] {
        return Found::Is(only);
    }
    let all = || ranges.iter().flat_map(|(name, own)| own.iter().map(move |range| (*name, range)));
    let longest = all().filter(|(_, range)| range.contains(&net)).map(|(_, range)| range.prefix_len()).max();
    if let Some(longest) = longest {
        let inside = all().filter(|(_, range)| range.prefix_len() == longest && range.contains(&net));
        return Found::Part(inside.map(|(name, _)| name).collect());
    }
    let covered: BTreeSet<&str> = all().filter(|(_, range)| net.contains(*range)).map(|(name, _)| name).collect();
    if !covered.is_empty() {
        return Found::Covers(covered.into_iter().collect());
    }
    match topology.lookup(net.addr(), None) {
        topology::Place::Edge(_) => Found::Part(vec![INTERNET]),
        _ => Found::Nothing,
    }
}

fn named(ids: &[&str]) -> String {
    if let [id] = ids { (*id).to_owned() } else { format!("{} subnets", ids.len()) }
}

fn shortened(ids: &[&str]) -> String {
    let rest = if ids.len() > LISTED { format!(" and {} more", ids.len() - LISTED) } else { String::new() };
    format!("{}{rest}", ids[..ids.len().min(LISTED)].join(", "))
}

/// The fix that lists the known names, those that look most like `wrong` if there are many.
fn listed(what: &str, wrong: &str, known: &BTreeSet<&str>) -> String {
    let mut names: Vec<&str> = known.iter().copied().collect();
    let of = if names.len() > LISTED { format!(", the nearest of {}", names.len()) } else { String::new() };
    if names.len() > LISTED {
        names.sort_by_cached_key(|name| strsim::damerau_levenshtein(wrong, name));
        names.truncate(LISTED);
    }
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!("the topology's {what} are {names}{of}")
}

#[cfg(test)]
mod tests;
