//! The demo region: three zones of four subnets, 58 directed pairs, and the schedule of what is planted.
//!
//! Each zone has a web, an app, a db and a cache subnet; the tiers talk inside the zone and across, the web tier also
//! with the internet. The schedule is fixed; the seed draws the pairs' nature and all noise.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::agent::Agent;
use super::pair::{Pair, Role};
use super::planted::{Effect, Element, Planted, PlantedKind};

const ZONES: usize = 3;
const TIERS: [&str; 4] = ["web", "app", "db", "cache"];
const VPC: &str = "vpc-demo";
/// Start of the region unless another is set: 2026-01-01T00:00:00Z.
const DEFAULT_START_S: i64 = 1_767_225_600;
/// Rows a report may be expected to hold at most; the agent's own limit is 500.
const ROWS_PER_REPORT: f64 = 330.0;

/// Median RTT in microseconds: inside a zone, between zones, to the internet.
const RTT_INTRA: (f64, f64) = (150.0, 450.0);
const RTT_INTER: (f64, f64) = (600.0, 1800.0);
const RTT_INTERNET: (f64, f64) = (15_000.0, 60_000.0);

/// One simulated subnet.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) id: String,
    pub(super) zone: String,
    /// First address of its /20.
    pub(super) v4: Ipv4Addr,
    /// First address of its /64.
    pub(super) v6: Ipv6Addr,
}

/// A simulated region. Times in its API are seconds after its start.
#[derive(Clone, Debug)]
pub struct Region {
    pub(super) seed: u64,
    pub(super) start_s: i64,
    pub(super) places: Vec<Place>,
    pub(super) pairs: Vec<Pair>,
    pub(super) agents: Vec<Agent>,
    /// Pairs by source subnet.
    pub(super) pairs_of: Vec<Vec<usize>>,
    /// Agents in each subnet.
    pub(super) agents_in: Vec<usize>,
    planted: Vec<Planted>,
    /// Planted changes by pair.
    planted_on: Vec<Vec<usize>>,
}

impl Region {
    /// Length of the demo: the last planted change and its recovery fit into it.
    pub const DEMO_SECONDS: i64 = 34 * 60;

    /// The demo region of a seed, starting at 2026-01-01T00:00:00Z.
    pub fn demo(seed: u64) -> Self {
        let places: Vec<Place> = (0..ZONES * TIERS.len()).map(place).collect();
        let mut pairs = Vec::new();
        for (number, (ends, role, rtt)) in pair_list().into_iter().enumerate() {
            pairs.push(Pair::draw(seed, number, ends, role, rtt));
        }
        let mut region = Self {
            seed,
            start_s: DEFAULT_START_S,
            pairs_of: (0..places.len()).map(|place| of_source(&pairs, place)).collect(),
            planted_on: vec![Vec::new(); pairs.len()],
            places,
            pairs,
            agents: Vec::new(),
            agents_in: Vec::new(),
            planted: Vec::new(),
        };
        region.plant();
        region.staff();
        region
    }

    /// The same region starting at another time (seconds since 1970). Take a multiple of 60, so that planted changes
    /// meet the same steps; everything else is only moved.
    #[must_use]
    pub fn starting_at(mut self, epoch_s: i64) -> Self {
        self.start_s = epoch_s;
        self
    }

    /// The start, seconds since 1970.
    pub fn start_s(&self) -> i64 {
        self.start_s
    }

    /// What is planted, by start.
    pub fn planted(&self) -> &[Planted] {
        &self.planted
    }

    /// The same region with nothing planted.
    #[must_use]
    pub fn without_planted(mut self) -> Self {
        self.planted.clear();
        self.planted_on.iter_mut().for_each(Vec::clear);
        self
    }

    /// All directed pairs as (source, destination).
    pub fn pair_ids(&self) -> Vec<(&str, &str)> {
        self.pairs.iter().map(|pair| (self.id(Some(pair.src)), self.id(pair.dst))).collect()
    }

