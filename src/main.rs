//! The `flowshift` program: parse, run the command, say what went wrong, exit.

use std::process::ExitCode;

use clap::Parser;
use flowshift::cli::Cli;
use flowshift::command::{self, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return command::report_usage(&told),
    };
    // Reads FAILPOINTS; does nothing in a build without fail points.
    let _fail_points = fail::FailScenario::setup();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return command::report(&Failure::start(error)),
    };
    let outcome = runtime.block_on(command::run(cli));
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => command::report(&failure),
    }
}
