//! Other methods on the windows of the detector's exam, writing the same event log.
//!
//! For: the columns beside flowshift's in the exam's tables. Not for: shipping. Every method turns three series of a pair
//! (retransmitted share, median round-trip time, share of failed connects) into scores; an alarm is a score above the
//! method's threshold in 3 of 5 windows, over after 10 windows below it. The thresholds are calibrated to the budget on
//! recordings whose truth is known (`calibrate`), which flowshift's own is not.
//! Reading order: [`recording`] (the windows), [`methods`], [`alarms`] (scores to incidents), [`calibrate`].

mod alarms;
mod calibrate;
mod methods;
mod recording;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use methods::Method;
use recording::Recording;

/// Thresholds of every method for the three signals, by length of a window in seconds.
pub type Thresholds = BTreeMap<String, BTreeMap<String, [f32; 3]>>;

/// Other methods on the exam's windows
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write METHOD.log for every method
    Run {
        /// windows.jsonl, plain or gzip
        #[arg(long)]
        windows: PathBuf,
        /// pairs.jsonl
        #[arg(long)]
        pairs: PathBuf,
        /// config.json: of it only t0, days, warm_days and window_s are read
        #[arg(long)]
        config: PathBuf,
        /// thresholds.json
        #[arg(long)]
        thresholds: PathBuf,
        /// Folder to write to
        #[arg(long)]
        out: PathBuf,
    },
    /// Find the thresholds at which recordings with known truth give the budget of false alarms
    Calibrate {
        /// thresholds.json to write; other window lengths in it are kept
        #[arg(long)]
        out: PathBuf,
        /// False alarms in 1,000 pair-days, for each signal: together they may have three times flowshift's
        #[arg(long, default_value_t = 1.0)]
        budget: f64,
        /// Folders of recordings
        folders: Vec<PathBuf>,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run { windows, pairs, config, thresholds, out } => {
            let recording = Recording::read(&windows, &pairs, &config)?;
            let text = std::fs::read_to_string(&thresholds).with_context(|| thresholds.display().to_string())?;
            let all: Thresholds = serde_json::from_str(&text).with_context(|| thresholds.display().to_string())?;
            let window_s = recording.window_s.to_string();
            let of_step = all.get(&window_s).with_context(|| format!("no thresholds for windows of {window_s} s"))?;
            for method in Method::ALL {
                let levels =
                    of_step.get(method.name()).with_context(|| format!("no thresholds of {}", method.name()))?;
                let path = out.join(format!("{}.log", method.name()));
                let mut log = BufWriter::new(File::create(&path).with_context(|| path.display().to_string())?);
                for event in alarms::log(&recording, method, levels) {
                    serde_json::to_writer(&mut log, &event)?;
                    writeln!(log)?;
                }
                log.flush()?;
            }
            Ok(())
        }
        Command::Calibrate { out, budget, folders } => {
            let mut all: Thresholds = match std::fs::read_to_string(&out) {
                Ok(text) => serde_json::from_str(&text).with_context(|| out.display().to_string())?,
                Err(_) => Thresholds::new(),
            };
            let (window_s, found) = calibrate::thresholds(&folders, budget)?;
            all.insert(window_s.to_string(), found);
            std::fs::write(&out, serde_json::to_string_pretty(&all)? + "\n").with_context(|| out.display().to_string())
        }
    }
}
