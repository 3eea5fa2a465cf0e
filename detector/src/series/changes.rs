//! When a segment is over: enough of the newest values lie beyond its band, all on one side.
//!
//! For: the decision. Not for: level and scatter, see `segment`. Two rules look at once: a far band that a short run must
//! leave whole, and a near band that most of a longer run must leave; so a clear change is told early and a faint one
//! still. After a change the newest values begin the next segment.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::segment::Segment;

/// Where a level went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Values are larger now.
    Up,
    /// Values are smaller now.
    Down,
}

/// A change of level, told at the value that decided it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Where it went.
    pub direction: Direction,
    /// Median of the segment that is over, in the unit of the series.
    pub before: f64,
    /// Median of the values that begin the next one.
    pub after: f64,
}

/// One rule: of the newest `of` values at least `outside` lie beyond `band` scatters of the level, on one side.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Half width of the band in scatters (1.4826 × median absolute deviation of the segment).
    pub band: f64,
    /// Values that must lie outside.
    pub outside: usize,
    /// Values that are looked at.
    pub of: usize,
}

/// What counts as a change. One set for all series; the default was chosen on 25 labelled traces of round-trip times
/// (RIPE Atlas, one value in 4 minutes): the middle of the region in which precision and recall hardly move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// The far band and the short run. 8 values: an excursion of half an hour is no change of level.
    pub clear: Rule,
    /// The near band and the longer run.
    pub faint: Rule,
    /// No band is narrower than this share of the level: a path that is steady to the microsecond would alarm on nothing.
    pub least_share: f64,
    /// No band is narrower than this, in the unit of the series (0.1 ms for round-trip times in ms).
    pub least: f64,
    /// Values of a segment that are remembered: long enough for a steady median, short enough to follow the time of day.
    pub keep: usize,
    /// Values that begin a segment.
    pub begin: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            clear: Rule { band: 5.0, outside: 8, of: 8 },
            faint: Rule { band: 3.0, outside: 10, of: 12 },
            least_share: 0.006,
            least: 0.1,
            keep: 60,
            begin: 8,
        }
    }
}

/// Follows one series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeDetector {
    rules: Rules,
    /// The newest values, for the beginning of a segment.
    newest: VecDeque<f64>,
    segment: Option<Segment>,
    clear: Run,
    faint: Run,
}

impl ChangeDetector {
    /// A detector that has seen nothing.
    pub fn new(rules: Rules) -> Self {
        let (clear, faint) = (Run::new(rules.clear), Run::new(rules.faint));
        Self { rules, newest: VecDeque::new(), segment: None, clear, faint }
    }

    /// Takes the next value; `None` for one that was lost. A lost value, one that is not positive or not finite stands
    /// for the one before it, so that losses neither hide nor make a change.
    pub fn push(&mut self, value: Option<f64>) -> Option<Change> {
        let usable = value.filter(|value| value.is_finite() && *value > 0.0);
        let value = usable.or_else(|| self.newest.back().copied())?;
        self.newest.push_back(value);
        if self.newest.len() > self.rules.begin.max(1) {
            self.newest.pop_front();
        }
        let Some(segment) = &mut self.segment else {
            if self.newest.len() >= self.rules.begin {
                self.segment = Some(Segment::new(self.rules.keep, self.newest.iter().copied()));
            }
            return None;
        };
        segment.tick();
        let least = self.rules.least.max(self.rules.least_share * segment.level());
        let away = value - segment.level();
        let within = self.clear.push(away, segment.scatter(), least);
        self.faint.push(away, segment.scatter(), least);
        if within {
            segment.push(value);
        }
        let direction = self.clear.decides().or_else(|| self.faint.decides())?;
        let before = segment.level();
        let next = Segment::new(self.rules.keep, self.newest.iter().copied());
        let change = Change { direction, before, after: next.level() };
        self.segment = Some(next);
        (self.clear, self.faint) = (Run::new(self.rules.clear), Run::new(self.rules.faint));
        Some(change)
    }
}

/// The newest values of one rule: on which side of the band each lay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Run {
    rule: Rule,
    sides: VecDeque<Option<Direction>>,
}

