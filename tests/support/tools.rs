//! Tools that may be missing, and patience.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The longest wait for anything: a machine with two busy cores is slow, a test that hangs is not slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Says loudly that a test, or a part of it, was not run; `tests/run` repeats it at its end.
pub(crate) fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(path) = std::env::var_os("FLOWSHIFT_SKIPPED") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{test}: {why}").unwrap();
    }
}

/// Whether the long form was asked for.
pub(crate) fn long() -> bool {
    std::env::var_os("FLOWSHIFT_LONG").is_some_and(|value| value == "1")
}

/// Python 3 with the standard library alone.
pub(crate) fn python() -> Option<PathBuf> {
    named("FLOWSHIFT_PYTHON", "python3", "--version")
}

/// Python 3 with the package `standardwebhooks`: that of `tests/run`, or the machine's.
pub(crate) fn python_with_webhooks() -> Option<PathBuf> {
    python_with("standardwebhooks")
}

/// Python 3 with these packages, separated by commas.
pub(crate) fn python_with(packages: &str) -> Option<PathBuf> {
    let venv = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/.tools/venv/bin/python");
    let candidates = [std::env::var_os("FLOWSHIFT_PYTHON").map(PathBuf::from), Some(venv), Some("python3".into())];
    let has_it = |python: &PathBuf| works(Command::new(python).args(["-c", &format!("import {packages}")]));
    candidates.into_iter().flatten().find(has_it)
}

/// `promtool`.
pub(crate) fn promtool() -> Option<PathBuf> {
    named("FLOWSHIFT_PROMTOOL", "promtool", "--version")
}

/// `prometheus`.
pub(crate) fn prometheus() -> Option<PathBuf> {
    named("FLOWSHIFT_PROMETHEUS", "prometheus", "--version")
}

fn named(variable: &str, usual: &str, probe: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| PathBuf::from(usual), PathBuf::from);
    works(Command::new(&path).arg(probe)).then_some(path)
}

fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Asks again and again until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
