//! Subnets, directed pairs, and the path elements a pair crosses.
//!
//! For: the names under which statistics are kept and blame is given.
//! Not for: mapping addresses to subnets; values arrive here already mapped.
//! Invariant: subnets are ordered and compared by id alone; element ids follow the event format.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A subnet, or a named edge (the internet, a service) that stands for everything behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subnet {
    /// Unique id, e.g. `subnet-100` or `internet`.
    pub id: Arc<str>,
    /// Availability zone id; unknown for edges.
    pub az: Option<Arc<str>>,
    /// Whether this is a named edge and not a subnet of ours.
    pub edge: bool,
}

impl Subnet {
    /// A subnet of ours.
    pub fn new(id: &str, az: Option<&str>) -> Self {
        Self { id: id.into(), az: az.map(Into::into), edge: false }
    }

    /// A named edge.
    pub fn edge(id: &str) -> Self {
        Self { id: id.into(), az: None, edge: true }
    }
}

impl PartialEq for Subnet {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Subnet {}

impl PartialOrd for Subnet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Subnet {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// A directed pair: what `src` sent to `dst`, measured at `src`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pair {
    /// Where the measured direction starts.
    pub src: Subnet,
    /// Where it ends.
    pub dst: Subnet,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.src, self.dst)
    }
}

/// What kind of path a pair takes; the prior belief before the pair has its own history depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathClass {
    /// Inside one availability zone, or unknown zones.
    IntraAz,
    /// Between two availability zones.
    InterAz,
    /// To or from a named edge.
    Edge,
}

/// Kind of a path element, as the event format names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementKind {
    /// One directed pair.
    Pair,
    /// One subnet, as source or destination.
    Subnet,
    /// One availability zone.
    Az,
    /// The path between two availability zones, both directions.
    AzPath,
    /// A named edge.
    Internet,
}

/// A path element: something that can be at fault for all pairs that cross it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Element {
    /// What it is.
    pub kind: ElementKind,
    /// Its id: `subnet-107`, `use1-az1`, `use1-az1|use1-az2`, `internet`, or `subnet-1>subnet-2` for a pair.
    pub id: Arc<str>,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ElementKind::Pair => "pair",
            ElementKind::Subnet => "subnet",
            ElementKind::Az => "zone",
            ElementKind::AzPath => "zone path",
            ElementKind::Internet => "edge",
        };
        write!(f, "{kind} {}", self.id)
    }
}

impl Pair {
    /// The class of the path.
    pub fn class(&self) -> PathClass {
        if self.src.edge || self.dst.edge {
            return PathClass::Edge;
        }
        match (&self.src.az, &self.dst.az) {
            (Some(a), Some(b)) if a != b => PathClass::InterAz,
            _ => PathClass::IntraAz,
        }
    }

    /// The pair itself as an element.
    pub fn element(&self) -> Element {
        Element { kind: ElementKind::Pair, id: format!("{}>{}", self.src.id, self.dst.id).into() }
    }

    /// Whether the pair crosses a shared element; false for pairs as elements.
    pub fn crosses(&self, element: &Element) -> bool {
        let ends = [&self.src, &self.dst];
        match element.kind {
            ElementKind::Pair => false,
            ElementKind::Subnet | ElementKind::Internet => {
                let edge = element.kind == ElementKind::Internet;
                ends.iter().any(|end| end.edge == edge && end.id == element.id)
            }
            ElementKind::Az => ends.iter().any(|end| end.az.as_ref() == Some(&element.id)),
            ElementKind::AzPath => match (&self.src.az, &self.dst.az) {
                (Some(a), Some(b)) if a != b => {
                    let (low, high) = if a < b { (a, b) } else { (b, a) };
                    element.id.split_once('|') == Some((low, high))
                }
                _ => false,
            },
        }
    }

    /// The shared elements the pair crosses, sorted, without the pair itself.
    pub fn elements(&self) -> Vec<Element> {
        let mut found = Vec::with_capacity(5);
        for end in [&self.src, &self.dst] {
            let kind = if end.edge { ElementKind::Internet } else { ElementKind::Subnet };
            found.push(Element { kind, id: end.id.clone() });
            if let Some(az) = &end.az {
                found.push(Element { kind: ElementKind::Az, id: az.clone() });
            }
        }
        if let (Some(a), Some(b)) = (&self.src.az, &self.dst.az)
            && a != b
        {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            found.push(Element { kind: ElementKind::AzPath, id: format!("{low}|{high}").into() });
        }
        found.sort();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_crosses_exactly_its_elements() {
        let ends = [
            Subnet::new("a", Some("az1")),
            Subnet::new("b", Some("az2")),
            Subnet::new("c", None),
            Subnet::edge("internet"),
        ];
        let pairs = ends.iter().flat_map(|src| ends.iter().map(|dst| Pair { src: src.clone(), dst: dst.clone() }));
        let pairs: Vec<Pair> = pairs.collect();
        for element in pairs.iter().flat_map(Pair::elements) {
            for pair in &pairs {
                assert_eq!(pair.crosses(&element), pair.elements().contains(&element), "{pair} {element}");
            }
        }
    }
}
