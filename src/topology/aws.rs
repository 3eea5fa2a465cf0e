//! The JSON of `aws ec2 describe-subnets`, one page or the whole (the CLI joins pages by itself).
//!
//! Source: EC2 API reference, data type `Subnet`. Unknown fields are ignored, since AWS adds some. IPv6 associations
//! that are not `associated` or on the way there are left out.

use serde::Deserialize;

use super::build::{Builder, Entry, parse_cidrs};
use super::{Subnet, Topology, TopologyError};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    subnets: Vec<RawSubnet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct RawSubnet {
    subnet_id: String,
    cidr_block: Option<String>,
    ipv6_cidr_block_association_set: Vec<Ipv6Association>,
    availability_zone_id: String,
    vpc_id: String,
    owner_id: String,
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipv6Association {
    ipv6_cidr_block: String,
    ipv6_cidr_block_state: Option<AssociationState>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssociationState {
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

impl Topology {
    /// Reads the output of `aws ec2 describe-subnets --output json`.
    ///
    /// # Errors
    /// [`TopologyError`], naming the entry by its position and id.
    pub fn from_aws_json(text: &str) -> Result<Self, TopologyError> {
        let output: Output = serde_json::from_str(text).map_err(|error| TopologyError::Syntax(error.to_string()))?;
        let mut builder = Builder::default();
        for (position, raw) in output.subnets.into_iter().enumerate() {
            let entry = Entry::new(format!("Subnets[{position}]"), &raw.subnet_id);
            let v4 = raw.cidr_block.iter().map(String::as_str).filter(|cidr| !cidr.is_empty());
            let v6 = raw.ipv6_cidr_block_association_set.iter().filter(|association| association.is_live());
            let cidrs = parse_cidrs(&entry, v4.chain(v6.map(|association| association.ipv6_cidr_block.as_str())))?;
            let name = raw.tags.into_iter().find(|tag| tag.key == "Name").map(|tag| tag.value).unwrap_or_default();
            let subnet = Subnet {
                id: raw.subnet_id,
                cidrs,
                az: raw.availability_zone_id,
                vpc: raw.vpc_id,
                account: raw.owner_id,
                name,
            };
            builder.subnet(entry, subnet)?;
        }
        builder.finish()
    }
}

impl Ipv6Association {
    fn is_live(&self) -> bool {
        let live = |state: &AssociationState| matches!(state.state.as_str(), "associated" | "associating");
        self.ipv6_cidr_block_state.as_ref().is_none_or(live)
    }
}
