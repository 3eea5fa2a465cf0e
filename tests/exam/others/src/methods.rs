//! The methods: one series in, one score per window out; a higher score is worse.
//!
//! All look at one series of one pair, from its own past alone. A window without a value, or before the method can say
//! anything, scores NaN. Constants are those in common use, or the libraries' defaults; the threshold is the one knob.

use augurs::ets::AutoETS;
use augurs::mstl::MSTLModel;
use augurs::{Fit, Predict};
use changepoint::rv::prelude::NormalGamma;
use changepoint::{BocpdLike, BocpdTruncated};

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The value itself; for round-trip times its ratio to the median of the learning days.
    Fixed,
    /// Standard deviations from an exponentially weighted mean, half-life one hour.
    Ewma,
    /// Scaled median absolute deviations from the median of the same time of day (±15 minutes) over the days before: a
    /// seasonal band as CloudWatch's anomaly detection draws it.
    Season,
    /// Crate `augurs`: MSTL with a daily season and an AutoETS trend, refitted every midnight on quarter-hour means;
    /// standard deviations from its forecast.
    Augurs,
    /// Crate `changepoint`: truncated Bayesian online change point detection on five-minute means; minus the log of the
    /// probability that the run is older than a quarter of an hour, when the level rose.
    Changepoint,
}

/// Smallest scatter believed, by signal.
const FLOOR: [f32; 3] = [1e-4, 0.01, 1e-3];

impl Method {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 5] = [Self::Fixed, Self::Ewma, Self::Season, Self::Augurs, Self::Changepoint];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Ewma => "ewma",
            Self::Season => "season",
            Self::Augurs => "augurs",
            Self::Changepoint => "changepoint",
        }
    }

    /// Of how many windows so many must be above the threshold.
    pub fn rule(self) -> (usize, usize) {
        if self == Self::Changepoint { (1, 1) } else { (3, 5) }
    }

    /// Scores of a series of windows of `window_s` seconds; `signal` is the series' number, `warm` windows are for learning.
    pub fn scores(self, series: &[f32], signal: usize, window_s: i64, warm: usize) -> Vec<f32> {
        let per = |seconds: i64| usize::try_from((seconds / window_s).max(1)).unwrap_or(1);
        match self {
            Self::Fixed => {
                let mut learned: Vec<f32> = series[..warm].iter().copied().filter(|x| !x.is_nan()).collect();
                let level = if signal == 1 { median(&mut learned) } else { 0.0 };
                series.iter().map(|x| x - level).collect()
            }
            Self::Ewma => ewma(series, per(3_600), FLOOR[signal]),
            Self::Season => season(series, per(900), per(86_400), FLOOR[signal]),
            Self::Augurs => forecast(series, per(900), per(86_400), FLOOR[signal]),
            Self::Changepoint => run_length(series, per(300), per(86_400), signal),
        }
    }
}

/// The median; NaN of nothing. Sorts.
fn median(values: &mut [f32]) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f32::NAN)
}

fn ewma(series: &[f32], half_life: usize, floor: f32) -> Vec<f32> {
    let keep = 0.5_f32.powf(1.0 / half_life as f32);
    let (mut mean, mut variance, mut seen) = (0.0_f32, 0.0_f32, 0usize);
    let score = |&x: &f32| {
        if x.is_nan() {
            return f32::NAN;
        }
        let score = if seen < half_life { f32::NAN } else { (x - mean) / (variance.sqrt() + floor) };
        let weight = (1.0 - keep).max(1.0 / (seen as f32 + 1.0));
        let away = x - mean;
        mean += weight * away;
        variance = (1.0 - weight) * (variance + weight * away * away);
        seen += 1;
        score
    };
    series.iter().map(score).collect()
}

fn season(series: &[f32], slot: usize, day: usize, floor: f32) -> Vec<f32> {
    let mut scores = vec![f32::NAN; series.len()];
    for start in (day..series.len()).step_by(slot) {
        let mut past: Vec<f32> = Vec::new();
        for before in (1..=14).map_while(|days| start.checked_sub(days * day)) {
            past.extend(series[before.saturating_sub(slot)..before + 2 * slot].iter().filter(|x| !x.is_nan()));
        }
        let level = median(&mut past);
        past.iter_mut().for_each(|x| *x = (*x - level).abs());
        let scatter = 1.4826 * median(&mut past) + floor;
        let end = (start + slot).min(series.len());
        for (score, x) in scores[start..end].iter_mut().zip(&series[start..end]) {
            *score = (x - level) / scatter;
        }
    }
    scores
}

/// Means of stretches of `length`; an empty stretch repeats the one before.
fn means(series: &[f32], length: usize) -> Vec<f64> {
    let mut last = 0.0;
    let mean = |part: &[f32]| {
        let known: Vec<f64> = part.iter().filter(|x| !x.is_nan()).map(|x| f64::from(*x)).collect();
        if !known.is_empty() {
            last = known.iter().sum::<f64>() / known.len() as f64;
        }
        last
    };
    series.chunks(length).map(mean).collect()
}

fn forecast(series: &[f32], slot: usize, day: usize, floor: f32) -> Vec<f32> {
    const WEEK: usize = 7;
    let mut scores = vec![f32::NAN; series.len()];
    for today in (2 * day..series.len()).step_by(day) {
        let past = means(&series[today.saturating_sub(WEEK * day)..today], slot);
        let model = MSTLModel::new(vec![day / slot], AutoETS::non_seasonal().into_trend_model());
        let Ok(fitted) = model.fit(&past) else { continue };
        let Ok(ahead) = fitted.predict(day / slot, 0.95) else { continue };
        let Some(band) = &ahead.intervals else { continue };
        let end = (today + day).min(series.len());
        for (offset, x) in series[today..end].iter().enumerate() {
            let at = offset / slot;
            let sd = ((band.upper[at] - ahead.point[at]) / 1.96) as f32;
            scores[today + offset] = (x - ahead.point[at] as f32) / (sd.abs() + floor);
        }
    }
    scores
}

fn run_length(series: &[f32], stretch: usize, day: usize, signal: usize) -> Vec<f32> {
    const YOUNG: usize = 3;
    // Ratios vary with their square; their root has an even scatter.
    let even: Vec<f32> = if signal == 1 { series.to_vec() } else { series.iter().map(|x| x.sqrt()).collect() };
    let values = means(&even, stretch);
    let first = &values[..(day / stretch).min(values.len())];
    let mean = first.iter().sum::<f64>() / first.len() as f64;
    let sd = (first.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / first.len() as f64).sqrt() + 1e-6;
    // One change in a day.
    let mut follower = BocpdTruncated::new((day / stretch) as f64, NormalGamma::new_unchecked(0.0, 1.0, 1.0, 1.0));
    let mut scores = vec![f32::NAN; series.len()];
    let mut slow = 0.0;
    for (at, value) in values.iter().enumerate() {
        let x = (value - mean) / sd;
        let old: f64 = follower.step(&x).iter().skip(YOUNG + 1).sum();
        let rose = x > slow;
        slow += (x - slow) / 24.0;
        // Told at the last window of its stretch.
        if let Some(score) = scores.get_mut((at + 1) * stretch - 1) {
            *score = if rose && at > YOUNG { -old.max(1e-300).ln() as f32 } else { 0.0 };
        }
    }
    scores
}