impl Run {
    fn new(rule: Rule) -> Self {
        Self { rule, sides: VecDeque::new() }
    }

    /// Takes how far a value lies from the level; whether it lies within the band.
    fn push(&mut self, away: f64, scatter: f64, least: f64) -> bool {
        let band = (self.rule.band * scatter).max(least);
        let side = if away > band {
            Some(Direction::Up)
        } else if away < -band {
            Some(Direction::Down)
        } else {
            None
        };
        self.sides.push_back(side);
        if self.sides.len() > self.rule.of {
            self.sides.pop_front();
        }
        side.is_none()
    }

    fn decides(&self) -> Option<Direction> {
        let count = |side| self.sides.iter().filter(|found| **found == Some(side)).count();
        [Direction::Up, Direction::Down].into_iter().find(|side| count(*side) >= self.rule.outside.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scatter of some ±0.5 that is always the same.
    fn wobble(i: usize) -> f64 {
        ((i * 7_919) % 101) as f64 / 101.0 - 0.5
    }

    fn changes(values: impl Iterator<Item = Option<f64>>) -> Vec<(usize, Direction)> {
        let mut detector = ChangeDetector::new(Rules::default());
        values.enumerate().filter_map(|(i, value)| detector.push(value).map(|change| (i, change.direction))).collect()
    }

    #[test]
    fn a_step_up_and_back_is_two_changes_each_told_after_eight_values() {
        let level = |i: usize| if (200..300).contains(&i) { 130.0 } else { 100.0 };
        let found = changes((0..500).map(|i| Some(level(i) + wobble(i))));
        assert_eq!(found, [(207, Direction::Up), (307, Direction::Down)]);
    }

    #[test]
    fn a_faint_step_is_told_by_the_longer_run() {
        // 1.6 is beyond 3 scatters (1.1) of this series and within 5 (1.9).
        let found = changes((0..400).map(|i| Some(100.0 + wobble(i) + if i >= 200 { 1.6 } else { 0.0 })));
        assert!(matches!(found[..], [(209..=215, Direction::Up)]), "{found:?}");
    }

    #[test]
    fn neither_noise_nor_an_excursion_of_seven_values_nor_losses_are_a_change() {
        assert_eq!(changes((0..5_000).map(|i| Some(100.0 + wobble(i)))), []);
        let excursion = |i: usize| if (200..207).contains(&i) { 150.0 } else { 100.0 };
        assert_eq!(changes((0..400).map(|i| Some(excursion(i) + wobble(i)))), []);
        let lost = |i: usize| (i > 5 && !i.is_multiple_of(3)).then_some(100.0 + wobble(i));
        assert_eq!(changes((0..2_000).map(lost)), []);
        assert_eq!(changes([None, Some(f64::NAN), Some(-1.0), Some(0.0)].into_iter().cycle().take(100)), []);
    }

    #[test]
    fn a_path_steady_to_the_microsecond_may_move_by_half_a_percent() {
        assert_eq!(changes((0..400).map(|i| Some(if i < 200 { 100.0 } else { 100.5 }))), []);
        assert_eq!(changes((0..400).map(|i| Some(if i < 200 { 100.0 } else { 100.7 }))).len(), 1);
    }

    #[test]
    fn restored_from_its_stored_form_it_goes_on_as_before() {
        let mut whole = ChangeDetector::new(Rules::default());
        (0..204).for_each(|i| assert_eq!(whole.push(Some(if i < 200 { 50.0 } else { 80.0 })), None));
        let stored = serde_json::to_string(&whole).unwrap();
        let mut restored: ChangeDetector = serde_json::from_str(&stored).unwrap();
        assert_eq!(restored, whole);
        let told: Vec<_> = (0..4).map(|_| (whole.push(Some(80.0)), restored.push(Some(80.0)))).collect();
        assert_eq!(told[3].0, Some(Change { direction: Direction::Up, before: 50.0, after: 80.0 }));
        assert!(told.iter().all(|(one, other)| one == other));
    }
}
