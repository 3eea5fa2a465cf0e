//! What a check says, and what all of them said.
//!
//! Pure. Invariant: what is not in order always carries what to do about it, and no text holds control characters that
//! others put into a name or an answer.

use serde::Serialize;

/// How it stands, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// In order.
    Ok,
    /// Not looked at, with the reason; no verdict.
    Skipped,
    /// It runs, but not as one would want.
    Warning,
    /// It does not run, or loses something.
    Fault,
}

impl Level {
    /// The word in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check; set by who ran it.
    pub check: &'static str,
    /// What was looked at: a stream, a table, a webhook; may be empty.
    pub about: String,
    /// How it stands.
    pub level: Level,
    /// What was seen.
    pub what: String,
    /// What to do; empty only when it is in order.
    pub fix: String,
}

impl Finding {
    /// In order.
    pub fn ok(about: impl AsRef<str>, what: impl AsRef<str>) -> Self {
        Self::new(Level::Ok, about.as_ref(), what.as_ref(), "")
    }

    /// Not looked at; `fix` says when it would be.
    pub fn skipped(about: impl AsRef<str>, what: impl AsRef<str>, fix: impl AsRef<str>) -> Self {
        Self::new(Level::Skipped, about.as_ref(), what.as_ref(), fix.as_ref())
    }

    /// Not as one would want.
    pub fn warning(about: impl AsRef<str>, what: impl AsRef<str>, fix: impl AsRef<str>) -> Self {
        Self::new(Level::Warning, about.as_ref(), what.as_ref(), fix.as_ref())
    }

    /// It does not run.
    pub fn fault(about: impl AsRef<str>, what: impl AsRef<str>, fix: impl AsRef<str>) -> Self {
        Self::new(Level::Fault, about.as_ref(), what.as_ref(), fix.as_ref())
    }

    fn new(level: Level, about: &str, what: &str, fix: &str) -> Self {
        Self { check: "", about: plain(about), level, what: plain(what), fix: plain(fix) }
    }
}

/// One line, and nothing that steers a terminal.
fn plain(text: &str) -> String {
    text.trim().chars().map(|c| if c == '\n' { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

/// What all checks said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether there is no fault.
    pub ok: bool,
    /// Number of faults.
    pub faults: usize,
    /// Number of warnings.
    pub warnings: usize,
    /// Number of what could not be looked at.
    pub skipped: usize,
    /// Every finding, in the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Counts them.
    pub fn new(findings: Vec<Finding>) -> Self {
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        let faults = count(Level::Fault);
        Self { ok: faults == 0, faults, warnings: count(Level::Warning), skipped: count(Level::Skipped), findings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_and_skips_leave_a_report_green_and_a_fault_does_not() {
        let mut findings =
            vec![Finding::ok("a", "b"), Finding::warning("a", "b", "c"), Finding::skipped("a", "b", "c")];
        let green = Report::new(findings.clone());
        assert_eq!((green.ok, green.faults, green.warnings, green.skipped), (true, 0, 1, 1));
        findings.push(Finding::fault("a", "b", "c"));
        assert!(!Report::new(findings).ok);
    }

    #[test]
    fn what_others_wrote_stays_on_its_line() {
        let finding = Finding::fault("a\x1b[31m", " first\nsecond\r ", "fix");
        assert_eq!((finding.about.as_str(), finding.what.as_str()), ("a[31m", "first second"));
    }
}
