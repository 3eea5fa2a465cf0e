//! An incident as text: what, how sure, a plot, every event, the pairs.
//!
//! Pure. Not here: scales, see [`super::plot`]. Invariant: without colours no control characters.

use std::fmt::Write;

use flowshift_proto::anomaly::AnomalyEvent;

use super::plot::{Plot, clock, date};
use super::story::{Story, name, unit, value};
use crate::command::text_table::{Cell, Tone, render, span};

/// Columns and rows of the plot.
const WIDTH: usize = 64;
const HEIGHT: usize = 10;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Pairs that are named; of an incident of a zone there are hundreds.
const PAIRS: usize = 12;

/// The whole page.
pub(super) fn tell(story: &Story, colour: bool) -> String {
    let Some(event) = story.told() else { return String::new() };
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let mut page = format!("{}: {}\n", clean(&event.incident), clean(&event.summary));
    let end = match story.resolved() {
        Some(end) => {
            let why = end.reason.map_or_else(|| "over".to_owned(), |reason| name(&reason));
            let lasted = end.at.saturating_sub(event.started_at.unwrap_or(event.at));
            format!("over at {} ({why}) after {}", clock(end.at), span(lasted as f64))
        }
        None => format!("open as of {}", clock(event.at)),
    };
    let started = event.started_at.map_or_else(|| "unknown".to_owned(), date);
    writeln!(page, "began {started}, told after {}, {end}", delay(story)).ok();
    for said in words(story) {
        writeln!(page, "{}", clean(&said)).ok();
    }
    if let Some(plot) = Plot::of(story) {
        writeln!(page, "\n{}, observed ● with its 90 % interval, baseline ─", unit(event.signal)).ok();
        page.push_str(&drawn(&plot, event));
    }
    writeln!(page, "\n{}", events(story, colour)).ok();
    writeln!(page, "\n{}", basis(event)).ok();
    let more = event.pairs.len().saturating_sub(PAIRS);
    for pair in event.pairs.iter().take(PAIRS) {
        writeln!(page, "  {} → {} since {}", clean(&pair.src), clean(&pair.dst), clock(pair.since)).ok();
    }
    if more > 0 {
        writeln!(page, "  and {more} more pairs").ok();
    }
    page.trim_end().to_owned()
}

/// What operators said of it, as its last event has it.
fn words(story: &Story) -> Vec<String> {
    let Some(last) = story.events().last() else { return Vec::new() };
    let told = |verb: &str, by: &str, note: &str, at: i64| {
        let note = if note.is_empty() { String::new() } else { format!(": {note}") };
        format!("{verb} by {by} at {}{note}", clock(at))
    };
    let mut said = Vec::new();
    said.extend(last.acknowledged.iter().map(|a| told("acknowledged", &a.by, &a.note, a.at)));
    said.extend(last.dismissed.iter().map(|d| told("called no issue", &d.by, &d.note, d.at)));
    said.extend(last.muted.iter().map(|m| format!("muted until {} at least", date(m.until))));
    said
}

fn delay(story: &Story) -> String {
    let first = story.events().first();
    first.map_or_else(String::new, |e| span(e.at.saturating_sub(e.started_at.unwrap_or(e.at)) as f64))
}

/// The plot, and below it the evidence as bars.
fn drawn(plot: &Plot, event: &AnomalyEvent) -> String {
    let mut grid = [[' '; WIDTH]; HEIGHT];
    let row = |v: f64| HEIGHT - 1 - (plot.y(v) * (HEIGHT - 1) as f64).round() as usize;
    let column = |at: i64| (plot.x(at) * (WIDTH - 1) as f64).round() as usize;
    grid[row(plot.baseline)] = ['─'; WIDTH];
    let mut bars = [' '; WIDTH];
    for point in &plot.points {
        let x = column(point.at);
        for line in &mut grid[row(point.high)..=row(point.low)] {
            line[x] = '│';
        }
        grid[row(point.observed)][x] = '●';
        let step = (point.nats / plot.nats * BARS.len() as f64).ceil() as usize;
        bars[x] = BARS[step.clamp(1, BARS.len()) - 1];
    }
    let at = |y: f64| plot.values.0 + (plot.values.1 - plot.values.0) * y;
    let mut text = String::new();
    for (number, line) in grid.iter().enumerate() {
        let label = match number {
            0 => value(event.signal, at(1.0)),
            n if n == row(plot.baseline) => value(event.signal, plot.baseline),
            n if n + 1 == HEIGHT => value(event.signal, at(0.0)),
            _ => String::new(),
        };
        writeln!(text, "{label:>10} ┤{}", line.iter().collect::<String>().trim_end()).ok();
    }
    writeln!(text, "{:>10} ┤{}", format!("{:.0} nats", plot.nats), bars.iter().collect::<String>().trim_end()).ok();
    let (from, to) = (clock(plot.time.0), clock(plot.time.1));
    writeln!(text, "{:>10}  {from}{to:>width$}", "", width = WIDTH - from.len()).ok();
    text
}

