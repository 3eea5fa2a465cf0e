//! The topology file: it reads, and its ranges can be told apart.

use std::path::Path;

use super::{Finding, Patient};
use crate::config::Config;
use crate::topology::Topology;

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    if !patient.part.works() {
        return vec![Finding::ok("", "collect uses none")];
    }
    match read(&patient.config) {
        Ok(topology) => verdict(&topology),
        Err(finding) => vec![*finding],
    }
}

/// The topology that is configured.
pub(super) fn read(config: &Config) -> Result<Topology, Box<Finding>> {
    let path: &Path = config.topology.as_deref().ok_or_else(|| {
        Box::new(Finding::fault(
            "topology.file",
            "not set: no address can be mapped to a subnet, and `run` does not start",
            "aws ec2 describe-subnets > subnets.json, and topology.file = \"subnets.json\" (or --topology)",
        ))
    })?;
    let about = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Box::new(Finding::fault(
            &about,
            format!("it cannot be read: {error}"),
            "set topology.file to a file that this user may read; in Kubernetes it comes with the ConfigMap",
        ))
    })?;
    Topology::parse(&text).map_err(|error| {
        let fix = "mend the entry; the output of aws ec2 describe-subnets does as it is";
        Box::new(Finding::fault(&about, error.to_string(), fix))
    })
}

fn verdict(topology: &Topology) -> Vec<Finding> {
    let (subnets, edges) = (topology.subnets().len(), topology.edges().len());
    let mut findings = vec![Finding::ok("", format!("{subnets} subnets, {edges} edges"))];
    if let [first, rest @ ..] = topology.ambiguous() {
        findings.push(Finding::warning(
            first.to_string(),
            format!("this range{} in several VPCs: flows that do not name theirs are unmapped", others(rest.len())),
            "give the subnets their `vpc`, and feed records that carry it; or run a job for each VPC",
        ));
    }
    let zoneless = topology.subnets().iter().filter(|subnet| subnet.az.is_empty()).count();
    if zoneless > 0 {
        findings.push(Finding::warning(
            "az",
            format!(
                "{zoneless} of {subnets} subnets name no zone: faults of a zone or path cannot be told from theirs"
            ),
            "write `az` (a zone id such as use1-az1) to each",
        ));
    }
    findings
}

fn others(count: usize) -> String {
    if count == 0 { " stands".into() } else { format!(" and {count} others stand") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn levels(yaml: &str) -> Vec<Level> {
        verdict(&Topology::parse(yaml).unwrap()).iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn ranges_of_two_vpcs_that_overlap_and_subnets_without_a_zone_are_warnings() {
        let good = "subnets:\n  - {id: a, cidr: 10.0.0.0/24, az: z1, vpc: v1}\n";
        assert_eq!(levels(good), [Level::Ok]);
        let overlap = format!("{good}  - {{id: b, cidr: 10.0.0.0/24, az: z1, vpc: v2}}\n");
        assert_eq!(levels(&overlap), [Level::Ok, Level::Warning]);
        assert_eq!(levels("subnets:\n  - {id: a, cidr: 10.0.0.0/24}\n"), [Level::Ok, Level::Warning]);
    }

    #[test]
    fn a_file_that_is_not_set_missing_or_broken_is_a_fault_with_its_place() {
        let mut config = Config::local_defaults().unwrap();
        assert_eq!(read(&config).unwrap_err().about, "topology.file");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.yaml");
        config.topology = Some(path.clone());
        assert!(read(&config).unwrap_err().what.contains("cannot be read"));
        std::fs::write(&path, "subnets:\n  - {id: a, cidr: 10.0.0.1/24}\n").unwrap();
        let found = read(&config).unwrap_err();
        assert!(found.level == Level::Fault && found.what.contains("10.0.0.1/24"), "{found:?}");
    }
}
