//! Tests of the readers and of the lookup against a naive scan.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;

use super::*;

const YAML: &str = r#"
subnets:
  - id: subnet-a
    cidr: 10.20.0.0/20
    az: use1-az1
    vpc: vpc-1
  - id: subnet-b
    cidrs: [10.20.16.0/20, "2600:1f18:1:2::/64"]
    az: use1-az2
    vpc: vpc-1
    account: "111122223333"
    name: web
  - id: subnet-c          # the same range in another VPC
    cidr: 10.20.0.0/20
    az: use1-az1
    vpc: vpc-2
  - {id: subnet-d, cidr: 10.20.4.0/24, vpc: vpc-1}
edges:
  - name: office
    cidrs: [192.168.0.0/16, 203.0.113.0/24]
"#;

fn place(topology: &Topology, ip: &str, vpc: Option<&str>) -> String {
    match topology.lookup(ip.parse().unwrap(), vpc) {
        Place::Subnet(index) => topology.subnet(index).unwrap().id.clone(),
        Place::Edge(name) => format!("edge {name}"),
        Place::Unmapped => "unmapped".to_owned(),
    }
}

#[test]
fn addresses_go_to_the_longest_prefix_of_their_vpc() {
    let topology = Topology::parse(YAML).unwrap();
    for (ip, vpc, want) in [
        ("10.20.1.1", Some("vpc-1"), "subnet-a"),
        ("10.20.1.1", Some("vpc-2"), "subnet-c"),
        ("10.20.1.1", None, "unmapped"),
        ("10.20.1.1", Some("vpc-unknown"), "unmapped"),
        ("10.20.4.9", Some("vpc-1"), "subnet-d"),
        ("10.20.4.9", Some("vpc-2"), "subnet-c"),
        ("10.20.4.9", None, "unmapped"),
        ("10.20.17.1", None, "subnet-b"),
        ("10.20.17.1", Some("vpc-2"), "subnet-b"),
        ("::ffff:10.20.17.1", None, "subnet-b"),
        ("2600:1f18:1:2::7", None, "subnet-b"),
        ("2600:1f18:1:3::7", None, "edge internet"),
        ("192.168.7.7", Some("vpc-1"), "edge office"),
        ("203.0.113.9", None, "edge office"),
        ("8.8.8.8", None, "edge internet"),
        ("10.99.0.1", None, "unmapped"),
        ("172.16.0.1", None, "unmapped"),
        ("172.32.0.1", None, "edge internet"),
        ("100.64.0.1", None, "unmapped"),
        ("100.128.0.1", None, "edge internet"),
        ("169.254.169.254", None, "unmapped"),
        ("127.0.0.1", None, "unmapped"),
        ("224.0.0.1", None, "unmapped"),
        ("255.255.255.255", None, "unmapped"),
        ("fd00::1", None, "unmapped"),
        ("fe80::1", None, "unmapped"),
        ("::1", None, "unmapped"),
        ("::ffff:8.8.8.8", None, "edge internet"),
    ] {
        assert_eq!(place(&topology, ip, vpc), want, "{ip} {vpc:?}");
    }
    assert_eq!(topology.ambiguous().len(), 2);
}

#[test]
fn an_edge_inside_a_subnet_wins_by_its_longer_prefix_in_every_vpc() {
    let text = "subnets: [{id: s, cidr: 10.0.0.0/16, vpc: v}]\nedges: [{name: nat, cidr: 10.0.0.5/32}]";
    let topology = Topology::parse(text).unwrap();
    assert_eq!(place(&topology, "10.0.0.5", Some("v")), "edge nat");
    assert_eq!(place(&topology, "10.0.0.6", Some("v")), "s");
}

