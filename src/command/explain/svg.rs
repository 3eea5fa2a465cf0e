//! An incident as a drawing: observed against baseline above, evidence below.
//!
//! Plain SVG 1.1 that every browser shows and that reads on white and on black. Invariant: text of the log is escaped.

use std::fmt::Write;

use super::plot::{Plot, clock, date};
use super::story::{Story, unit, value};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 830.0;
/// Top and bottom of the plot of values, and of the evidence.
const VALUES: (f64, f64) = (70.0, 300.0);
const NATS: (f64, f64) = (340.0, 420.0);

/// The drawing; one without numbers says so.
pub(super) fn draw(story: &Story) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} 460\" font-family=\"sans-serif\" font-size=\"13\" \
         fill=\"none\" stroke-width=\"1.5\">\n<rect width=\"{WIDTH}\" height=\"460\" fill=\"#fff\"/>\n"
    );
    let Some(event) = story.told() else { return svg + "</svg>\n" };
    let start = event.started_at.map_or_else(String::new, |at| format!(", began {}", date(at)));
    text(
        &mut svg,
        20.0,
        26.0,
        "start",
        &format!("{}: {} {}{start}", event.incident, event.severity.as_str(), event.verdict.as_str()),
    );
    text(&mut svg, 20.0, 46.0, "start", &event.summary);
    match Plot::of(story) {
        Some(plot) => axes_and_points(&mut svg, &plot, story),
        None => text(&mut svg, LEFT, 180.0, "start", "its events carry no numbers"),
    }
    svg + "</svg>\n"
}

fn axes_and_points(svg: &mut String, plot: &Plot, story: &Story) {
    let Some(event) = story.told() else { return };
    let x = |at: i64| LEFT + plot.x(at) * (RIGHT - LEFT);
    let y = |v: f64| VALUES.1 - plot.y(v) * (VALUES.1 - VALUES.0);
    for (top, bottom) in [VALUES, NATS] {
        line(svg, (LEFT, top), (LEFT, bottom), "#888", "");
        line(svg, (LEFT, bottom), (RIGHT, bottom), "#888", "");
    }
    for level in [plot.values.0, plot.values.1, plot.baseline] {
        text(svg, LEFT - 6.0, y(level) + 4.0, "end", &value(event.signal, level));
    }
    line(svg, (LEFT, y(plot.baseline)), (RIGHT, y(plot.baseline)), "#2a7", " stroke-dasharray=\"6 4\"");
    text(
        svg,
        RIGHT,
        VALUES.0 - 4.0,
        "end",
        &format!("{}: observed, 90 % interval; dashed: baseline", unit(event.signal)),
    );
    text(svg, RIGHT, NATS.0 - 6.0, "end", &format!("evidence, up to {:.0} nats", plot.nats));
    for point in &plot.points {
        let (at, height) = (x(point.at), point.nats.max(0.0) / plot.nats * (NATS.1 - NATS.0));
        line(svg, (at, y(point.low)), (at, y(point.high)), "#c33", "");
        writeln!(svg, "<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"#c33\"/>", y(point.observed)).ok();
        line(svg, (at, NATS.1), (at, NATS.1 - height), "#36c", " stroke-width=\"4\"");
    }
    if let Some(end) = story.resolved() {
        line(svg, (x(end.at), VALUES.0), (x(end.at), NATS.1), "#2a7", "");
    }
    text(svg, LEFT, NATS.1 + 18.0, "start", &clock(plot.time.0));
    text(svg, RIGHT, NATS.1 + 18.0, "end", &clock(plot.time.1));
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, more: &str) {
    let ends = format!("x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"", from.0, from.1, to.0, to.1);
    writeln!(svg, "<line {ends} stroke=\"{colour}\"{more}/>").ok();
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let mut escaped = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222\">{escaped}</text>").ok();
}

#[cfg(test)]
mod tests {
    use super::super::story::tests::incident;
    use super::*;

    #[test]
    fn the_drawing_has_every_point_and_what_stands_in_a_log_cannot_break_out() {
        let svg = draw(&Story::find(incident("inc-7"), "inc-7").unwrap());
        assert_eq!(
            (svg.matches("<circle").count(), svg.matches("<svg").count(), svg.matches("</svg>").count()),
            (2, 1, 1)
        );
        assert!(svg.contains("?[31m&lt;b&gt; &amp; 4.9 %"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        let mut none = incident("inc-7");
        none.iter_mut().for_each(|event| event.baseline = None);
        assert!(draw(&Story::find(none, "inc-7").unwrap()).contains("carry no numbers"));
    }
}
