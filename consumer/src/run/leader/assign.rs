//! Who gets which lease: a pure function from what the leader sees to the moves it makes.
//!
//! 1. Leases that nobody renews go, longest silent first, to the worker with the least load, and not back to the worker
//!    that let them expire. A hand-over that takes too long is finished for its next owner.
//! 2. When nothing else moves and nobody is suspect, load is evened out by hand-over: a worker more than a tenth off
//!    the average gives to the least loaded one, if that brings the two closer by at least a tenth of the average; then
//!    counts that differ by two or more are evened out where that drives no loads apart. A lease that moved lately
//!    stays.
//!
//! Load is throughput plus a little per lease, so idle leases count by number. Not here: reading and writing rows
//! ([`super`]). Invariants: deterministic in its arguments; a lease is moved at most once per plan; every step of 2
//! lowers the squares of the loads or, leaving them, those of the counts, so a fleet that stands still comes to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a lease weighs besides its throughput, bytes per second.
const IDLE_WEIGHT: u64 = 1024;
/// Moves by hand-over in one plan: a tenth of the leases, at least this many.
const FEWEST_MOVES: usize = 4;

/// A lease that could be assigned now.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseView {
    pub(crate) shard: String,
    /// The owner, during a hand-over the next one.
    pub(crate) owner: Option<String>,
    /// The old owner during a hand-over.
    pub(crate) leaving: Option<String>,
    /// How long the counter has stood still.
    pub(crate) still: Duration,
    /// How long this hand-over has been going on.
    pub(crate) handing: Duration,
    /// The owner is known to be gone, whatever the counter did.
    pub(crate) gone: bool,
    pub(crate) bytes_per_second: u64,
    /// It was moved lately and stays where it is unless its owner dies.
    pub(crate) settled: bool,
}

/// A worker that takes leases of the stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerView {
    pub(crate) id: String,
    /// Its beat stands still longer than a healthy one's: it gets nothing new.
    pub(crate) suspect: bool,
    /// Leases of other streams it has.
    pub(crate) elsewhere: usize,
}

/// When something is taken to be over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) failover: Duration,
    pub(crate) hand_over: Duration,
}

/// What to do with a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Move {
    /// Give it to a worker now: nobody renews it, or its hand-over is stuck.
    Assign { lease: usize, to: String },
    /// Ask its owner to commit and pass it on.
    HandOver { lease: usize, to: String },
}

#[derive(Debug, Default)]
struct Load {
    weight: u64,
    count: usize,
    elsewhere: usize,
    suspect: bool,
}

/// Plans one pass over the leases of a stream.
pub(crate) fn plan(leases: &[LeaseView], workers: &[WorkerView], limits: Limits) -> Vec<Move> {
    if workers.is_empty() {
        return Vec::new();
    }
    let mut fleet: BTreeMap<&str, Load> = workers
        .iter()
        .map(|w| (w.id.as_str(), Load { elsewhere: w.elsewhere, suspect: w.suspect, ..Load::default() }))
        .collect();
    let mut orphans: Vec<usize> = Vec::new();
    for (index, lease) in leases.iter().enumerate() {
        if is_orphan(lease, limits) {
            orphans.push(index);
        } else if let Some(load) = lease.owner.as_deref().and_then(|owner| fleet.get_mut(owner)) {
            load.add(lease);
        }
    }
    if orphans.is_empty() {
        // Who is suspect lives or is gone within seconds; until then nobody knows what an even share is.
        let open = leases.iter().any(|lease| lease.leaving.is_some()) || workers.iter().any(|worker| worker.suspect);
        return if open { Vec::new() } else { even_out(leases, &mut fleet) };
    }
    orphans.sort_by(|a, b| {
        let (a, b) = (&leases[*a], &leases[*b]);
        b.still.cmp(&a.still).then_with(|| a.shard.cmp(&b.shard))
    });
    let mut moves = Vec::new();
    for index in orphans {
        let lease = &leases[index];
        let to = match (&lease.leaving, lease.owner.as_deref().and_then(|owner| fleet.get_key_value(owner))) {
            // The next owner of a stuck hand-over is as good as when it was chosen.
            (Some(_), Some((next, load))) if !load.suspect => Some(*next),
            _ => least_loaded(&fleet, lease.owner.as_deref()),
        };
        let Some(to) = to else { continue };
        if let Some(load) = fleet.get_mut(to) {
            load.add(lease);
        }
        moves.push(Move::Assign { lease: index, to: to.to_owned() });
    }
    moves
}

