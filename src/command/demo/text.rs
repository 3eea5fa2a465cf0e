//! The demo's words and numbers, for a terminal of 100 columns. Pure: values in, text out.
//!
//! Not here: where it is written, see [`super::screen`]. Invariant: without colours the text holds no control characters,
//! and with them it is the same text with colours around words. Read next: [`super::outcome`] for the last table.

use flowshift_proto::anomaly::{
    AnomalyEvent, ElementKind, EventType, ResolveReason, Severity, Signal, Verdict, rfc3339,
};

use super::outcome::{Finding, Outcome};
use crate::simulate::{Planted, PlantedKind};

/// Whether words are coloured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) colour: bool,
}

/// What a colour says.
#[derive(Debug, Clone, Copy)]
enum Tone {
    Bold,
    Dim,
    Good,
    Bad,
    Warn,
}

impl Style {
    fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Bold => "1",
            Tone::Dim => "2",
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Warn => "33",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// What is about to be shown.
pub(super) struct Header<'a> {
    pub(super) zones: usize,
    pub(super) subnets: usize,
    pub(super) pairs: usize,
    pub(super) agents: usize,
    /// Epoch seconds.
    pub(super) start_s: i64,
    pub(super) length_s: i64,
    /// Simulated seconds in a second.
    pub(super) speed: f64,
    /// Nats.
    pub(super) threshold: f64,
    pub(super) step_s: u64,
    pub(super) planted: &'a [Planted],
}

/// The status line's numbers.
pub(super) struct Status {
    /// Simulated time, epoch seconds.
    pub(super) at_s: i64,
    /// The same after the start.
    pub(super) offset_s: i64,
    pub(super) length_s: i64,
    pub(super) reports: u64,
    pub(super) records_per_s: f64,
    /// Open incidents.
    pub(super) open: i64,
}

/// What was told of an incident so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    opened_s: i64,
    severity: Severity,
}

impl Told {
    /// What stands after an event.
    pub(super) fn after(event: &AnomalyEvent, before: Option<Self>) -> Self {
        let opened_s = match (event.kind, before) {
            (EventType::Opened, _) | (_, None) => event.at,
            (_, Some(before)) => before.opened_s,
        };
        Self { opened_s, severity: event.severity }
    }
}

/// The account at the end.
pub(super) struct Numbers {
    pub(super) reports: u64,
    /// Flow records in the reports sent.
    pub(super) sent: u64,
    pub(super) records_in: u64,
    pub(super) accounted: u64,
    /// Records in no pane, by reason, without zeros.
    pub(super) rejected: Vec<(&'static str, u64)>,
    pub(super) wall_s: f64,
}

impl Numbers {
    /// What does not add up, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        let rejected: u64 = self.rejected.iter().map(|(_, count)| count).sum();
        let adds_up = self.sent == self.records_in && self.records_in == self.accounted + rejected;
        (!adds_up).then(|| {
            format!(
                "{} records sent, {} read, {} accounted, {rejected} refused",
                self.sent, self.records_in, self.accounted
            )
        })
    }
}

