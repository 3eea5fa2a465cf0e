//! Which incidents an endpoint is told of.
//!
//! For: one event against an endpoint's wishes. Not for: what becomes of later events of an incident that was told; see
//! `memory`. Invariant: pure; a wish that is not stated lets everything pass, and of stated ones all must be met.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use flowshift_proto::anomaly::{AnomalyEvent, ElementKind, Severity, Signal, Verdict};
use ipnet::IpNet;

/// A place that a filter names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubnetWish {
    /// A subnet by its id.
    Id(String),
    /// Every subnet with an address in the range.
    Range(IpNet),
}

impl SubnetWish {
    /// A range where the text is one, else an id.
    #[must_use]
    pub fn of(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Id(text.to_owned()), Self::Range)
    }
}

/// What an endpoint wishes to be told of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// At least this severe.
    pub min_severity: Option<Severity>,
    /// Any of these signals.
    pub signals: BTreeSet<Signal>,
    /// Any of these verdicts.
    pub verdicts: BTreeSet<Verdict>,
    /// A pair from or to any of these.
    pub subnets: Vec<SubnetWish>,
    /// A pair from or to a subnet in any of these zones, or a fault placed there.
    pub azs: BTreeSet<String>,
}

/// Where a subnet is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubnetPlace {
    /// Zone id.
    pub az: String,
    /// Address ranges.
    pub cidrs: Vec<IpNet>,
}

/// Where all subnets are, by id.
pub type Places = BTreeMap<String, SubnetPlace>;

/// Says where the subnets are now. It is asked for every entry and must not block.
#[derive(Clone)]
pub struct Map(Arc<dyn Fn() -> Arc<Places> + Send + Sync>);

impl Map {
    /// A map that asks `places`.
    pub fn from_fn(places: impl Fn() -> Arc<Places> + Send + Sync + 'static) -> Self {
        Self(Arc::new(places))
    }

    pub(super) fn places(&self) -> Arc<Places> {
        (self.0)()
    }
}

impl Default for Map {
    /// Knows no subnet.
    fn default() -> Self {
        let nowhere = Arc::new(Places::new());
        Self::from_fn(move || Arc::clone(&nowhere))
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Map")
    }
}

impl Filter {
    pub(super) fn passes(&self, event: &AnomalyEvent, places: &Places) -> bool {
        // The worst severity is the smallest.
        self.min_severity.is_none_or(|least| event.severity <= least)
            && (self.signals.is_empty() || self.signals.contains(&event.signal))
            && (self.verdicts.is_empty() || self.verdicts.contains(&event.verdict))
            && (self.subnets.is_empty() || subnets(event).any(|id| self.wants_subnet(id, places)))
            && (self.azs.is_empty() || self.wants_zone_of(event, places))
    }

    fn wants_subnet(&self, id: &str, places: &Places) -> bool {
        let inside = |range: &IpNet| {
            let cidrs = places.get(id).map_or(&[][..], |place| &place.cidrs);
            cidrs.iter().any(|cidr| range.contains(cidr) || cidr.contains(range))
        };
        self.subnets.iter().any(|wish| match wish {
            SubnetWish::Id(wanted) => wanted == id,
            SubnetWish::Range(range) => inside(range),
        })
    }

    fn wants_zone_of(&self, event: &AnomalyEvent, places: &Places) -> bool {
        let placed = matches!(event.element.kind, ElementKind::Az | ElementKind::AzPath)
            && event.element.id.split('|').any(|az| self.azs.contains(az));
        placed || subnets(event).any(|id| places.get(id).is_some_and(|place| self.azs.contains(&place.az)))
    }
}

/// The subnets an event is about.
fn subnets(event: &AnomalyEvent) -> impl Iterator<Item = &str> {
    let element = (event.element.kind == ElementKind::Subnet).then_some(event.element.id.as_str());
    event.pairs.iter().flat_map(|pair| [pair.src.as_str(), pair.dst.as_str()]).chain(element)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> AnomalyEvent {
        serde_json::from_str::<flowshift_proto::anomaly::WebhookBody>(include_str!(
            "../../proto/examples/anomaly.opened.json"
        ))
        .unwrap()
        .data
    }

    fn places() -> Places {
        let place = |az: &str, cidr: &str| SubnetPlace { az: az.into(), cidrs: vec![cidr.parse().unwrap()] };
        Places::from([
            ("subnet-a".into(), place("use1-az1", "10.0.1.0/24")),
            ("subnet-b".into(), place("use1-az2", "10.0.2.0/24")),
        ])
    }

    fn passes(filter: &Filter) -> bool {
        filter.passes(&event(), &places())
    }

    #[test]
    fn severity_is_a_floor_and_the_worst_always_passes() {
        let least = |severity| Filter { min_severity: Some(severity), ..Filter::default() };
        let mild = AnomalyEvent { severity: Severity::S3, ..event() };
        assert!(passes(&least(Severity::S1)) && passes(&least(Severity::S4)));
        assert!(!least(Severity::S2).passes(&mild, &places()) && least(Severity::S3).passes(&mild, &places()));
    }

    #[test]
    fn signals_and_verdicts_are_sets_and_all_stated_wishes_must_be_met() {
        let signals = |signal| Filter { signals: BTreeSet::from([signal, Signal::Connect]), ..Filter::default() };
        assert!(passes(&signals(Signal::Retransmit)) && !passes(&signals(Signal::Latency)));
        let verdicts = BTreeSet::from([Verdict::ProviderPath]);
        assert!(!passes(&Filter { verdicts, ..signals(Signal::Retransmit) }));
        assert!(passes(&Filter::default()));
    }

    #[test]
    fn a_subnet_is_wished_by_id_by_a_range_around_it_or_a_range_in_it_on_either_side() {
        let subnets = |text: &str| Filter { subnets: vec![SubnetWish::of(text)], ..Filter::default() };
        for text in ["subnet-a", "subnet-b", "10.0.0.0/16", "10.0.2.0/24", "10.0.2.128/25"] {
            assert!(passes(&subnets(text)), "{text}");
        }
        for text in ["subnet-c", "10.1.0.0/16", "10.0.3.0/24", "fd00::/8"] {
            assert!(!passes(&subnets(text)), "{text}");
        }
    }

    #[test]
    fn a_zone_is_wished_by_its_subnets_or_by_the_place_of_the_fault() {
        let azs = |az: &str| Filter { azs: BTreeSet::from([az.to_owned()]), ..Filter::default() };
        assert!(passes(&azs("use1-az1")) && passes(&azs("use1-az2")) && !passes(&azs("use1-az3")));
        let mut path = event();
        path.element.kind = ElementKind::AzPath;
        path.element.id = "use1-az3|use1-az4".into();
        assert!(azs("use1-az4").passes(&path, &Places::new()) && !azs("use1-az").passes(&path, &Places::new()));
    }
}