impl Load {
    fn add(&mut self, lease: &LeaseView) {
        self.weight = self.weight.saturating_add(weight(lease));
        self.count += 1;
    }

    fn remove(&mut self, lease: &LeaseView) {
        self.weight = self.weight.saturating_sub(weight(lease));
        self.count = self.count.saturating_sub(1);
    }
}

fn weight(lease: &LeaseView) -> u64 {
    lease.bytes_per_second.saturating_add(IDLE_WEIGHT)
}

/// Whether nobody will bring the lease forward any more.
fn is_orphan(lease: &LeaseView, limits: Limits) -> bool {
    let stuck = lease.leaving.is_some() && lease.handing >= limits.hand_over;
    lease.owner.is_none() || lease.gone || stuck || lease.still >= limits.failover
}

/// The best worker for a lease that `last` did not renew.
fn least_loaded<'a>(fleet: &BTreeMap<&'a str, Load>, last: Option<&str>) -> Option<&'a str> {
    let order = |(id, load): &(&&'a str, &Load)| {
        (load.suspect, Some(**id) == last, load.weight, load.count, load.elsewhere, **id)
    };
    fleet.iter().min_by_key(order).map(|(id, _)| *id)
}

/// Moves of owned leases from loaded workers to less loaded ones.
fn even_out(leases: &[LeaseView], fleet: &mut BTreeMap<&str, Load>) -> Vec<Move> {
    let bound = FEWEST_MOVES.max(leases.len().div_ceil(10));
    let total = fleet.values().fold(0u64, |sum, load| sum.saturating_add(load.weight));
    let average = total / fleet.len().max(1) as u64;
    let mut moved = BTreeSet::new();
    let mut moves = Vec::new();
    while moves.len() < bound {
        let next = by_weight(leases, fleet, &moved, average).or_else(|| by_count(leases, fleet, &moved));
        let Some((index, from, to)) = next else { break };
        if let Some(load) = fleet.get_mut(from.as_str()) {
            load.remove(&leases[index]);
        }
        if let Some(load) = fleet.get_mut(to.as_str()) {
            load.add(&leases[index]);
        }
        moved.insert(index);
        moves.push(Move::HandOver { lease: index, to });
    }
    moves
}

type Step = (usize, String, String);

fn movable<'a>(
    leases: &'a [LeaseView],
    moved: &'a BTreeSet<usize>,
    from: &'a str,
) -> impl Iterator<Item = (usize, &'a LeaseView)> {
    let free = move |(index, lease): &(usize, &LeaseView)| {
        lease.owner.as_deref() == Some(from) && !lease.settled && !moved.contains(index)
    };
    leases.iter().enumerate().filter(free)
}

/// One move that brings the most and the least loaded worker closer by at least a tenth of the average, and the lease's
/// own weight.
fn by_weight(
    leases: &[LeaseView],
    fleet: &BTreeMap<&str, Load>,
    moved: &BTreeSet<usize>,
    average: u64,
) -> Option<Step> {
    let (hot, high) = fleet.iter().max_by_key(|(id, load)| (load.weight, std::cmp::Reverse(**id)))?;
    let takers = fleet.iter().filter(|(_, load)| !load.suspect);
    let (cold, low) = takers.min_by_key(|(id, load)| (load.weight, load.elsewhere, **id))?;
    let tenth = average / 10;
    if high.weight <= average.saturating_add(tenth) && low.weight.saturating_add(tenth) >= average {
        return None;
    }
    let apart = high.weight.saturating_sub(low.weight);
    let after = |lease: &LeaseView| apart.abs_diff(weight(lease).saturating_mul(2));
    let (index, lease) = movable(leases, moved, hot).min_by_key(|(index, lease)| (after(lease), *index))?;
    let gain = apart.saturating_sub(after(lease));
    let worth = gain > tenth.max(IDLE_WEIGHT / 2) && gain >= weight(lease);
    (hot != cold && worth).then(|| (index, (*hot).to_owned(), (*cold).to_owned()))
}

