//! When a failed delivery is tried again.
//!
//! Delays grow by fixed steps, the last one repeats, and each is spread by jitter so that many entries that failed together
//! do not return together. Pure: chance comes in as a number.

use std::time::Duration;

/// A schedule's steps cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// No step at all.
    #[error("schedule has no step")]
    Empty,
    /// A step of zero would try without pause.
    #[error("schedule step {0} is zero")]
    Zero(usize),
}

/// Delays before the second, third, … attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    steps: Vec<Duration>,
}

/// A delay is the step times a factor from `1 - SPREAD` to `1 + SPREAD`.
const SPREAD: f64 = 0.1;

impl Schedule {
    /// A schedule of the given steps, the last of which repeats.
    ///
    /// # Errors
    /// When there is no step or one is zero.
    pub fn new(steps: Vec<Duration>) -> Result<Self, ScheduleError> {
        if steps.is_empty() {
            return Err(ScheduleError::Empty);
        }
        if let Some(index) = steps.iter().position(Duration::is_zero) {
            return Err(ScheduleError::Zero(index));
        }
        Ok(Self { steps })
    }

    /// While the program leaves: half a second, a second, then every two seconds.
    pub(super) fn draining() -> Self {
        Self { steps: [500, 1_000, 2_000].map(Duration::from_millis).to_vec() }
    }

    /// How long to wait after `failures` failed attempts (at least 1), with `chance` in 0..1.
    #[must_use]
    pub fn delay(&self, failures: u32, chance: f64) -> Duration {
        debug_assert!((0.0..1.0).contains(&chance), "chance {chance} outside 0..1");
        let last = self.steps.len() - 1;
        let index = usize::try_from(failures.saturating_sub(1)).map_or(last, |index| index.min(last));
        self.steps[index].mul_f64(1.0 - SPREAD + 2.0 * SPREAD * chance)
    }
}

impl Default for Schedule {
    /// 5 s, 30 s, 2 min, 10 min, then every 30 min.
    fn default() -> Self {
        Self { steps: [5, 30, 120, 600, 1_800].map(Duration::from_secs).to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_follow_the_steps_and_the_last_repeats() {
        let schedule = Schedule::default();
        let seconds = (1..=7).map(|failures| schedule.delay(failures, 0.5).as_secs()).collect::<Vec<_>>();
        assert_eq!(seconds, [5, 30, 120, 600, 1_800, 1_800, 1_800]);
        assert_eq!(schedule.delay(u32::MAX, 0.5), Duration::from_secs(1_800));
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let schedule = Schedule::default();
        assert_eq!(schedule.delay(2, 0.0), Duration::from_secs(27));
        assert!(schedule.delay(2, 0.999) < Duration::from_secs(33));
    }

    #[test]
    fn a_schedule_without_pause_is_refused() {
        assert_eq!(Schedule::new(vec![]), Err(ScheduleError::Empty));
        assert_eq!(Schedule::new(vec![Duration::from_secs(1), Duration::ZERO]), Err(ScheduleError::Zero(1)));
    }
}
