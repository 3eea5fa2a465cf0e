//! Our own topology file.
//!
//! ```yaml
//! subnets:
//!   - id: subnet-100
//!     cidr: 10.20.0.0/20              # or `cidrs: [10.20.0.0/20, "2600:1f18::/64"]`
//!     az: use1-az1
//!     vpc: vpc-00                     # optional, as are account and name
//! edges:                              # optional
//!   - name: office
//!     cidrs: [192.168.0.0/16]
//! ```
//! Unknown keys are errors: a mistyped `cidr` must not lose a subnet.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::build::{Builder, Entry, edge, parse_cidrs};
use super::{Edge, Subnet, Topology, TopologyError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    subnets: Vec<Spanned<RawSubnet>>,
    #[serde(default)]
    edges: Vec<Spanned<RawEdge>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSubnet {
    #[serde(default)]
    id: String,
    cidr: Option<String>,
    #[serde(default)]
    cidrs: Vec<String>,
    #[serde(default)]
    az: String,
    #[serde(default)]
    vpc: String,
    #[serde(default)]
    account: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEdge {
    #[serde(default)]
    name: String,
    cidr: Option<String>,
    #[serde(default)]
    cidrs: Vec<String>,
}

impl Topology {
    /// Reads our YAML.
    ///
    /// # Errors
    /// [`TopologyError`], naming the line of the entry and what to write instead.
    pub fn from_yaml(text: &str) -> Result<Self, TopologyError> {
        let file: File =
            serde_saphyr::from_str(text).map_err(|error| TopologyError::Syntax(error.without_snippet().to_string()))?;
        let mut builder = Builder::default();
        for spanned in file.subnets {
            let line = spanned.referenced.line();
            let raw = spanned.value;
            let entry = Entry::new(format!("line {line}"), &raw.id);
            let cidrs = parse_cidrs(&entry, raw.cidr.iter().chain(&raw.cidrs).map(String::as_str))?;
            let RawSubnet { id, az, vpc, account, name, .. } = raw;
            builder.subnet(entry, Subnet { id, cidrs, az, vpc, account, name })?;
        }
        for spanned in file.edges {
            let line = spanned.referenced.line();
            let raw = spanned.value;
            let entry = edge(format!("line {line}"), &raw.name);
            let cidrs = parse_cidrs(&entry, raw.cidr.iter().chain(&raw.cidrs).map(String::as_str))?;
            builder.edge(entry, Edge { name: raw.name, cidrs })?;
        }
        builder.finish()
    }
}