/// One move between workers whose counts differ by two or more, if it does not drive their loads apart.
fn by_count(leases: &[LeaseView], fleet: &BTreeMap<&str, Load>, moved: &BTreeSet<usize>) -> Option<Step> {
    let (many, most) = fleet.iter().max_by_key(|(id, load)| (load.count, load.weight, std::cmp::Reverse(**id)))?;
    let takers = fleet.iter().filter(|(_, load)| !load.suspect);
    let (few, least) = takers.min_by_key(|(id, load)| (load.count, load.weight, load.elsewhere, **id))?;
    if most.count < least.count.saturating_add(2) {
        return None;
    }
    let (index, lease) = movable(leases, moved, many).min_by_key(|(index, lease)| (weight(lease), *index))?;
    let near = least.weight.saturating_add(weight(lease)) <= most.weight;
    near.then(|| (index, (*many).to_owned(), (*few).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { failover: Duration::from_secs(10), hand_over: Duration::from_secs(30) };

    fn lease(shard: usize, owner: Option<&str>, bytes_per_second: u64) -> LeaseView {
        let owner = owner.map(str::to_owned);
        LeaseView { shard: format!("{shard:04}"), owner, bytes_per_second, ..LeaseView::default() }
    }

    fn fleet(ids: &[&str]) -> Vec<WorkerView> {
        ids.iter().map(|id| WorkerView { id: (*id).to_owned(), ..WorkerView::default() }).collect()
    }

    fn apply(leases: &mut [LeaseView], moves: &[Move]) {
        for one in moves {
            let (Move::Assign { lease, to } | Move::HandOver { lease, to }) = one;
            let lease = &mut leases[*lease];
            (lease.owner, lease.leaving, lease.still, lease.gone) = (Some(to.clone()), None, Duration::ZERO, false);
        }
    }

    /// Applies plans until there is nothing left to do; panics when that does not come.
    fn settle(leases: &mut [LeaseView], workers: &[WorkerView]) -> usize {
        for round in 0..200 {
            let moves = plan(leases, workers, LIMITS);
            if moves.is_empty() {
                return round;
            }
            apply(leases, &moves);
        }
        panic!("does not settle");
    }

    fn counts(leases: &[LeaseView]) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for lease in leases {
            *counts.entry(lease.owner.clone().unwrap_or_default()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn what_is_owned_and_even_stays_where_it_is() {
        let leases: Vec<_> = (0..6).map(|i| lease(i, Some(["a", "b", "c"][i % 3]), 100_000)).collect();
        assert_eq!(plan(&leases, &fleet(&["a", "b", "c"]), LIMITS), []);
    }

    #[test]
    fn leases_of_a_dead_worker_go_to_the_others_oldest_first_and_not_back_to_it() {
        let mut leases: Vec<_> = (0..6).map(|i| lease(i, Some(["a", "b", "c"][i % 3]), 0)).collect();
        for (index, seconds) in [(0, 11), (3, 12)] {
            leases[index].still = Duration::from_secs(seconds);
        }
        // Its beat was seen to move a moment ago: it is not a suspect yet.
        let moves = plan(&leases, &fleet(&["a", "b", "c"]), LIMITS);
        assert_eq!(moves, [Move::Assign { lease: 3, to: "b".into() }, Move::Assign { lease: 0, to: "c".into() },]);
    }

    #[test]
    fn a_suspect_gets_nothing_unless_there_is_nobody_else() {
        let mut workers = fleet(&["a", "b"]);
        workers[0].suspect = true;
        let leases: Vec<_> = (0..4).map(|i| lease(i, None, 0)).collect();
        assert!(plan(&leases, &workers, LIMITS).iter().all(|m| matches!(m, Move::Assign { to, .. } if to == "b")));
        assert_eq!(plan(&leases, &workers[..1], LIMITS).len(), 4);
    }

    #[test]
    fn a_joining_worker_gets_its_share_in_bounded_steps() {
        let mut leases: Vec<_> = (0..16).map(|i| lease(i, Some("a"), 0)).collect();
        let workers = fleet(&["a", "b", "c", "d"]);
        assert_eq!(plan(&leases, &workers, LIMITS).len(), FEWEST_MOVES);
        settle(&mut leases, &workers);
        assert!(counts(&leases).values().all(|count| *count == 4), "{:?}", counts(&leases));
    }

    #[test]
    fn a_stuck_hand_over_is_finished_for_its_next_owner_and_blocks_evening_out_until_then() {
        let mut leases: Vec<_> = (0..4).map(|i| lease(i, Some("a"), 0)).collect();
        (leases[0].owner, leases[0].leaving) = (Some("b".into()), Some("a".into()));
        assert_eq!(plan(&leases, &fleet(&["a", "b"]), LIMITS), [], "one at a time");
        leases[0].handing = LIMITS.hand_over;
        let finish = [Move::Assign { lease: 0, to: "b".into() }];
        assert_eq!(plan(&leases, &fleet(&["a", "b"]), LIMITS), finish, "the old owner renews for ever");
        (leases[0].handing, leases[0].still) = (Duration::from_secs(11), Duration::from_secs(11));
        assert_eq!(plan(&leases, &fleet(&["a", "b"]), LIMITS), finish, "the old owner is dead");
        let elsewhere = [Move::Assign { lease: 0, to: "a".into() }];
        assert_eq!(plan(&leases, &fleet(&["a"]), LIMITS), elsewhere, "the next owner is gone");
    }

    #[test]
    fn a_heavy_shard_outweighs_many_idle_ones() {
        let mut leases = vec![lease(0, Some("a"), 900_000)];
        leases.extend((1..9).map(|i| lease(i, Some(if i < 5 { "a" } else { "b" }), 100_000)));
        settle(&mut leases, &fleet(&["a", "b"]));
        assert_eq!(leases.iter().filter(|l| l.owner == leases[0].owner).count(), 1, "{:?}", counts(&leases));
    }

    #[test]
    fn even_shards_with_noisy_throughput_do_not_flap() {
        let mut random = 1u64;
        let mut noise = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % 10_001
        };
        let mut leases: Vec<_> = (0..16).map(|i| lease(i, Some(["a", "b", "c", "d"][i % 4]), 100_000)).collect();
        for _ in 0..1000 {
            leases.iter_mut().for_each(|lease| lease.bytes_per_second = 95_000 + noise());
            assert_eq!(plan(&leases, &fleet(&["a", "b", "c", "d"]), LIMITS), []);
        }
    }

    /// Seven exchange shards on four workers went round for ever: who has two of them changed with every burst.
    #[test]
    fn leases_that_do_not_go_up_evenly_stay_where_they_are_whatever_the_noise() {
        let mut random = 1u64;
        let mut noise = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % 30_001
        };
        let mut leases: Vec<_> = (0..7).map(|i| lease(i, Some(["a", "b", "c", "d"][i % 4]), 100_000)).collect();
        for _ in 0..1000 {
            leases.iter_mut().for_each(|lease| lease.bytes_per_second = 85_000 + noise());
            assert_eq!(plan(&leases, &fleet(&["a", "b", "c", "d"]), LIMITS), []);
        }
    }

    #[test]
    fn any_fleet_comes_to_rest_with_counts_or_loads_even() {
        let mut random = 7u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % bound
        };
        let names = ["a", "b", "c", "d", "e"];
        for case in 0..500 {
            let workers = fleet(&names[..1 + below(5) as usize]);
            let equal = below(2) == 0;
            let mut leases: Vec<_> = (0..below(40) as usize)
                .map(|i| lease(i, Some(names[below(5) as usize]), if equal { 5_000 } else { below(1_000_000) }))
                .collect();
            for lease in &mut leases {
                lease.gone = !workers.iter().any(|w| Some(&w.id) == lease.owner.as_ref());
            }
            settle(&mut leases, &workers);
            let counts = counts(&leases);
            let of = |w: &WorkerView| counts.get(&w.id).copied().unwrap_or_default();
            let (least, most) = (workers.iter().map(of).min().unwrap(), workers.iter().map(of).max().unwrap());
            assert!(!equal || most - least <= 1, "case {case}: {counts:?}");
        }
    }

    #[test]
    fn a_lease_that_moved_lately_stays() {
        let mut leases: Vec<_> = (0..4).map(|i| lease(i, Some("a"), 0)).collect();
        leases.iter_mut().for_each(|lease| lease.settled = true);
        assert_eq!(plan(&leases, &fleet(&["a", "b"]), LIMITS), []);
        leases[2].settled = false;
        assert_eq!(plan(&leases, &fleet(&["a", "b"]), LIMITS), [Move::HandOver { lease: 2, to: "b".into() }]);
    }
}