fn events(story: &Story, colour: bool) -> String {
    let rows: Vec<Vec<Cell>> = story.events().iter().map(row).collect();
    render(
        &["AT", "EVENT", "SEVERITY", "VERDICT", "ELEMENT", "OBSERVED", "NATS", "PAIRS", "WORSE/QUIET"],
        &rows,
        colour,
    )
}

fn row(event: &AnomalyEvent) -> Vec<Cell> {
    use flowshift_proto::anomaly::EventType;
    let tone = match event.kind {
        EventType::Opened => Tone::Bad,
        EventType::Updated => Tone::Plain,
        EventType::Resolved => Tone::Good,
    };
    let seen = event.observed.as_ref().map_or_else(String::new, |seen| value(event.signal, seen.value));
    let nats = event.evidence.as_ref().map_or_else(String::new, |e| format!("{:.1}", e.nats));
    let counts = event.evidence.as_ref().map_or_else(String::new, |e| format!("{}/{}", e.of.worse, e.of.quiet));
    vec![
        Cell::plain(clock(event.at)),
        Cell::toned(event.kind.as_str().trim_start_matches("anomaly."), tone),
        Cell::plain(event.severity.as_str()),
        Cell::plain(event.verdict.as_str()),
        Cell::plain(event.element.id.as_str()),
        Cell::plain(seen),
        Cell::plain(nats),
        Cell::plain(event.pairs.len().to_string()),
        Cell::plain(counts),
    ]
}

/// What the numbers rest on.
fn basis(event: &AnomalyEvent) -> String {
    let mut said = Vec::new();
    if let Some(base) = &event.baseline {
        let (level, age) = (value(event.signal, base.value), span(base.age_s as f64));
        said.push(format!("baseline {level} of {} samples, {age} old ({})", base.n, name(&base.stage)));
    }
    if let Some(seen) = &event.observed {
        let (low, high) = (value(event.signal, seen.low), value(event.signal, seen.high));
        said.push(format!(
            "observed {} of {} samples, change {low} to {high}",
            value(event.signal, seen.value),
            seen.n
        ));
    }
    if let Some(evidence) = &event.evidence {
        if let Some(share) = evidence.top_flow_share.filter(|share| *share > 0.0) {
            said.push(format!("one flow has {:.0} % of what was sent again", share * 100.0));
        }
        if let Some(late) = evidence.late_share.filter(|share| *share > 0.0) {
            said.push(format!("{:.0} % of the records were late", late * 100.0));
        }
        if evidence.truncated {
            said.push("some reports were cut at their limit, so ratios are too high".to_owned());
        }
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::story::tests::incident;
    use super::*;

    #[test]
    fn the_page_says_what_was_told_and_nothing_steers_the_terminal() {
        let page = tell(&Story::find(incident("inc-7"), "inc-7").unwrap(), false);
        for part in [
            "inc-7: subnet-a → subnet-b",
            "began 2026-11-22 01:23:00 UTC, told after 80 s, over at 01:26:20 (recovered) after 3 min",
            "0.020 % ┤──",
            "01:24:20  opened    s1",
            "5.0 %     90.0",
            "baseline 0.020 % of 7010 samples, 67 min old (pair_rate)",
            "one flow has 31 % of what was sent again",
            "  subnet-a → subnet-b since 01:23:00",
        ] {
            assert!(page.contains(part), "{part:?} is not in\n{page}");
        }
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
        assert_eq!(page.matches('●').count(), 3, "two points and the legend");
    }

    #[test]
    fn the_page_says_what_operators_said_of_it() {
        let mut events = incident("inc-7");
        let last = &mut events[2];
        let (by, note) = ("ada\u{1b}[2J".to_owned(), "on it".to_owned());
        last.acknowledged = Some(flowshift_proto::anomaly::Acknowledged { by: by.clone(), note, at: 1_795_310_655 });
        let (note, at, until) = (String::new(), 1_795_310_760, 1_795_397_160);
        last.dismissed = Some(flowshift_proto::anomaly::Dismissed { by, note, at, until });
        let page = tell(&Story::find(events, "inc-7").unwrap(), false);
        let told = "acknowledged by ada?[2J at 01:24:15: on it\ncalled no issue by ada?[2J at 01:26:00\n";
        assert!(page.contains(told), "{page}");
    }
}
