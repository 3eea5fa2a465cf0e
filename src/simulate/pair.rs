//! One directed pair: what stays the same about it, and its noise minute by minute.
//!
//! Noise is made in blocks of four hours, each a function of (seed, pair, block) alone. The AR(1) noise of a block
//! starts one block earlier, so it joins its neighbour to within 1e-5 of its deviation.

use std::f64::consts::TAU;

use rand::rngs::SmallRng;

use super::random::{Purpose, gamma_of_mean_one, log_uniform, normal, stream, uniform};

/// Minutes in a block of noise.
const BLOCK: i64 = 240;
/// Memory of the RTT noise from one minute to the next.
const PHI: f64 = 0.95;
/// Minutes a peer keeps its activity.
const ACTIVITY: i64 = 15;

/// Which end opens the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// What stays the same about a pair.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) src: usize,
    /// `None`: the internet.
    pub(super) dst: Option<usize>,
    pub(super) role: Role,
    pub(super) service_port: u16,
    /// Whether its flows run over IPv6.
    pub(super) v6: bool,
    /// Flow rows a minute, averaged over the day.
    pub(super) rows_per_minute: f64,
    /// Median RTT in microseconds.
    pub(super) rtt_us: f64,
    /// Deviation of the logarithm of RTT.
    pub(super) sigma: f64,
    /// Chance that a segment is sent again.
    pub(super) retransmit: f64,
    /// Chance that a connection attempt fails.
    pub(super) connect_failure: f64,
    /// Bytes in a segment.
    pub(super) segment_bytes: f64,
    /// Usual share of each peer and its distance in log RTT.
    pub(super) peers: Vec<(f64, f64)>,
    amplitude: f64,
    phase: f64,
    frailty_shape: f64,
    rtt_noise: f64,
    rtt_lift: f64,
    tail: f64,
}

/// What the pair is like in one minute.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Minute {
    /// Rows in this minute.
    pub(super) rows: f64,
    /// Chance that a segment is sent again.
    pub(super) retransmit: f64,
    /// Added to the logarithm of RTT.
    pub(super) rtt_log: f64,
    /// Factor of the flow sizes.
    pub(super) size: f64,
    /// Chance of a sample from the long tail.
    pub(super) tail: f64,
}

impl Pair {
    /// Draws a pair. `rtt_range` is the range of its median RTT in microseconds.
    pub(super) fn draw(
        seed: u64,
        number: usize,
        (src, dst): (usize, Option<usize>),
        role: Role,
        rtt_range: (f64, f64),
    ) -> Self {
        let mut rng = stream(seed, Purpose::Pair, number as u64, 0);
        let rows_per_minute = log_uniform(&mut rng, 20.0, 600.0);
        let sigma = uniform(&mut rng, 0.08, 0.35);
        let peers = draw_peers(&mut rng, rows_per_minute, sigma);
        Self {
            src,
            dst,
            role,
            service_port: [443, 5432, 6379, 9092, 8080, 3306][number % 6],
            v6: dst.is_some() && number % 8 == 5,
            rows_per_minute,
            rtt_us: log_uniform(&mut rng, rtt_range.0, rtt_range.1),
            sigma,
            retransmit: log_uniform(&mut rng, 5e-5, 1e-3),
            connect_failure: log_uniform(&mut rng, 1e-4, 2e-3),
            segment_bytes: uniform(&mut rng, 500.0, 1100.0),
            peers,
            amplitude: uniform(&mut rng, 0.2, 0.6),
            phase: uniform(&mut rng, 0.0, 1.0),
            frailty_shape: uniform(&mut rng, 6.0, 30.0),
            rtt_noise: uniform(&mut rng, 0.005, 0.02),
            rtt_lift: uniform(&mut rng, 0.0, 0.06),
            tail: uniform(&mut rng, 0.005, 0.03),
        }
    }

    /// The most rows a minute of usual traffic, at the top of the day and of the noise.
    pub(super) fn peak_rows_per_minute(&self) -> f64 {
        self.rows_per_minute * (1.0 + self.amplitude) * 1.5
    }