const AWS: &str = r#"{"Subnets":[
 {"SubnetId":"subnet-1","CidrBlock":"10.0.0.0/24","AvailabilityZone":"us-east-1a","AvailabilityZoneId":"use1-az4","VpcId":"vpc-9",
  "OwnerId":"111122223333","MapPublicIpOnLaunch":false,"Tags":[{"Key":"Env","Value":"prod"},{"Key":"Name","Value":"web-a"}],
  "Ipv6CidrBlockAssociationSet":[
   {"AssociationId":"a","Ipv6CidrBlock":"2600:1f18:aa:1::/64","Ipv6CidrBlockState":{"State":"associated"}},
   {"AssociationId":"b","Ipv6CidrBlock":"2600:1f18:bb:1::/64","Ipv6CidrBlockState":{"State":"disassociated"}}]},
 {"SubnetId":"subnet-2","AvailabilityZoneId":"use1-az4","VpcId":"vpc-9","OwnerId":"111122223333","Ipv6Native":true,
  "Ipv6CidrBlockAssociationSet":[{"AssociationId":"c","Ipv6CidrBlock":"2600:1f18:aa:2::/64","Ipv6CidrBlockState":{"State":"associated"}}]}
]}"#;

#[test]
fn the_output_of_describe_subnets_is_read_as_it_comes() {
    let topology = Topology::parse(AWS).unwrap();
    let first = &topology.subnets()[0];
    assert_eq!((first.id.as_str(), first.az.as_str(), first.vpc.as_str()), ("subnet-1", "use1-az4", "vpc-9"));
    assert_eq!((first.account.as_str(), first.name.as_str(), first.cidrs.len()), ("111122223333", "web-a", 2));
    assert_eq!(place(&topology, "2600:1f18:aa:2::1", None), "subnet-2");
    assert_eq!(place(&topology, "2600:1f18:bb:1::1", None), "edge internet");
}

#[test]
fn errors_name_the_entry_and_the_fix() {
    for (text, parts) in [
        ("subnets: []", vec!["no subnet in the topology"]),
        (
            "subnets:\n  - id: a\n    cidr: 10.0.1.0/20\n",
            vec!["line 2 (a): `10.0.1.0/20` is not a CIDR; write 10.0.0.0/20"],
        ),
        ("subnets:\n  - id: a\n    cidr: ten\n", vec!["line 2 (a): `ten` is not a CIDR; write it as 10.0.0.0/20"]),
        ("subnets:\n  - id: a\n", vec!["line 2 (a): `cidr` is missing"]),
        ("subnets:\n  - cidr: 10.0.0.0/20\n", vec!["line 2: `id` is missing"]),
        ("subnets:\n  - id: a\n    cidr: \"::ffff:10.0.0.0/112\"\n", vec!["write the IPv4 range itself"]),
        ("subnets:\n  - id: a\n    cdir: 10.0.0.0/20\n", vec!["cdir", "line 3"]),
        ("subnets: 5", vec!["line 1"]),
        (
            "subnets:\n  - id: a\n    cidr: 10.0.0.0/20\n  - id: b\n    cidr: 10.0.0.0/20\n",
            vec!["line 2 (a) and line 4 (b) both claim 10.0.0.0/20"],
        ),
        (
            "subnets:\n  - id: a\n    cidr: 10.0.0.0/20\n  - id: a\n    cidr: 10.1.0.0/20\n",
            vec!["line 2 (a) and line 4 (a) are both called `a`"],
        ),
        (
            "subnets:\n  - id: a\n    cidr: 10.0.0.0/20\nedges:\n  - name: e\n    cidr: 10.0.0.0/20\n",
            vec!["line 5, edge (e) and line 2 (a) both claim 10.0.0.0/20"],
        ),
        (r#"{"Subnets":[{"SubnetId":"s","CidrBlock":"x"}]}"#, vec!["Subnets[0] (s): `x` is not a CIDR"]),
        (r#"{"Subnets":[{"SubnetId":"s"}]}"#, vec!["Subnets[0] (s): `cidr` is missing"]),
        (r#"{"Subnets":[{"SubnetId":7}]}"#, vec!["line 1 column"]),
    ] {
        let error = Topology::parse(text).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{text}\n{part}\n{error}");
        }
    }
}

#[test]
fn the_order_of_the_file_changes_nothing() {
    let one =
        Topology::parse("subnets: [{id: b, cidrs: [10.1.0.0/20, 10.2.0.0/20]}, {id: a, cidr: 10.0.0.0/20}]").unwrap();
    let two =
        Topology::parse("subnets: [{id: a, cidr: 10.0.0.0/20}, {id: b, cidrs: [10.2.0.0/20, 10.1.0.0/20]}]").unwrap();
    assert_eq!((one.content_hash(), one.subnets()), (two.content_hash(), two.subnets()));
    let rebuilt = Topology::new(one.subnets().to_vec(), one.edges().to_vec()).unwrap();
    assert_eq!(rebuilt.content_hash(), one.content_hash());
    let other =
        Topology::parse("subnets: [{id: a, cidr: 10.0.0.0/20, az: x}, {id: b, cidrs: [10.2.0.0/20, 10.1.0.0/20]}]");
    assert_ne!(one.content_hash(), other.unwrap().content_hash());
}

/// Ranges and addresses from a small space, so that they meet.
fn small_net() -> impl Strategy<Value = Ipv4Net> {
    (0_u32..4096, 20_u8..=32)
        .prop_map(|(low, length)| Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 | low), length).unwrap().trunc())
}

