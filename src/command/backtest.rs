//! `flowshift backtest`: recorded traffic through the detector, and its event log.
//!
//! Names of files, settings, progress and the summary; the work is [`crate::backtest`]'s. The log appears under its name
//! when it is whole: until then it is written beside it, with `.partial` at the end.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::Instant;

use super::{Failure, load, print_line, services};
use crate::backtest::{Account, Backtest, Input, TraceAccount, follow_trace, read_pairs, trace_files, window_length};
use crate::cli;
use crate::config::{Override, Settings};
use crate::stage::rules;

pub(super) fn run(args: &cli::Backtest) -> Result<(), Failure> {
    match (&args.windows, &args.pairs, &args.rtt_traces) {
        (Some(windows), Some(pairs), _) => over_windows(args, windows, pairs),
        (_, _, Some(folder)) => over_traces(args, folder),
        // The parser asks for one of them.
        _ => Err(Failure::usage(anyhow!("give --windows with --pairs and --topology, or --rtt-traces"))),
    }
}

fn over_windows(args: &cli::Backtest, windows: &Path, pairs: &Path) -> Result<(), Failure> {
    let window_s = window_length(windows).map_err(Failure::start)?;
    let mut overrides = Vec::new();
    if let Some(step) = &args.step {
        overrides.push(Override::new("--step", "detector.step", step));
    }
    if let Some(window_s) = window_s {
        if args.step.is_none() {
            overrides.push(Override::new("config.json", "detector.step", format!("{window_s}s")));
        }
        overrides.push(Override::new("config.json", "detector.pane", format!("{window_s}s")));
    } else if let Some(step) = &args.step {
        overrides.push(Override::new("--step", "detector.pane", step));
    } else {
        let folder = windows.with_file_name("config.json").display().to_string();
        return Err(Failure::usage(anyhow!("how long is a window? {folder} is not there: give --step")));
    }
    let flags = cli::Settings { config: args.config.clone(), topology: args.topology.clone(), ..Default::default() };
    let config = load(&Settings::local_defaults(), &flags, overrides)?.config;
    let topology = services::topology(&config).map_err(Failure::usage)?;
    let settings = rules::detector_settings(&config).map_err(Failure::usage)?;
    let lanes = rules::lanes(&config).map_err(Failure::usage)?;

    let pairs = read_pairs(pairs, &topology).map_err(Failure::usage)?;
    let number_of_pairs = pairs.len();
    let on_disk = std::fs::metadata(windows).map_or(0, |meta| meta.len());
    let bar = bar(on_disk, "{percent:>3} % [{bar:40}] {bytes} of {total_bytes}, {eta} to go");
    let file = File::open(windows).with_context(|| windows.display().to_string()).map_err(Failure::usage)?;
    let mut input = Input::new(windows, bar.wrap_read(file)).map_err(Failure::start)?;
    let mut log = Log::create(&args.out)?;
    let began = Instant::now();
    let backtest = Backtest::new(&settings, lanes, topology.content_hash().to_be_bytes(), pairs);
    let account = backtest.run(&mut input, &mut log.file).map_err(Failure::start)?;
    bar.finish_and_clear();
    log.finish()?;
    let took_s = began.elapsed().as_secs_f64();
    args.say(&summary(args.json, &account, number_of_pairs, settings.step_s(), took_s));
    Ok(())
}

fn over_traces(args: &cli::Backtest, folder: &Path) -> Result<(), Failure> {
    let files = trace_files(folder).map_err(Failure::usage)?;
    let bar = bar(files.len() as u64, "{percent:>3} % [{bar:40}] {pos} of {len} traces");
    let mut log = Log::create(&args.out)?;
    let mut account = TraceAccount::default();
    for file in files {
        follow_trace(&file, &mut log.file, &mut account).map_err(Failure::start)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    log.finish()?;
    let TraceAccount { traces, values, lost, changes } = account;
    let text = format!("{changes} changes in {traces} traces of {values} values, {lost} of them lost");
    args.say(&if args.json { json!(account).to_string() } else { text });
    Ok(())
}

impl cli::Backtest {
    fn to_stdout(&self) -> bool {
        self.out == Path::new("-")
    }

    /// Says a line on standard output, or on standard error when the log is there.
    fn say(&self, line: &str) {
        if self.to_stdout() { eprintln!("{line}") } else { print_line(line) }
    }
}

fn summary(as_json: bool, account: &Account, pairs: usize, step_s: u32, took_s: f64) -> String {
    let Account { lines, late, repeated, windows, events, opened, open } = *account;
    let micros = took_s * 1e6 / lines.max(1) as f64;
    if as_json {
        let rounded = (micros * 10.0).round() / 10.0;
        let more = json!({"pairs": pairs, "step_s": step_s, "took_s": took_s.round(), "micros_a_line": rounded});
        let mut all = json!(account);
        if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
            all.extend(more.clone());
        }
        return all.to_string();
    }
    format!(
        "{lines} lines of {pairs} pairs in {windows} windows, judged every {step_s} s in {took_s:.0} s ({micros:.1} µs a line)\n\
         left out: {late} late, {repeated} repeated\n\
         {opened} incidents opened, {open} open at the end, {events} events"
    )
}

/// A bar on standard error if that is a terminal, else nothing.
fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// The event log while it is written.
struct Log {
    file: Box<dyn Write>,
    /// Where it lies now and where it belongs; `None` for standard output.
    names: Option<(PathBuf, PathBuf)>,
}

impl Log {
    fn create(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self { file: Box::new(BufWriter::new(io::stdout())), names: None });
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).with_context(|| partial.display().to_string()).map_err(Failure::usage)?;
        Ok(Self { file: Box::new(BufWriter::new(file)), names: Some((partial, path.to_owned())) })
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.file.flush().context("event log")?;
        if let Some((partial, path)) = self.names {
            std::fs::rename(&partial, &path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}
