//! Which pair each number of a recording is.
//!
//! Ends are looked up in the topology; one that is not there is a named edge, unless the file says a zone for it. Not
//! here: addresses. Invariant: a number names one pair.

use std::collections::BTreeMap;
use std::path::Path;

use flowshift_detector::{Pair, Subnet};
use serde::Deserialize;

use super::{BacktestError, Input};
use crate::topology::Topology;

/// Pairs by their number.
pub type PairTable = BTreeMap<u32, Pair>;

#[derive(Deserialize)]
struct Row {
    pair: u32,
    src: String,
    dst: String,
    #[serde(default)]
    src_az: Option<String>,
    #[serde(default)]
    dst_az: Option<String>,
}

/// Reads a file of pairs.
///
/// # Errors
/// The file cannot be read or holds nothing, a line is no pair, a number stands twice, or an end has a zone and is not in
/// the topology or stands in another zone there.
pub fn read_pairs(path: &Path, topology: &Topology) -> Result<PairTable, BacktestError> {
    let mut input = Input::open(path)?;
    let mut pairs = PairTable::new();
    while let Some(line) = input.next_line()? {
        let row: Result<Row, _> = serde_json::from_slice(line);
        let row = row.map_err(|error| input.no_object(&error))?;
        let end = |id: &str, az: Option<&str>| subnet(topology, id, az).map_err(|what| input.wrong(what));
        let pair = Pair { src: end(&row.src, row.src_az.as_deref())?, dst: end(&row.dst, row.dst_az.as_deref())? };
        if let Some(first) = pairs.insert(row.pair, pair) {
            return Err(input.wrong(format!("pair {} stands twice, first as {first}", row.pair)));
        }
    }
    if pairs.is_empty() { Err(input.empty()) } else { Ok(pairs) }
}

fn subnet(topology: &Topology, id: &str, az: Option<&str>) -> Result<Subnet, String> {
    if id.is_empty() {
        return Err("an end has no id".to_owned());
    }
    let subnets = topology.subnets();
    let known = subnets.binary_search_by(|subnet| subnet.id.as_str().cmp(id)).ok().and_then(|at| subnets.get(at));
    match (known, az) {
        (Some(subnet), Some(az)) if subnet.az != az => {
            Err(format!("{id} is said to stand in {az}, the topology has it in {:?}", subnet.az))
        }
        (Some(subnet), _) => Ok(Subnet::new(id, Some(subnet.az.as_str()).filter(|az| !az.is_empty()))),
        (None, Some(az)) => Err(format!("{id} (zone {az}) is not in the topology")),
        (None, None) => Ok(Subnet::edge(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPOLOGY: &str =
        "subnets:\n  - { id: subnet-b, cidr: 10.1.0.0/16, az: z2 }\n  - { id: subnet-a, cidr: 10.2.0.0/16, az: z1 }\n";

    fn told(text: &str) -> Result<PairTable, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.jsonl");
        std::fs::write(&path, text).unwrap();
        let topology = Topology::parse(TOPOLOGY).unwrap();
        read_pairs(&path, &topology)
            .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn an_end_outside_the_topology_is_a_named_edge() {
        let pairs = told(r#"{"pair":7,"src":"subnet-a","dst":"internet","kind":"inet","src_az":"z1","dst_az":null}"#);
        let pair = pairs.unwrap().remove(&7).unwrap();
        assert_eq!((pair.src.az.as_deref(), pair.src.edge), (Some("z1"), false));
        assert!(pair.dst.edge);
    }

    #[test]
    fn what_contradicts_the_topology_is_told_with_its_line() {
        let good = r#"{"pair":1,"src":"subnet-a","dst":"subnet-b"}"#;
        let cases = [
            (format!("{good}\n{good}"), "line 2: pair 1 stands twice, first as subnet-a → subnet-b"),
            (
                r#"{"pair":1,"src":"subnet-c","dst":"subnet-b","src_az":"z9"}"#.into(),
                "line 1: subnet-c (zone z9) is not in",
            ),
            (
                r#"{"pair":1,"src":"subnet-a","dst":"subnet-b","src_az":"z2"}"#.into(),
                "line 1: subnet-a is said to stand in z2",
            ),
            (r#"{"pair":1,"src":"subnet-a"}"#.into(), "line 1: missing field `dst` (column"),
            ("\n\n".into(), ": no lines in it"),
        ];
        for (text, expected) in cases {
            let error = told(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
