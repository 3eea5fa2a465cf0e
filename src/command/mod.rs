//! What each command does. One file per command; here: who is called, and how failures leave the program.

mod backtest;
mod collect;
mod config;
#[cfg(feature = "embedded")]
mod demo;
mod doctor;
mod explain;
mod incidents;
mod leases;
#[cfg(feature = "embedded")]
mod local;
mod man;
mod preflight;
mod run;
mod services;
mod simulate;
mod state;
mod store;
mod text_table;
mod webhook;

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::{Cli, Command, Settings};
use crate::config::{self as settings, Loaded, Problems, Sources};

/// Exit code: the command line or the configuration is wrong (as in BSD's sysexits).
const USAGE: u8 = 64;
/// Exit code: it could not start, or stopped with an error.
const FAILED: u8 = 1;

/// A command failed.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    /// It could not start.
    pub fn start(error: impl Into<anyhow::Error>) -> Self {
        Self { code: FAILED, error: error.into() }
    }

    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: USAGE, error: error.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { code: FAILED, error }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::usage(problems)
    }
}

/// An error with its causes; an error that already has the words of its cause is not followed by them.
fn said(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let words = cause.to_string();
        if text.is_empty() {
            text = words;
        } else if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
    }
    text
}

/// Says a failure on standard error and gives its exit code: 64 for a wrong command line or configuration, else 1.
pub fn report(failure: &Failure) -> ExitCode {
    for line in said(&failure.error).lines() {
        eprintln!("flowshift: {line}");
    }
    ExitCode::from(failure.code)
}

/// Prints what the parser has to say: help and version are no failure, anything else is a wrong command line (64).
pub fn report_usage(told: &clap::Error) -> ExitCode {
    // Standard output or error may be gone; there is nobody to tell then.
    told.print().ok();
    if told.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Runs the command.
///
/// # Errors
/// What the command said.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        #[cfg(feature = "embedded")]
        Command::Demo(args) => demo::run(args).await,
        #[cfg(feature = "embedded")]
        Command::Local(args) => local::run(args).await,
        #[cfg(not(feature = "embedded"))]
        Command::Demo(_) | Command::Local(_) => {
            Err(Failure::usage(anyhow::anyhow!("this build has no embedded services; use a default build")))
        }
        Command::Run(args) => run::run(args).await,
        Command::Collect(args) => collect::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Simulate(args) => simulate::run(&args),
        Command::Backtest(args) => backtest::run(&args),
        Command::Explain(args) => explain::run(&args).await,
        Command::Incidents(command) => incidents::run(command).await,
        Command::Config(command) => config::run(command),
        Command::Webhook(command) => webhook::run(command).await,
        Command::Leases(command) => leases::run(command).await,
        Command::State(command) => state::run(command).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "flowshift", &mut script);
            print_line(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Command::Man { out } => man::run(out.as_deref()),
    }
}

/// Loads the configuration over the given defaults.
fn load(defaults: &settings::Settings, args: &Settings, more: Vec<settings::Override>) -> Result<Loaded, Failure> {
    let mut flags = args.overrides();
    flags.extend(more);
    let sources = Sources::gather(args.config.as_deref(), flags)?;
    Ok(settings::load(defaults, &sources)?)
}

/// Prints one line on standard output; a reader that went away is no failure.
fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}