    /// The minutes of one block.
    fn block(&self, seed: u64, number: usize, block: i64) -> Vec<Minute> {
        let mut rtt_noise = 0.0;
        let innovation = self.rtt_noise * (1.0 - PHI * PHI).sqrt();
        let mut before = stream(seed, Purpose::Minutes, number as u64, block - 1);
        for _ in 0..BLOCK {
            rtt_noise = PHI * rtt_noise + innovation * normal(&mut before);
        }
        // The noise of RTT is drawn first, so that the next block can replay it without the rest.
        let mut rng = stream(seed, Purpose::Minutes, number as u64, block);
        let noise: Vec<f64> = (0..BLOCK).map(|_| innovation * normal(&mut rng)).collect();
        let mut minutes = Vec::with_capacity(noise.len());
        for (minute, step) in (block.saturating_mul(BLOCK)..).zip(noise) {
            rtt_noise = PHI * rtt_noise + step;
            let day = minute.rem_euclid(1440) as f64 / 1440.0;
            let load = 1.0 + self.amplitude * (TAU * (day - self.phase)).sin();
            minutes.push(Minute {
                rows: self.rows_per_minute * load * gamma_of_mean_one(&mut rng, 44.0),
                retransmit: self.retransmit * gamma_of_mean_one(&mut rng, self.frailty_shape),
                rtt_log: self.rtt_lift * (load - 1.0) + rtt_noise,
                size: (0.15 * normal(&mut rng)).exp(),
                tail: (self.tail * (0.35 * normal(&mut rng)).exp()).min(0.3),
            });
        }
        minutes
    }

    /// Cumulative shares of the peers in one stretch of constant activity.
    fn activity(&self, seed: u64, number: usize, stretch: i64) -> Vec<f64> {
        let mut rng = stream(seed, Purpose::Activity, number as u64, stretch);
        let mut sum = 0.0;
        let add = |(share, _): &(f64, f64)| {
            sum += share * gamma_of_mean_one(&mut rng, 10.0);
            sum
        };
        self.peers.iter().map(add).collect()
    }
}

/// Peers with Zipf shares, the mean distance zero.
fn draw_peers(rng: &mut SmallRng, rows_per_minute: f64, sigma: f64) -> Vec<(f64, f64)> {
    let count = (log_uniform(rng, 8.0, 40.0) * (rows_per_minute / 60.0).powf(0.35)).clamp(8.0, 100.0) as usize;
    let exponent = uniform(rng, 0.7, 1.2);
    let shares: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-exponent)).collect();
    let total: f64 = shares.iter().sum();
    let distances: Vec<f64> = shares.iter().map(|_| 0.6 * sigma * normal(rng)).collect();
    let centre: f64 = shares.iter().zip(&distances).map(|(share, distance)| share * distance / total).sum();
    shares.iter().zip(&distances).map(|(share, distance)| (share / total, distance - centre)).collect()
}

/// The noise of one pair around the time last asked for; recomputed when the time leaves it.
#[derive(Clone, Debug, Default)]
pub(super) struct Weather {
    block: Option<(i64, Vec<Minute>)>,
    stretch: Option<(i64, Vec<f64>)>,
}

impl Weather {
    /// The pair in the minute that holds `offset_ms`, and the cumulative shares of its peers.
    pub(super) fn at(&mut self, pair: &Pair, seed: u64, number: usize, offset_ms: i64) -> (Minute, &[f64]) {
        let minute = offset_ms.div_euclid(60_000);
        let block = minute.div_euclid(BLOCK);
        if self.block.as_ref().is_none_or(|(have, _)| *have != block) {
            self.block = Some((block, pair.block(seed, number, block)));
        }
        let stretch = minute.div_euclid(ACTIVITY);
        if self.stretch.as_ref().is_none_or(|(have, _)| *have != stretch) {
            self.stretch = Some((stretch, pair.activity(seed, number, stretch)));
        }
        let within = usize::try_from(minute.rem_euclid(BLOCK)).unwrap_or_default();
        let now = self.block.as_ref().and_then(|(_, minutes)| minutes.get(within)).copied().unwrap_or_default();
        (now, self.stretch.as_ref().map_or(&[], |(_, shares)| shares.as_slice()))
    }
}
