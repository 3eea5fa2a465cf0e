//! `flowshift run`: the stages against AWS.
//!
//! SIGTERM commits and leaves to the other workers of the job. With `--drain` it ends the input instead: for the last
//! worker of a job whose input is finite. Everything that is in the streams is judged and delivered before it exits.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Failure, load, preflight, print_line, services};
use crate::admin::Health;
use crate::admin::operator::Operator;
use crate::app::{self, Job};
use crate::aws::Clients;
use crate::cli::Run;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::stage::correlate::Printer;
use crate::telemetry;
use crate::webhook::Switches;

pub(super) async fn run(args: Run) -> Result<(), Failure> {
    let loaded = load(&Settings::default(), &args.settings, Vec::new())?;
    let config = Arc::new(loaded.config);
    telemetry::start(&config.log);
    let topology = services::topology(&config).map_err(Failure::usage)?;
    let metrics = Metrics::new().map_err(Failure::start)?;
    let health = Health::new();
    let leave = services::signals(&health)?;
    let clients = Clients::connect(&config.aws).await.map_err(Failure::start)?.counted(&metrics.engine);
    let switches = Switches::default();
    let snapshot = services::watch_rules(Arc::clone(&config), &topology, leave.clone())?;
    let operator = Operator::open(&config, &clients, &metrics, &switches, snapshot.clone()).map_err(Failure::usage)?;
    let admin = services::admin(&config, &metrics, &health, Some(operator)).await?;
    health.mark_started();
    // Behind the probes, which answer also while AWS does not.
    let (there, missing) =
        tokio::join!(preflight::streams(&config, &clients), preflight::missing_tables(&config, &clients));
    there?;
    let printer = (args.json || args.dry_run).then(|| -> Printer { Arc::new(print_line) });
    let worker = app::worker_id();
    preflight::introduce(&config, args.role, &worker, admin.address);
    let job = Job {
        worker,
        config,
        clients,
        metrics,
        snapshot,
        role: args.role,
        seed: None,
        printer,
        deliver: !args.dry_run,
        alone: false,
        switches,
    };
    // Streams of a live network do not end, unless they are said to.
    let (ends, end_input) = watch::channel(None);
    let leaving = if args.drain { CancellationToken::new() } else { leave.clone() };
    let ending = async {
        if args.drain {
            leave.cancelled().await;
            tracing::info!("the input ends here: finishing what is in the streams");
            ends.send_replace(Some(Instant::now()));
        }
        std::future::pending::<std::convert::Infallible>().await
    };
    let ended = tokio::select! {
        biased;
        ended = app::run(job, leaving, end_input) => ended,
        never = ending => match never {},
    };
    admin.stop().await;
    ended.map_err(|error| preflight::explained(error, &missing).into())
}
