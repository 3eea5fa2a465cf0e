//! The list of checks, and running them side by side under a time limit each.

use std::time::Duration;

use futures::future::{FutureExt, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};

use super::{Finding, Patient, Report};
use super::{clock, foreign, identity, listen, permission, sample, settings, stream, table, topology, webhook};
use crate::config::Problems;

/// A check that is under way.
type Check<'a> = (&'static str, LocalBoxFuture<'a, Vec<Finding>>);

/// The checks, in the order of the report.
fn checks(patient: &Patient) -> Vec<Check<'_>> {
    vec![
        ("settings", settings::check(patient).boxed_local()),
        ("identity", identity::check(patient).boxed_local()),
        ("clock", clock::check(patient).boxed_local()),
        ("streams", stream::check(patient).boxed_local()),
        ("tables", table::check(patient).boxed_local()),
        ("permissions", permission::check(patient).boxed_local()),
        ("workers", foreign::check(patient).boxed_local()),
        ("topology", topology::check(patient).boxed_local()),
        ("records", sample::check(patient).boxed_local()),
        ("webhooks", webhook::check(patient).boxed_local()),
        ("listen", listen::check(patient).boxed_local()),
    ]
}

/// Runs every check, each for at most `limit`. `done` hears the names of those still under way whenever one ends.
pub async fn examine(patient: &Patient, limit: Duration, mut done: impl FnMut(&[&'static str])) -> Report {
    let checks = checks(patient);
    let mut waiting: Vec<&'static str> = checks.iter().map(|(name, _)| *name).collect();
    done(&waiting);
    let under_way = checks.into_iter().enumerate().map(|(place, (name, check))| async move {
        let findings = tokio::time::timeout(limit, check).await.unwrap_or_else(|_| vec![late(limit)]);
        (place, name, findings)
    });
    let mut under_way: FuturesUnordered<_> = under_way.collect();
    let mut found = Vec::new();
    while let Some((place, name, findings)) = under_way.next().await {
        waiting.retain(|other| *other != name);
        done(&waiting);
        found.extend(findings.into_iter().map(|finding| (place, Finding { check: name, ..finding })));
    }
    // A check's own order is kept.
    found.sort_by_key(|(place, _)| *place);
    Report::new(found.into_iter().map(|(_, finding)| finding).collect())
}

fn late(limit: Duration) -> Finding {
    Finding::fault(
        "",
        format!("no end within {limit:?}"),
        "look at region, endpoints, name resolution and routes; --timeout gives it longer",
    )
}

/// The report on settings that cannot be used: nothing else can be looked at.
pub fn unreadable(problems: &Problems) -> Report {
    let finding = |problem: &crate::config::Problem| {
        let about = if problem.key.is_empty() { problem.origin.to_string() } else { problem.key.clone() };
        let fix = if problem.fix.is_empty() { "see `flowshift config example`" } else { &problem.fix };
        let what = format!("{} ({})", problem.what, problem.origin);
        Finding { check: "settings", ..Finding::fault(about, what, fix) }
    };
    Report::new(problems.0.iter().map(finding).collect())
}
