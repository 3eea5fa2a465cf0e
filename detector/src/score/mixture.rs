//! What one peer's mean says for "some flows take longer", as a table by its deviation.
//!
//! For: the log-likelihood ratios of `split`, made once for many steps.
//! Not for: adding them up.
//! Method: a mean of n flows of which k take m times as long is larger by ln(1 + k (m − 1) / n); k is binomial. The learned
//! density of deviations is moved by that, for the share looked for and for the share that is no news.

use std::sync::LazyLock;

use crate::season::Bins;

/// Flows behind a mean: classes are 1, 2, 3 to 4, and 5 to 8, computed as so many.
const FLOWS: [u32; CLASSES] = [1, 2, 3, 6];
pub(super) const CLASSES: usize = 4;
/// Shares of the flows, with their factors, that are looked for.
const SHARES: [(f64, f64); LOOKED_FOR] = [(0.3, 2.0), (0.7, 1.6)];
pub(super) const LOOKED_FOR: usize = 2;
/// Share of slower flows that is no news.
const NULL_SHARE: f64 = 0.03;
/// Means of a class from which it is used.
pub(super) const LEAST: u32 = 100;
/// Width and lowest of the bins of deviations (log).
const WIDTH: f64 = 0.1;
const LOWEST: i32 = -20;
const BINS: usize = 50;
/// Means that the prior, flat shape is worth.
const PRIOR: f64 = 10.0;

type Row = [f32; BINS];

/// Evidence of one mean in nats by class, alternative and bin; a class without enough history says nothing.
#[derive(Debug, Clone)]
pub(super) struct Table([Option<[Row; LOOKED_FOR]>; CLASSES]);

/// How far (bins) means move when k of their flows are slower, and how likely that is with the share looked for and with
/// the one that is no news.
type Moves = Vec<(f64, f64, f64)>;

static MOVES: LazyLock<[[Moves; LOOKED_FOR]; CLASSES]> = LazyLock::new(|| {
    FLOWS.map(|flows| {
        SHARES.map(|(share, factor)| {
            let moved = |hit: u32| (1.0 + f64::from(hit) * (factor - 1.0) / f64::from(flows)).ln() / WIDTH;
            (0..=flows).map(|hit| (moved(hit), binomial(hit, flows, share), binomial(hit, flows, NULL_SHARE))).collect()
        })
    })
});

/// Class of a mean of so many flows; none for many, of which a part can no longer be told from the whole.
pub(super) fn class_of(flows: u64) -> Option<u8> {
    match flows {
        1 => Some(0),
        2 => Some(1),
        3..=4 => Some(2),
        5..=8 => Some(3),
        _ => None,
    }
}

/// Bin of a deviation.
pub(super) fn bin_of(deviation: f64) -> usize {
    ((deviation / WIDTH).floor() as i32 - LOWEST).clamp(0, BINS as i32 - 1) as usize
}

impl Table {
    pub(super) fn of(learned: &[Bins; CLASSES]) -> Box<Self> {
        let mut table = Box::new(Self([None; CLASSES]));
        for ((class, bins), moves) in table.0.iter_mut().zip(learned).zip(MOVES.iter()) {
            if bins.total() >= LEAST {
                let density = density(bins);
                *class = Some(std::array::from_fn(|index| row(&density, &moves[index])));
            }
        }
        table
    }

    pub(super) fn class(&self, class: usize) -> Option<&[Row; LOOKED_FOR]> {
        self.0.get(class)?.as_ref()
    }
}

fn row(density: &[f64; BINS], moves: &Moves) -> Row {
    std::array::from_fn(|bin| {
        let (mut looked_for, mut usual) = (0.0, 0.0);
        for (moved, likely, unlikely) in moves {
            let here = at(density, bin as f64 - moved);
            looked_for += likely * here;
            usual += unlikely * here;
        }
        (looked_for / usual).ln() as f32
    })
}

/// Learned counts, smoothed over neighbours, with a flat prior for what was never seen.
fn density(bins: &Bins) -> [f64; BINS] {
    let mut density = [PRIOR / BINS as f64; BINS];
    for (bin, count) in bins.iter() {
        for (to, part) in [(bin - 1, 0.25), (bin, 0.5), (bin + 1, 0.25)] {
            let to = to.clamp(0, BINS as i32 - 1) as usize;
            density[to] += part * f64::from(count);
        }
    }
    density
}

/// The density at a fractional bin; flat beyond the ends.
fn at(density: &[f64; BINS], bin: f64) -> f64 {
    let bin = bin.max(0.0);
    let low = (bin as usize).min(BINS - 1);
    let high = (low + 1).min(BINS - 1);
    density[low] + (bin - low as f64) * (density[high] - density[low])
}

fn binomial(hits: u32, flows: u32, share: f64) -> f64 {
    let choose = (1..=hits).fold(1.0, |c, i| c * f64::from(flows - hits + i) / f64::from(i));
    choose * share.powi(hits as i32) * (1.0 - share).powi((flows - hits) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deviations of ±0.1 around zero, one in fifty a straggler.
    fn usual(class: usize) -> [Bins; CLASSES] {
        let mut learned: [Bins; CLASSES] = Default::default();
        for i in 0..1_000 {
            let deviation = if i % 50 == 0 { 1.3 } else { f64::from(i % 21) / 100.0 - 0.1 };
            learned[class].put(bin_of(deviation) as i32, 1);
        }
        learned
    }

    #[test]
    fn a_doubled_flow_speaks_for_a_slower_part_a_usual_one_against_it_and_neither_much() {
        let table = Table::of(&usual(0));
        let rows = table.class(0).unwrap();
        let doubled = rows[0][bin_of(2f64.ln())];
        assert!(doubled > 1.0 && doubled <= 10f32.ln(), "{doubled}");
        let even = rows[0][bin_of(0.0)];
        assert!((-0.4..-0.2).contains(&even), "{even}");
        assert!(rows[0][bin_of(1.35)] < doubled, "stragglers are usual");
        assert!(table.class(1).is_none(), "nothing was learned of it");
    }

    #[test]
    fn of_two_flows_one_doubled_moves_the_mean_by_half() {
        let table = Table::of(&usual(1));
        let rows = table.class(1).unwrap();
        assert!(rows[0][bin_of(1.5f64.ln())] > 1.0);
    }
}
