//! What is drawn, without saying where: the points of an incident and the axes they need.
//!
//! For: the terminal and the SVG alike. Invariant: every number is finite, and no axis has length 0.

use flowshift_proto::anomaly::EventType;
use jiff::Timestamp;

use super::story::Story;

/// What was told at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// Epoch s.
    pub(super) at: i64,
    /// In the unit of the signal.
    pub(super) observed: f64,
    /// 90 % interval of what was observed: the baseline and the ends of the change's interval.
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) nats: f64,
}

/// An incident as points between axes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plot {
    pub(super) points: Vec<Point>,
    /// Baseline of the last event that told one.
    pub(super) baseline: f64,
    /// From the estimated start to the last event, epoch s.
    pub(super) time: (i64, i64),
    /// Values shown, in the unit of the signal.
    pub(super) values: (f64, f64),
    /// Largest evidence, nats.
    pub(super) nats: f64,
}

impl Plot {
    /// The plot of an incident; `None` when its events carry no numbers.
    pub(super) fn of(story: &Story) -> Option<Self> {
        let mut points = Vec::new();
        let mut baseline = 0.0;
        for event in story.events().iter().filter(|event| event.kind != EventType::Resolved) {
            let (Some(base), Some(seen)) = (&event.baseline, &event.observed) else { continue };
            let nats = event.evidence.as_ref().map_or(0.0, |evidence| evidence.nats);
            let (low, high) = (base.value + seen.low, base.value + seen.high);
            let point = Point { at: event.at, observed: seen.value, low, high, nats };
            if [base.value, point.observed, low, high, nats].iter().all(|number| number.is_finite()) {
                baseline = base.value;
                points.push(point);
            }
        }
        let (first, last) = (story.events().first()?, story.events().last()?);
        let from = first.started_at.unwrap_or(first.at).min(first.at);
        let top = points.iter().map(|p| p.observed.max(p.high)).fold(baseline, f64::max);
        let bottom = points.iter().map(|p| p.observed.min(p.low)).fold(baseline, f64::min);
        // A ratio is drawn from 0; a round-trip time around itself, or a millisecond would be lost under the axis.
        let bottom = if bottom < 0.5 * top { bottom.min(0.0) } else { bottom - 0.2 * (top - bottom) };
        let margin = 0.08 * (top - bottom);
        let top = if margin > 0.0 { top + margin } else { bottom + 1.0 };
        let nats = points.iter().map(|p| p.nats).fold(1.0, f64::max);
        let time = (from, last.at.max(from.saturating_add(1)));
        (!points.is_empty()).then_some(Self { points, baseline, time, values: (bottom, top), nats })
    }

    /// Where a time lies between the ends of the axis, 0..=1.
    pub(super) fn x(&self, at: i64) -> f64 {
        (at.saturating_sub(self.time.0) as f64 / self.time.1.saturating_sub(self.time.0) as f64).clamp(0.0, 1.0)
    }

    /// Where a value lies, 0 at the bottom and 1 at the top.
    pub(super) fn y(&self, value: f64) -> f64 {
        ((value - self.values.0) / (self.values.1 - self.values.0)).clamp(0.0, 1.0)
    }
}

/// A time of day in UTC.
pub(super) fn clock(epoch_s: i64) -> String {
    Timestamp::from_second(epoch_s).map_or_else(|_| epoch_s.to_string(), |t| t.strftime("%H:%M:%S").to_string())
}

/// A date and time in UTC.
pub(super) fn date(epoch_s: i64) -> String {
    Timestamp::from_second(epoch_s)
        .map_or_else(|_| epoch_s.to_string(), |t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::super::story::tests::incident;
    use super::*;

    #[test]
    fn everything_told_lies_between_the_axes() {
        let story = Story::find(incident("a"), "a").unwrap();
        let plot = Plot::of(&story).unwrap();
        assert_eq!((plot.points.len(), plot.time), (2, (1_795_310_580, 1_795_310_780)));
        assert_eq!(plot.nats, 90.0);
        for point in &plot.points {
            let all = [point.low, point.observed, point.high, plot.baseline].map(|v| plot.y(v));
            assert!(all.iter().all(|y| (0.0..1.0).contains(y)), "{all:?}");
        }
        assert_eq!((clock(1_795_310_580), date(-1).as_str()), ("01:23:00".to_owned(), "1969-12-31 23:59:59 UTC"));
    }

    #[test]
    fn numbers_that_are_none_are_left_out() {
        let mut events = incident("a");
        for event in &mut events {
            event.observed = None;
        }
        assert_eq!(Plot::of(&Story::find(events, "a").unwrap()), None);
        let mut events = incident("a");
        events[0].observed.as_mut().unwrap().high = f64::INFINITY;
        assert_eq!(Plot::of(&Story::find(events, "a").unwrap()).unwrap().points.len(), 1);
    }
}
