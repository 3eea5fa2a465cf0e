//! `flowshift doctor`: runs the checks, prints what they found, and exits by it.
//!
//! A line a finding, with the fix below what is not in order; colours on a terminal only. Not here: any verdict
//! ([`crate::doctor`]).

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::store::Store;
use super::text_table::{Cell, Tone, colours, paint};
use super::{Failure, load, print_line};
use crate::cli::Doctor;
use crate::config::Settings;
use crate::doctor::{Finding, Level, Patient, Report, examine, unreadable};

pub(super) async fn run(args: Doctor) -> Result<(), Failure> {
    // Whatever is wrong is in the report; log lines of clients would only disturb it.
    let report = report(&args).await?;
    if args.json {
        print_line(&serde_json::to_string_pretty(&report).map_err(Failure::start)?);
    } else {
        print_line(&told(&report, colours()));
    }
    if report.ok { Ok(()) } else { Err(Failure::start(anyhow::anyhow!("{}", count(report.faults, "fault")))) }
}

async fn report(args: &Doctor) -> Result<Report, Failure> {
    let defaults = if args.data_dir.is_some() { Settings::local_defaults() } else { Settings::default() };
    let sources = crate::config::Sources::gather(args.settings.config.as_deref(), args.settings.overrides());
    if let Err(problems) = sources.and_then(|sources| crate::config::load(&defaults, &sources)) {
        return Ok(unreadable(&problems));
    }
    if args.data_dir.is_some() {
        let store = Store::open(args.data_dir.clone(), &args.settings).await?;
        let patient = Patient::embedded(store.config.clone(), args.role, store.clients.clone(), store.stopped);
        let report = watched(&patient, args).await;
        store.close().await;
        return Ok(report);
    }
    let config = load(&defaults, &args.settings, Vec::new())?.config;
    Ok(watched(&Patient::on_aws(config, args.role).await, args).await)
}

/// Runs the checks, and says on a terminal which are still under way.
async fn watched(patient: &Patient, args: &Doctor) -> Report {
    let live = std::io::stderr().is_terminal() && !args.json;
    let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{spinner} looking at {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    let report = examine(patient, args.timeout.get(), |waiting| bar.set_message(waiting.join(", "))).await;
    bar.finish_and_clear();
    report
}

fn told(report: &Report, colour: bool) -> String {
    let about = |finding: &Finding| {
        if finding.about.is_empty() { finding.what.clone() } else { format!("{}: {}", finding.about, finding.what) }
    };
    let mut lines = Vec::new();
    for finding in &report.findings {
        let tone = match finding.level {
            Level::Ok => Tone::Good,
            Level::Skipped => Tone::Dim,
            Level::Warning => Tone::Warn,
            Level::Fault => Tone::Bad,
        };
        // Padded before it is painted, so that columns align either way.
        let level = paint(&Cell::toned(format!("{:<7}", finding.level.as_str()), tone), colour);
        lines.push(format!("{level}  {:<11}  {}", finding.check, about(finding)));
        if !finding.fix.is_empty() {
            lines.push(format!("{:22}{} {}", "", paint(&Cell::toned("->", Tone::Dim), colour), finding.fix));
        }
    }
    lines.push(format!(
        "{}, {}, {} not looked at",
        count(report.faults, "fault"),
        count(report.warnings, "warning"),
        report.skipped
    ));
    lines.join("\n")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_finding_with_its_fix_below_and_colours_only_when_asked() {
        let findings = vec![Finding::ok("flows", "ACTIVE"), Finding::fault("", "no region", "set aws.region")];
        let findings = findings.into_iter().map(|finding| Finding { check: "streams", ..finding }).collect();
        let report = Report::new(findings);
        let plain = told(&report, false);
        let wanted = "ok       streams      flows: ACTIVE\n\
                      fault    streams      no region\n                      -> set aws.region\n\
                      1 fault, 0 warnings, 0 not looked at";
        assert_eq!(plain, wanted);
        assert!(told(&report, true).contains("\x1b[1;31mfault  \x1b[0m"));
    }
}
