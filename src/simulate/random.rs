//! Seeded chance: one small generator per named purpose, and draws that cannot fail.
//!
//! A stream is named by numbers (purpose, pair, time), not by the order of calls, which is what makes every report
//! independent of the ones before. Parameters out of range give the distribution's limit, never a panic.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Binomial, Distribution, Gamma, Poisson, StandardNormal};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a stream is for; keeps streams with equal numbers apart.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(super) enum Purpose {
    Pair = 1,
    Minutes = 2,
    Activity = 3,
    Agent = 4,
    Jitter = 5,
    Flows = 6,
}

/// A hash of the stream's name.
pub(super) fn hash(seed: u64, purpose: Purpose, a: u64, b: i64) -> u64 {
    let mut name = [0_u8; 24];
    for (slot, part) in name.chunks_exact_mut(8).zip([purpose as u64, a, b.cast_unsigned()]) {
        slot.copy_from_slice(&part.to_le_bytes());
    }
    xxh3_64_with_seed(&name, seed)
}

/// The generator of a stream.
pub(super) fn stream(seed: u64, purpose: Purpose, a: u64, b: i64) -> SmallRng {
    SmallRng::seed_from_u64(hash(seed, purpose, a, b))
}

/// Normal with mean 0 and deviation 1.
pub(super) fn normal(rng: &mut SmallRng) -> f64 {
    StandardNormal.sample(rng)
}

/// Uniform in `[low, high)`.
pub(super) fn uniform(rng: &mut SmallRng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

/// Uniform in the logarithm.
pub(super) fn log_uniform(rng: &mut SmallRng, low: f64, high: f64) -> f64 {
    uniform(rng, low.ln(), high.ln()).exp()
}

/// Gamma with mean 1 and coefficient of variation `1/sqrt(shape)`.
pub(super) fn gamma_of_mean_one(rng: &mut SmallRng, shape: f64) -> f64 {
    Gamma::new(shape, 1.0 / shape).map_or(1.0, |gamma| gamma.sample(rng))
}

/// Poisson with the given mean; 0 for a mean that is not positive.
pub(super) fn poisson(rng: &mut SmallRng, mean: f64) -> u64 {
    let draw: f64 = Poisson::new(mean).map_or(0.0, |poisson| poisson.sample(rng));
    draw as u64
}

/// Binomial; most calls have `n * p` far below 1 and end with one draw.
pub(super) fn binomial(rng: &mut SmallRng, n: u64, p: f64) -> u64 {
    if n == 0 || p <= 0.0 {
        return 0;
    }
    let p = p.min(1.0);
    // The chance of none at all decides first; only then the exact draw, given at least one, by rejection.
    let none = (n as f64 * (-p).ln_1p()).exp();
    if rng.random::<f64>() < none {
        return 0;
    }
    let Ok(exact) = Binomial::new(n, p) else { return 0 };
    if none < 0.5 {
        loop {
            let draw = exact.sample(rng);
            if draw > 0 {
                return draw;
            }
        }
    }
    given_at_least_one(rng, n, p, none)
}

/// Inversion of the binomial given at least one success, for a small mean.
fn given_at_least_one(rng: &mut SmallRng, n: u64, p: f64, none: f64) -> u64 {
    let mut left = rng.random::<f64>() * (1.0 - none);
    let mut chance = none;
    let odds = p / (1.0 - p);
    for k in 1..=n {
        chance *= odds * (n - k + 1) as f64 / k as f64;
        left -= chance;
        if left <= 0.0 {
            return k;
        }
        if chance < 1e-18 {
            return k;
        }
    }
    n
}