    /// Number of agents that report.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// The topology file of the region.
    pub fn topology_yaml(&self) -> String {
        let mut out = String::from("# simulated region; an address in no subnet below is `internet`\nsubnets:\n");
        for place in &self.places {
            let Place { id, zone, v4, v6 } = place;
            let written = writeln!(
                out,
                "  - id: {id}\n    cidrs: [{v4}/20, \"{v6}/64\"]\n    az: {zone}\n    vpc: {VPC}\n    name: {}",
                id.trim_start_matches("subnet-")
            );
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
        }
        out
    }

    /// What is planted on a pair in an interval of offsets.
    pub(super) fn effect(&self, pair: usize, from_ms: i64, to_ms: i64) -> Effect {
        let mut effect = Effect::default();
        for planted in self.planted_on.get(pair).into_iter().flatten().filter_map(|index| self.planted.get(*index)) {
            effect.add(planted, from_ms, to_ms);
        }
        effect
    }

    fn id(&self, place: Option<usize>) -> &str {
        place.and_then(|place| self.places.get(place)).map_or("internet", |place| &place.id)
    }

    fn find(&self, src: &str, dst: &str) -> Option<usize> {
        self.pairs.iter().position(|pair| self.id(Some(pair.src)) == src && self.id(pair.dst) == dst)
    }

    /// The schedule. Single pairs get a middling volume, so that a seed cannot hide or drown a fault.
    fn plant(&mut self) {
        use PlantedKind::{ConnectFailures, Loss, NewClients, Rtt, Surge};
        let on_pairs = [
            ("benign surge of flows", Surge, 5.0, ("subnet-app-2", "subnet-cache-2"), (5, 15), 80.0),
            ("5 % loss", Loss, 0.05, ("subnet-app-1", "subnet-db-3"), (7, 17), 180.0),
            ("refused connections", ConnectFailures, 0.30, ("subnet-web-3", "subnet-app-3"), (14, 24), 150.0),
            ("benign deploy of new clients", NewClients, 0.5, ("subnet-web-2", "internet"), (19, 29), 120.0),
        ];
        for (name, kind, magnitude, (src, dst), minutes, rows) in on_pairs {
            let Some(pair) = self.find(src, dst) else { continue };
            if let Some(pair) = self.pairs.get_mut(pair) {
                pair.rows_per_minute = rows;
            }
            let element = Element { kind: "pair", id: format!("{src}>{dst}") };
            self.add(name, kind, magnitude, element, vec![pair], minutes);
        }
        let path = ["use1-az1", "use1-az2"];
        let zone = |place: usize| self.places.get(place).map_or("", |place| place.zone.as_str());
        let crosses = |pair: &Pair| {
            let ends = pair.dst.map(|dst| [zone(pair.src), zone(dst)]);
            ends.is_some_and(|[a, b]| a != b && path.contains(&a) && path.contains(&b))
        };
        let hit = (0..self.pairs.len()).filter(|pair| self.pairs.get(*pair).is_some_and(crosses)).collect();
        let element = Element { kind: "az_path", id: path.join("|") };
        self.add("25 % more RTT between two zones", Rtt, 0.25, element, hit, (10, 20));
        let mut order: Vec<usize> = (0..self.planted.len()).collect();
        order.sort_by_key(|index| self.planted.get(*index).map(|planted| planted.start_s));
        self.planted.sort_by_key(|planted| planted.start_s);
        for index in self.planted_on.iter_mut().flatten() {
            *index = order.iter().position(|old| old == index).unwrap_or(*index);
        }
    }