/// The subnet by definition: try every range of the VPC, keep the longest; without VPC several VPCs answer nothing.
fn naive(subnets: &[Subnet], ip: IpAddr, vpc: Option<&str>) -> Option<usize> {
    let holding = |only: Option<&str>| {
        let mut found: Vec<(u8, usize)> = Vec::new();
        for (index, subnet) in subnets.iter().enumerate() {
            if only.is_none_or(|vpc| vpc == subnet.vpc) {
                let cidrs = subnet.cidrs.iter().filter(|cidr| cidr.contains(&ip));
                found.extend(cidrs.map(|cidr| (cidr.prefix_len(), index)));
            }
        }
        found
    };
    let own = vpc.map(|vpc| holding(Some(vpc))).unwrap_or_default();
    if let Some((_, index)) = own.iter().max() {
        return Some(*index);
    }
    let all = holding(None);
    let one_vpc = all.iter().all(|(_, index)| subnets[*index].vpc == subnets[all[0].1].vpc);
    all.iter().max().filter(|_| one_vpc).map(|(_, index)| *index)
}

proptest! {
    #[test]
    fn lookup_agrees_with_a_naive_scan(
        nets in prop::collection::vec((small_net(), 0_u8..3), 1..24),
        addresses in prop::collection::vec((0_u32..4096, prop::option::of(0_u8..4)), 64),
    ) {
        let mut subnets: Vec<Subnet> = Vec::new();
        for (net, vpc) in nets {
            let (cidr, vpc) = (IpNet::V4(net), format!("vpc-{vpc}"));
            if subnets.iter().all(|other| other.vpc != vpc || other.cidrs[0] != cidr) {
                let id = format!("s{:02}", subnets.len());
                subnets.push(Subnet { id, cidrs: vec![cidr], vpc, ..Subnet::default() });
            }
        }
        let topology = Topology::new(subnets.clone(), Vec::new()).unwrap();
        for (low, vpc) in addresses {
            let ip = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | low));
            let vpc = vpc.map(|vpc| format!("vpc-{vpc}"));
            let want = naive(&subnets, ip, vpc.as_deref());
            let got = match topology.lookup(ip, vpc.as_deref()) {
                Place::Subnet(index) => Some(index.get()),
                _ => None,
            };
            prop_assert_eq!(got, want, "{} {:?}", ip, vpc);
        }
    }

    #[test]
    fn any_text_is_read_or_refused_without_panic(text in "(?s)[ -~\n]{0,200}") {
        drop(Topology::parse(&text));
        drop(Topology::parse(&format!("subnets:\n{text}")));
    }
}
