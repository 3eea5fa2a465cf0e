//! Mutes of names there are, of names there are not, and of ranges.
use axum::body::to_bytes;
use axum::response::IntoResponse;
use serde_json::json;

use super::*;

const TOPOLOGY: &str = "
subnets:
  - {id: subnet-a, cidr: 10.0.0.0/20, az: use1-az1, vpc: vpc-1, name: web}
  - {id: subnet-b, cidrs: [10.0.16.0/20, 10.9.0.0/24], az: use1-az2, vpc: vpc-1}
  - {id: subnet-c, cidr: 10.0.64.0/20, vpc: vpc-2}
  - {id: subnet-d, cidr: 10.0.64.0/20, az: use1-az1, vpc: vpc-3}
edges:
  - {name: office, cidr: 192.0.2.0/24}
";

fn topology() -> Topology {
    Topology::parse(TOPOLOGY).unwrap()
}

fn place(place: Place) -> Result<Place, Refusal> {
    checked(&topology(), Scope { place: Some(place), signal: None }).map(|scope| scope.place.unwrap())
}

fn subnet(id: &str) -> Result<Place, Refusal> {
    place(Place::Subnet(id.into()))
}

/// Field, value, detail and fix of a refusal.
async fn told(refused: Result<Place, Refusal>) -> [Value; 4] {
    let answer = refused.unwrap_err().into_response();
    assert_eq!(answer.status(), 400);
    let body: Value = serde_json::from_slice(&to_bytes(answer.into_body(), 10_000).await.unwrap()).unwrap();
    assert_eq!(body["error"], "unknown");
    ["field", "value", "detail", "fix"].map(|key| body[key].clone())
}

const FORCE: &str = "; or send \"force\": true (--force) to mute it all the same";

#[test]
fn names_of_the_topology_and_the_internet_are_taken_as_they_are() {
    for name in ["subnet-a", "office", "internet"] {
        assert_eq!(subnet(name), Ok(Place::Subnet(name.into())));
    }
    let pair = Place::Pair { src: "subnet-a".into(), dst: "internet".into() };
    assert_eq!(place(pair.clone()), Ok(pair));
    assert_eq!(place(Place::Az("use1-az2".into())), Ok(Place::Az("use1-az2".into())));
    let signal = Scope { place: None, signal: Some(flowshift_detector::Signal::Latency) };
    assert_eq!(checked(&topology(), signal.clone()), Ok(signal));
}

/// It was taken silently, and kept nothing quiet.
#[tokio::test]
async fn an_unknown_zone_subnet_or_end_of_a_pair_is_refused_with_the_names_there_are() {
    let zones = format!("the topology's zones are use1-az1, use1-az2{FORCE}");
    let said = told(place(Place::Az("use1-az3".into()))).await;
    assert_eq!(said, ["az", "use1-az3", "no subnet of the topology is in this zone", &zones].map(|t| json!(t)));
    let ends =
        format!("the topology's subnets and edges are internet, office, subnet-a, subnet-b, subnet-c, subnet-d{FORCE}");
    let said = told(subnet("subnet-x")).await;
    assert_eq!(said, ["subnet", "subnet-x", "subnet-x is no subnet or edge of the topology", &ends].map(|t| json!(t)));
    for (src, dst) in [("subnet-x", "subnet-a"), ("subnet-a", "subnet-x")] {
        let said = told(place(Place::Pair { src: src.into(), dst: dst.into() })).await;
        assert_eq!(said[..2], [json!("pair"), json!(format!("{src}>{dst}"))]);
        assert_eq!(said[2], "subnet-x is no subnet or edge of the topology");
    }
    let said = told(subnet("web")).await;
    assert_eq!(
        said[2..],
        [json!("web is the name of subnet-a"), json!(format!("use subnet-a, which mutes all of it{FORCE}"))]
    );
}

#[tokio::test]
async fn of_very_many_names_the_ten_nearest_are_listed() {
    let subnet = |n: u8| topology::Subnet {
        id: format!("subnet-{n:03}"),
        cidrs: vec![format!("10.0.{n}.0/24").parse().unwrap()],
        ..topology::Subnet::default()
    };
    let topology = Topology::new((0..200).map(subnet).collect(), Vec::new()).unwrap();
    let scope = Scope { place: Some(Place::Subnet("subnet-1777".into())), signal: None };
    let [_, _, _, fix] = told(checked(&topology, scope).map(|scope| scope.place.unwrap())).await;
    let fix = fix.as_str().unwrap();
    assert!(fix.starts_with("the topology's subnets and edges are subnet-177, "), "{fix}");
    assert!(fix.contains(", the nearest of 201; or send") && fix.matches("subnet-").count() == 10, "{fix}");
    let scope = Scope { place: Some(Place::Az("use1-az1".into())), signal: None };
    let [_, _, _, fix] = told(checked(&topology, scope).map(|scope| scope.place.unwrap())).await;
    assert_eq!(fix, format!("the topology's zones are none{FORCE}"));
}

#[tokio::test]
async fn a_range_stands_for_the_subnet_it_is_all_of_and_else_is_refused_with_the_ids_to_use() {
    assert_eq!(subnet("10.0.0.0/20"), Ok(Place::Subnet("subnet-a".into())));
    assert_eq!(subnet("192.0.2.0/24"), Ok(Place::Subnet("office".into())));
    let one = |id: &str| format!("use {id}, which mutes all of it");
    for (written, detail, fix) in [
        // Narrower than a subnet: muting the subnet would mute more.
        ("10.0.1.0/24", "is a part of subnet-a", one("subnet-a")),
        ("10.0.1.7", "is a part of subnet-a", one("subnet-a")),
        ("10.0.1.7/24", "is a part of subnet-a", one("subnet-a")),
        // One of two ranges of its subnet.
        ("10.9.0.0/24", "is a part of subnet-b", one("subnet-b")),
        // Subnets of two VPCs have it.
        ("10.0.64.0/20", "is a part of 2 subnets", "mute each by its id: subnet-c, subnet-d".into()),
        ("10.0.0.0/19", "covers 2 subnets", "mute each by its id: subnet-a, subnet-b".into()),
        ("192.0.0.0/16", "covers office", one("office")),
        ("8.8.8.0/24", "is a part of internet", one("internet")),
    ] {
        let said = told(subnet(written)).await;
        assert_eq!(said[2..], [json!(format!("{written} {detail}")), json!(format!("{fix}{FORCE}"))], "{written}");
    }
    let said = told(subnet("10.200.0.0/16")).await;
    assert_eq!(said[2], "10.200.0.0/16 is in no range of the topology");
    assert!(said[3].as_str().unwrap().starts_with("the topology's subnets and edges are internet, "), "{said:?}");
}