    fn add(
        &mut self,
        name: &str,
        kind: PlantedKind,
        magnitude: f64,
        element: Element,
        pairs: Vec<usize>,
        (start, end): (i64, i64),
    ) {
        for pair in &pairs {
            if let Some(on) = self.planted_on.get_mut(*pair) {
                on.push(self.planted.len());
            }
        }
        let named = |pair: &usize| {
            let pair = self.pairs.get(*pair)?;
            Some((self.id(Some(pair.src)).to_owned(), self.id(pair.dst).to_owned()))
        };
        let pairs = pairs.iter().filter_map(named).collect();
        let (start_s, end_s) = (start * 60, end * 60);
        let signal = kind.signal();
        self.planted.push(Planted { name: name.to_owned(), kind, magnitude, element, pairs, start_s, end_s, signal });
    }

    /// Gives each subnet as many agents as keep every report below the agent's limit of rows, surges included.
    fn staff(&mut self) {
        for (place, pairs) in self.pairs_of.iter().enumerate() {
            let peak = |pair: &usize| {
                let surge = |planted: &&usize| match self.planted.get(**planted) {
                    Some(Planted { kind: PlantedKind::Surge, magnitude, .. }) => *magnitude,
                    Some(Planted { kind: PlantedKind::NewClients, magnitude, .. }) => 1.0 + magnitude,
                    _ => 1.0,
                };
                let factor =
                    self.planted_on.get(*pair).into_iter().flatten().map(|index| surge(&index)).fold(1.0, f64::max);
                self.pairs.get(*pair).map_or(0.0, |pair| pair.peak_rows_per_minute() * factor)
            };
            let rows: f64 = pairs.iter().map(peak).sum::<f64>() / 2.0;
            let count = (rows / ROWS_PER_REPORT).ceil().max(1.0) as usize;
            self.agents_in.push(count);
            for within in 0..count {
                self.agents.push(Agent::new(self.seed, self.agents.len(), place, within));
            }
        }
    }
}

fn place(number: usize) -> Place {
    let (zone, tier) = (number / TIERS.len() + 1, TIERS[number % TIERS.len()]);
    let third = u8::try_from(number * 16).unwrap_or(u8::MAX);
    let segment = u16::try_from(number + 1).unwrap_or(u16::MAX);
    Place {
        id: format!("subnet-{tier}-{zone}"),
        zone: format!("use1-az{zone}"),
        v4: Ipv4Addr::new(10, 20, third, 0),
        v6: Ipv6Addr::new(0x2001, 0xdb8, 0x20, segment, 0, 0, 0, 0),
    }
}

type PairPlan = ((usize, Option<usize>), Role, (f64, f64));

/// Who talks to whom: both directions of 27 conversations, and four with the internet.
fn pair_list() -> Vec<PairPlan> {
    let [web, app, db, cache] = [0, 1, 2, 3];
    let at = |zone: usize, tier: usize| zone * TIERS.len() + tier;
    let mut conversations = Vec::new();
    for zone in 0..ZONES {
        for (client, server) in [(web, app), (app, db), (app, cache), (web, cache)] {
            conversations.push((at(zone, client), at(zone, server), RTT_INTRA));
        }
        for other in zone + 1..ZONES {
            conversations.push((at(zone, web), at(other, app), RTT_INTER));
            conversations.push((at(other, web), at(zone, app), RTT_INTER));
            conversations.push((at(zone, app), at(other, db), RTT_INTER));
            conversations.push((at(other, app), at(zone, db), RTT_INTER));
            conversations.push((at(zone, app), at(other, cache), RTT_INTER));
        }
    }
    let mut plans = Vec::new();
    for (client, server, rtt) in conversations {
        plans.push(((client, Some(server)), Role::Client, rtt));
        plans.push(((server, Some(client)), Role::Server, rtt));
    }
    for zone in 0..ZONES {
        plans.push(((at(zone, web), None), Role::Server, RTT_INTERNET));
    }
    plans.push(((at(0, app), None), Role::Client, RTT_INTERNET));
    plans
}

fn of_source(pairs: &[Pair], place: usize) -> Vec<usize> {
    (0..pairs.len()).filter(|pair| pairs.get(*pair).is_some_and(|pair| pair.src == place)).collect()
}
