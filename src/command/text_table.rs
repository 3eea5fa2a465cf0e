//! Aligned columns for people, with colours on a terminal only.
//!
//! Pure: cells in, text out. Invariant: without colours the text holds no control characters; with them it is the same
//! text with colours around words, so columns align either way.

use std::io::IsTerminal;

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Dim,
    Good,
    Bad,
    Warn,
}

/// One cell.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl Cell {
    /// Plain text; nothing becomes a dash.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        let text = text.into();
        // What others wrote into a row must not steer a terminal.
        let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        if text.is_empty() { Self { text: "-".into(), tone: Tone::Dim } } else { Self { text, tone } }
    }
}

/// Whether standard output wants colours: a terminal, no `NO_COLOR`, not a dumb one.
pub(super) fn colours() -> bool {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !no_colour && !dumb
}

/// The rows below their headings, two spaces between columns, nothing behind the last.
pub(super) fn render(headings: &[&str], rows: &[Vec<Cell>], colour: bool) -> String {
    let heads: Vec<Cell> = headings.iter().map(|text| Cell::toned(*text, Tone::Dim)).collect();
    let mut widths = vec![0; headings.len()];
    for row in std::iter::once(&heads).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let mut lines = Vec::new();
    for row in std::iter::once(&heads).chain(rows) {
        let last = row.len().saturating_sub(1);
        let cells = row.iter().zip(&widths).enumerate().map(|(index, (cell, width))| {
            let pad = if index == last { 0 } else { width - cell.text.chars().count() };
            format!("{}{}", paint(cell, colour), " ".repeat(pad))
        });
        lines.push(cells.collect::<Vec<_>>().join("  "));
    }
    lines.join("\n")
}

/// A cell's text, in its colour.
pub(super) fn paint(cell: &Cell, colour: bool) -> String {
    let code = match cell.tone {
        Tone::Plain => return cell.text.clone(),
        Tone::Dim => "2",
        Tone::Good => "32",
        Tone::Bad => "1;31",
        Tone::Warn => "33",
    };
    if colour { format!("\x1b[{code}m{}\x1b[0m", cell.text) } else { cell.text.clone() }
}

/// Bytes for people: 512 B, 1.5 KiB, 20 MiB.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 10.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A span for people: 0.8 s, 42 s, 3 min, 5 h, 2 d.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_colours_change_no_width() {
        let rows = [
            vec![Cell::plain("a"), Cell::toned("live", Tone::Good), Cell::plain("x")],
            vec![Cell::plain("longer"), Cell::plain(""), Cell::plain("y")],
        ];
        let plain = render(&["NAME", "BEAT", "Z"], &rows, false);
        assert_eq!(plain, "NAME    BEAT  Z\na       live  x\nlonger  -     y");
        let coloured = render(&["NAME", "BEAT", "Z"], &rows, true);
        let stripped: String = coloured.split('\x1b').map(|s| s.split_once('m').map_or(s, |(_, rest)| rest)).collect();
        assert!(coloured.contains("\x1b[32mlive\x1b[0m"));
        assert_eq!(stripped.replace("[2", ""), plain);
    }

    #[test]
    fn what_stands_in_a_row_cannot_steer_a_terminal() {
        assert_eq!(Cell::plain("a\x1b[31mb\n").text, "a?[31mb?");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([bytes(0), bytes(1536), bytes(20 << 20)], ["0 B", "1.5 KiB", "20 MiB"]);
        assert_eq!([span(0.84), span(42.0), span(200.0), span(200_000.0)], ["0.8 s", "42 s", "3 min", "2 d"]);
    }
}