/// The first lines.
pub(super) fn header(h: &Header<'_>, style: Style) -> String {
    let label = |name: &str| style.paint(Tone::Dim, &format!("  {name:<10}"));
    let minutes = h.length_s / 60;
    let seconds = h.length_s as f64 / h.speed;
    let mut lines = vec![
        String::new(),
        style.paint(Tone::Bold, "flowshift demo") + ": a simulated region, judged by the real pipeline",
        String::new(),
        format!(
            "{}{} zones, {} subnets, {} directed subnet pairs, {} agents reporting every 30 s",
            label("region"),
            h.zones,
            h.subnets,
            h.pairs,
            h.agents
        ),
        format!(
            "{}{} to {} UTC, {minutes} minutes of traffic sent in {seconds:.0} seconds",
            label("time"),
            clock(h.start_s),
            clock(h.start_s + h.length_s)
        ),
        label("pipeline") + "agents → collector → Kinesis → aggregate → Kinesis → detect → Kinesis → correlate",
        label("") + "every stage, commit and lease is real; Kinesis and DynamoDB run inside this process",
        format!(
            "{}every {} s per pair; an incident opens at {:.1} nats = 1 false alarm per 1,000 pair-days",
            label("judged"),
            h.step_s,
            h.threshold
        ),
        String::new(),
        style.paint(Tone::Bold, "  planted"),
    ];
    for planted in h.planted {
        let (from, to) = (clock(h.start_s + planted.start_s), clock(h.start_s + planted.end_s));
        let must = planted.signal.map_or("must stay quiet".to_owned(), |signal| format!("must open: {signal}"));
        let (what, place) = (short(planted), &planted.element.id);
        lines.push(format!("  {from} to {to}  {what:<22}{place:<29}{must}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The line after learning.
pub(super) fn learned(records: u64, refused: u64, history_s: i64, took_s: f64, style: Style) -> String {
    let refused = if refused == 0 { String::new() } else { format!(", {} refused", thousands(refused)) };
    let hours = history_s / 3_600;
    let text = format!(
        "  baselines learned from {} flow records of the {hours} hours before{refused} ({took_s:.1} s)\n",
        thousands(records)
    );
    style.paint(Tone::Dim, &text)
}

/// The status line, without a line end.
pub(super) fn status(s: &Status, style: Style) -> String {
    const WIDTH: i64 = 24;
    let done = (s.offset_s * WIDTH / s.length_s.max(1)).clamp(0, WIDTH);
    let repeat = |text: &str, n: i64| text.repeat(usize::try_from(n).unwrap_or_default());
    let bar = style.paint(Tone::Good, &repeat("━", done)) + &style.paint(Tone::Dim, &repeat("─", WIDTH - done));
    let open = format!("{} open", s.open);
    let open = if s.open > 0 { style.paint(Tone::Warn, &open) } else { open };
    let doing = if s.offset_s >= s.length_s { "judging what is left" } else { "" };
    format!(
        "  {} {bar}  {} reports  {} records/s  {open}  {doing}",
        clock(s.at_s),
        thousands(s.reports),
        thousands(s.records_per_s as u64)
    )
}

/// An event: what happened, where, and the numbers a person can check. `before`: what was told of
/// the incident.
pub(super) fn event(event: &AnomalyEvent, before: Option<Told>, threshold: f64, style: Style) -> String {
    let (word, tone) = match event.kind {
        EventType::Opened => ("opened", Tone::Bad),
        EventType::Resolved => ("resolved", Tone::Good),
        EventType::Updated if before.is_some_and(|b| event.severity < b.severity) => ("worsened", Tone::Warn),
        EventType::Updated => ("updated", Tone::Warn),
    };
    let severity = event.severity.as_str();
    let severity = match event.severity {
        Severity::S1 | Severity::S2 => style.paint(Tone::Bold, severity),
        Severity::S3 | Severity::S4 => severity.to_owned(),
    };
    let first = format!(
        "  {}  {}  {severity}  {:<10}  {:<29}  {}",
        clock(event.at),
        style.paint(tone, &format!("{word:<8}")),
        event.signal.as_str(),
        event.element.id,
        verdict(event.verdict)
    );
    let details = match event.kind {
        EventType::Resolved => ending(event, before),
        EventType::Opened | EventType::Updated => measured(event, threshold),
    };
    format!("{first}\n{}", style.paint(Tone::Dim, &format!("         {details}")))
}

fn measured(event: &AnomalyEvent, threshold: f64) -> String {
    let mut parts = Vec::new();
    if let (Some(usual), Some(now)) = (&event.baseline, &event.observed) {
        let what = match event.signal {
            Signal::Latency => "round trip",
            Signal::Connect => "of connects failed",
            Signal::Retransmit => "of segments resent",
            Signal::Silence => "of the traffic",
        };
        let value = |value: f64| match event.signal {
            Signal::Latency => duration(value),
            _ => percent(value),
        };
        let (usual, n) = (value(usual.value), thousands(now.n));
        parts.push(format!("{usual} → {} {what} (n {n})", value(now.value)));
    }
    if let Some(evidence) = &event.evidence {
        parts.push(format!("{:.1}/{threshold:.1} nats", evidence.nats));
        let all = evidence.of.worse + evidence.of.quiet;
        let whose = if event.element.kind == ElementKind::Pair { "near it" } else { "pairs" };
        parts.push(format!("{} of {all} {whose} worse", evidence.of.worse));
    }
    parts.join("; ")
}

fn ending(event: &AnomalyEvent, before: Option<Told>) -> String {
    let after = before.map(|told| format!(" {} min after it opened", (event.at - told.opened_s) / 60));
    let after = after.unwrap_or_default();
    match event.reason {
        Some(ResolveReason::Merged) => format!("part of {}", event.into.as_deref().unwrap_or("a wider incident")),
        Some(ResolveReason::NotAnIssue) => "not an issue, as an operator says".to_owned(),
        Some(ResolveReason::NewNormal) => format!("the new level has lasted and is the baseline now{after}"),
        Some(ResolveReason::Recovered) | None => format!("back to normal{after}"),
    }
}

/// The table of what was planted and found, and the account.
pub(super) fn summary(outcome: &Outcome<'_>, numbers: &Numbers, style: Style) -> String {
    let head = format!("    {:<22}{:<29}{:<12}{}", "planted", "where", "expected", "found");
    let mut lines = vec![String::new(), style.paint(Tone::Bold, &head)];
    for (planted, finding) in &outcome.findings {
        let mark = if finding.is_good() { style.paint(Tone::Good, "✓") } else { style.paint(Tone::Bad, "✗") };
        let (what, place, expected) = (short(planted), &planted.element.id, planted.signal.unwrap_or("quiet"));
        lines.push(format!("  {mark} {what:<22}{place:<29}{expected:<12}{}", found(finding)));
    }
    let alarms = outcome.false_alarms.len();
    let tone = if alarms == 0 { Tone::Good } else { Tone::Bad };
    let legend = "    opened: after the fault's start; over: after its end; in event time";
    lines.push(style.paint(Tone::Dim, legend));
    lines.push(String::new());
    lines.push(format!("  false alarms  {}", style.paint(tone, &alarms.to_string())));
    let rejected: u64 = numbers.rejected.iter().map(|(_, count)| count).sum();
    let reasons: Vec<String> = numbers.rejected.iter().map(|(r, n)| format!("{r} {}", thousands(*n))).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    lines.push(format!(
        "  flow records  {} in {} reports = {} in panes + {} refused{reasons}",
        thousands(numbers.records_in),
        thousands(numbers.reports),
        thousands(numbers.accounted),
        thousands(rejected)
    ));
    lines.push(format!("  wall time     {:.0} s", numbers.wall_s));
    lines.push(String::new());
    lines.join("\n")
}

fn found(finding: &Finding) -> String {
    match finding {
        Finding::Quiet => "quiet".to_owned(),
        Finding::Found { opened_after_s, resolved_after_s } => {
            format!("opened +{opened_after_s} s, over +{resolved_after_s} s")
        }
        Finding::Missed => "nothing".to_owned(),
        Finding::Misplaced { named } => format!("at {named}"),
        Finding::Open => "opened, not over".to_owned(),
        Finding::Alarmed => "an incident".to_owned(),
    }
}

/// A planted change in a few words.
fn short(planted: &Planted) -> String {
    let percent = planted.magnitude * 100.0;
    match planted.kind {
        PlantedKind::Loss => format!("{percent:.0} % loss"),
        PlantedKind::Rtt => format!("+{percent:.0} % round trip"),
        PlantedKind::ConnectFailures => format!("{percent:.0} % connects fail"),
        PlantedKind::Surge => format!("{:.0} × the flows", planted.magnitude),
        PlantedKind::NewClients => format!("+{percent:.0} % new clients"),
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Workload => "workload",
        Verdict::ProviderPath => "provider path",
        Verdict::SharedUnknown => "shared, cause unknown",
        Verdict::Insufficient => "too few neighbours",
    }
}

/// `HH:MM`, UTC.
fn clock(epoch_s: i64) -> String {
    rfc3339(epoch_s).and_then(|text| text.get(11..16).map(str::to_owned)).unwrap_or_else(|| "--:--".to_owned())
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if p >= 1.0 => format!("{p:.1} %"),
        p if p >= 0.1 => format!("{p:.2} %"),
        p => format!("{p:.3} %"),
    }
}

fn duration(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        us => format!("{us:.0} µs"),
    }
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
